"""Batch norms folded into the layers before them: the same outputs at inference in less time.

Behind a convolution without activation, a batch norm only scales and shifts each channel, which the
convolution's own kernel and bias can do. TensorFlow on a CPU otherwise passes over each feature map
again. Networks are trained and saved unfolded; only copies that embed images are folded.
"""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

import hashlib
import weakref
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

# Layers that can take in a factor and an offset of each output channel, and the axes of their
# kernel that number the channels.
FOLDABLE: dict[type[layers.Layer], tuple[int, ...]] = {
    layers.Conv2D: (3,),
    layers.DepthwiseConv2D: (2, 3),
    layers.Dense: (1,),
}
Arrays = list[npt.NDArray[np.float32]]

_kept: "weakref.WeakKeyDictionary[keras.Model, tuple[bytes, keras.Model]]" = (
    weakref.WeakKeyDictionary()
)


def inference_model(model: keras.Model) -> keras.Model:
    """Return `fold_batch_norms(model)`, the copy of the last call if no weight changed since.

    Args:
        model: any Keras model.
    """
    if not _folded_layers(model):
        return model
    state = _state(model)
    if model not in _kept or _kept[model][0] != state:
        _kept[model] = (state, fold_batch_norms(model))
    return _kept[model][1]


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """Fold each batch norm into the convolution or dense layer whose output only it reads.

    Args:
        model: any Keras model.

    Returns:
        A copy for inference with the same layer names and, up to rounding, the same outputs. An
        `Identity` stands in the place of each folded batch norm; others stay. The model itself if
        it has none to fold, or is not a functional model.

    Example:
        >>> image = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
        >>> model = keras.Model(image, keras.layers.BatchNormalization(name="bn")(x))
        >>> [type(layer).__name__ for layer in fold_batch_norms(model).layers]
        ['InputLayer', 'Conv2D', 'Identity']
    """
    pairs = _folded_layers(model)
    if not pairs:
        return model
    folded = {layer.name for layer in pairs.values()}

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in pairs:
            return layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
        biased = {"use_bias": True} if layer.name in folded else {}
        return type(layer).from_config(layer.get_config() | biased)

    def called(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name in pairs:
            kwargs = {}  # Identity takes no mask
        return layer(*args, **kwargs)

    bare = keras.Model(model.input, model.output, name=model.name)  # without loss and optimizer
    copy = keras.models.clone_model(bare, clone_function=copied, call_function=called)
    copy.jit_compile = model.jit_compile
    for layer in model.layers:
        if layer.weights and layer.name not in folded | pairs.keys():
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    for name, layer in pairs.items():
        copy.get_layer(layer.name).set_weights(_folded_arrays(layer, model.get_layer(name)))
    return copy


def _folded_layers(model: keras.Model) -> dict[str, Any]:
    """Return name of a batch norm -> the layer to fold it into."""
    norms = [each for each in model.layers if type(each) is layers.BatchNormalization]
    if not norms or isinstance(model, keras.Sequential) or not getattr(model, "outputs", None):
        return {}
    read = [each._keras_history.operation.name for each in model.outputs]
    for layer in model.layers:
        read += [each._keras_history.operation.name for each in keras.tree.flatten(layer.input)]
    pairs = {}
    for norm in norms:
        before = norm.input._keras_history.operation
        if (
            type(before) in FOLDABLE
            and before.activation is keras.activations.linear
            and read.count(before.name) == 1
            and norm.axis in (-1, len(norm.input.shape) - 1)
        ):
            pairs[norm.name] = before
    return pairs


def _folded_arrays(layer: Any, norm: Any) -> Arrays:
    """Return kernel and bias of the layer with the batch norm in them."""
    arrays = {
        name: np.asarray(keras.ops.convert_to_numpy(value), np.float64)
        for name, value in (
            ("kernel", layer.kernel),
            ("bias", layer.bias if layer.use_bias else 0.0),
            ("gamma", norm.gamma if norm.scale else 1.0),
            ("beta", norm.beta if norm.center else 0.0),
            ("mean", norm.moving_mean),
            ("variance", norm.moving_variance),
        )
    }
    scale = arrays["gamma"] / np.sqrt(arrays["variance"] + norm.epsilon)
    kernel, axes = arrays["kernel"], FOLDABLE[type(layer)]
    shape = [side if axis in axes else 1 for axis, side in enumerate(kernel.shape)]
    bias = arrays["beta"] + (arrays["bias"] - arrays["mean"]) * scale
    return [(kernel * scale.reshape(shape)).astype(np.float32), bias.astype(np.float32)]


def _state(model: keras.Model) -> bytes:
    """Return a digest of what a copy takes over: weights, and the precision of each layer."""
    digest = hashlib.sha256()
    for layer in model.layers:
        digest.update(f"{layer.name} {layer.dtype_policy.name}\n".encode())
        for weight in layer.weights:
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    return digest.digest()
