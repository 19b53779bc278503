"""ConvNeXt (Liu et al. 2022) of stock layers: the networks of `keras.applications`, converted.

Those end each block with a `LayerScale`, which multiplies each channel by a weight gamma. It is a
layer of their own, so that plain Keras cannot open a file with it. But gamma (W x + b) is
(gamma W) x + gamma b: the dense layer before it takes gamma into its kernel and bias. And the
convolutions in as many groups as channels become depthwise ones, which TensorFlow computes about 50
times as fast on a CPU.
"""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

SCALE = "_layer_scale"
SCALED = "_pointwise_conv_2"
DEPTHWISE = "_depthwise_conv"
Arrays = list[npt.NDArray[np.float32]]


def build_convnext(builder: str, input_tensor: Any) -> keras.Model:
    """Build a ConvNeXt without top and without its own normalisation of pixels.

    Its random weights are those of `keras.applications`, except for the last dense layer of each
    block: its kernel starts at zero. So each block starts as the identity, which it also is, up to
    a factor of 1e-6, at the original's first gamma; but its gradients are not a millionth here.

    Args:
        builder: name of a function in `keras.applications`, such as ConvNeXtTiny.
        input_tensor: float (batch, size, size, 3), normalised.

    Returns:
        Model of stock layers that lie flat in it, named as the original's without its own name in
        front, to the last feature map: float (batch, size / 32, size / 32, channels).
    """
    with keras.StatelessScope(initialize_variables=False):  # only its layers' settings are needed
        original = getattr(keras.applications, builder)(
            include_top=False,
            include_preprocessing=False,
            weights=None,
            input_shape=tuple(input_tensor.shape[1:]),
        )
    x = before_block = input_tensor
    for layer in _flat(original):
        name = _name(original, layer)
        if name.endswith(SCALE):
            continue
        if name.endswith("_identity"):  # the end of a block
            x = layers.Add(name=name.replace("_identity", "_add"))([before_block, x])
            continue
        if name.endswith(DEPTHWISE):
            before_block = x
            x = layers.DepthwiseConv2D(layer.kernel_size, padding="same", name=name)(x)
            continue
        config = layer.get_config() | {"name": name}
        if name.endswith(SCALED):
            config["kernel_initializer"] = "zeros"
        x = type(layer).from_config(config)(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x, name=original.name)


def plain_arrays(original: keras.Model, arrays: Mapping[str, Arrays]) -> dict[str, Arrays]:
    """Convert the arrays of an original ConvNeXt to those of `build_convnext`.

    Args:
        original: network of `keras.applications`, without top.
        arrays: for each of its layers with weights, by name, the arrays.

    Returns:
        The arrays of each layer by its name in the converted network.
    """
    converted: dict[str, Arrays] = {}
    for layer in original.layers:
        left = list(arrays.get(layer.name, ()))
        for inner in layer.layers if isinstance(layer, keras.Sequential) else [layer]:
            count = len(inner.weights)
            if count:
                converted[_name(original, inner)], left = left[:count], left[count:]
    for name in [each for each in converted if each.endswith(SCALE)]:
        (gamma,) = converted.pop(name)
        scaled = name.removesuffix(SCALE) + SCALED
        converted[scaled] = [gamma * each for each in converted[scaled]]
    for name in [each for each in converted if each.endswith(DEPTHWISE)]:
        kernel, bias = converted[name]
        converted[name] = [kernel.swapaxes(2, 3), bias]  # (rows, columns, channels, 1)
    return converted


def _name(original: keras.Model, layer: keras.layers.Layer) -> str:
    """Return the converted layer's name; Keras only numbers the last layer."""
    if layer is original.layers[-1]:
        return "layernorm"
    return str(layer.name.removeprefix(f"{original.name}_"))


def _flat(model: keras.Model) -> list[Any]:
    """Return the layers in the order of the data, those of nested models in their place."""
    return [
        inner
        for layer in model.layers[1:]  # the first is the image
        for inner in (layer.layers if isinstance(layer, keras.Sequential) else [layer])
    ]
