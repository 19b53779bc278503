"""A network whose vectors of length 0 stay 0 in LiteRT, too."""

import keras
from keras import ops

# Its square root is far below any length that counts, and its reciprocal still a float32.
ABOVE_ZERO = 1e-30


class ZeroSafeUnitNormalization(keras.layers.UnitNormalization):
    """`UnitNormalization` without 1 / sqrt(0), which Keras takes for infinite, LiteRT for NaN."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Divide by the length, or, where it is below 1e-12, by that."""
        squares = ops.sum(ops.square(inputs), axis=self.axis, keepdims=True)
        return inputs * ops.minimum(ops.rsqrt(squares + ABOVE_ZERO), 1e12)


def zero_safe(model: keras.Model) -> keras.Model:
    """Copy a model, with `ZeroSafeUnitNormalization` in the place of `UnitNormalization`.

    Args:
        model: functional model.

    Returns:
        Model of the same weights and, but for rounding, the same output.
    """

    def cloned(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer) is keras.layers.UnitNormalization:
            return ZeroSafeUnitNormalization.from_config(layer.get_config())
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=cloned)
    copy.set_weights(model.get_weights())
    return copy
