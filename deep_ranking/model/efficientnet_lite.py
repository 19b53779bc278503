"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-excitation and with ReLU6), of stock layers.

`efficientnet_lite_weights` has its sizes and its ImageNet weights.
"""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from deep_ranking.model.efficientnet_lite_weights import (
    EPSILON,
    STAGES,
    STEM_CHANNELS,
    TOP_CHANNELS,
    read_imagenet_weights,
)


def EfficientNetLite0(
    *,
    include_top: bool = False,
    weights: str | None = None,
    input_tensor: Any = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
) -> keras.Model:
    """Build EfficientNet-Lite0 without its top, as the functions of `keras.applications` do.

    Args:
        include_top: False; there is no top.
        weights: "imagenet", or None for random ones.
        input_tensor: float (batch, height, width, 3), (pixels - 127) / 128; None for a new input.
        input_shape: shape of the new input.

    Returns:
        Model from its input to the last feature map, float (batch, rows, columns, 1280), in [0, 6],
        of a 32nd of the input's height and width.

    Example:
        >>> EfficientNetLite0(input_shape=(64, 64, 3)).output_shape
        (None, 2, 2, 1280)

    Raises:
        InputError: the package with the weights is missing or has another file.
    """
    assert not include_top
    image = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = _activated(_convolution(image, STEM_CHANNELS, 3, "stem", stride=2), "stem")
    for stage, (expansion, channels, repeats, stride, kernel) in enumerate(STAGES, start=1):
        for repeat in range(repeats):
            x = _block(
                x,
                f"block{stage}{chr(ord('a') + repeat)}",
                expansion=expansion,
                channels=channels,
                stride=1 if repeat else stride,
                kernel=kernel,
            )
    x = _activated(_convolution(x, TOP_CHANNELS, 1, "top"), "top")
    model = keras.Model(
        keras.utils.get_source_inputs(image) if input_tensor is not None else image,
        x,
        name="efficientnet_lite0",
    )
    if weights is not None:
        for name, arrays in _pretrained(model).items():
            model.get_layer(name).set_weights(arrays)
    return model


def _block(x: Any, name: str, *, expansion: int, channels: int, stride: int, kernel: int) -> Any:
    """Add an inverted residual (Sandler et al. 2018): expand, filter each channel, project."""
    before = x
    if expansion > 1:
        x = _convolution(x, expansion * x.shape[-1], 1, f"{name}_expand")
        x = _activated(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_dwconv"
    )(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_dw_bn")(x)
    x = _activated(x, f"{name}_dw")
    x = _convolution(x, channels, 1, f"{name}_project")
    if stride == 1 and before.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([x, before])
    return x


def _convolution(x: Any, channels: int, kernel: int, name: str, *, stride: int = 1) -> Any:
    x = layers.Conv2D(
        channels, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)


def _activated(x: Any, name: str) -> Any:
    return layers.ReLU(max_value=6, name=f"{name}_activation")(x)


def _pretrained(model: keras.Model) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Return the arrays of each layer that has any, by its name."""
    found = read_imagenet_weights()
    arrays = {}
    blocks = [each.name.removesuffix("_dwconv") for each in model.layers if _is_depthwise(each)]
    places = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    for number, block in enumerate(blocks):
        start = f"_blocks.{number}."
        places[f"{block}_expand"] = (f"{start}_expand_conv", f"{start}_bn0")
        places[f"{block}_dw"] = (f"{start}_depthwise_conv", f"{start}_bn1")
        places[f"{block}_project"] = (f"{start}_project_conv", f"{start}_bn2")
    for name, (convolution, normalisation) in places.items():
        if f"{convolution}.weight" not in found:  # the first block expands nothing
            continue
        kernel = found[f"{convolution}.weight"]
        is_depthwise = name.endswith("_dw")
        # (out, in, rows, columns), and for a depthwise convolution (channels, 1, rows, columns)
        axes = (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)
        arrays[f"{name}conv" if is_depthwise else f"{name}_conv"] = [kernel.transpose(axes)]
        arrays[f"{name}_bn"] = [
            found[f"{normalisation}.{kind}"]
            for kind in ("weight", "bias", "running_mean", "running_var")
        ]
    return arrays


def _is_depthwise(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, layers.DepthwiseConv2D)
