"""The weight penalty of the paper (Wang et al. 2014, eq. 3): lambda times the squares of weights.

It holds the kernels of the layers that are trained, as is usual; biases and the scales of
normalisations are free.
"""

import keras
import numpy as np


def penalise_kernels(model: keras.Model, penalty: float) -> None:
    """Add a penalty to the loss of a model from its next `compile` on, not to its file.

    Args:
        model: the model; what is frozen when it is compiled is left out.
        penalty: the paper's lambda, 0 or more; 0 for none.
    """
    for kernel in _kernels(model):
        kernel.regularizer = keras.regularizers.L2(penalty) if penalty else None


def kernel_penalty(model: keras.Model, penalty: float) -> float:
    """Give what the penalty adds to the loss now."""
    squares = (
        float(np.square(keras.ops.convert_to_numpy(kernel)).sum(dtype=np.float64))
        for kernel in _kernels(model)
        if kernel.trainable
    )
    return penalty * sum(squares) if penalty else 0.0


def _kernels(model: keras.Model) -> list[keras.Variable]:
    return [weight for weight in model.weights if weight.name.endswith("kernel")]
