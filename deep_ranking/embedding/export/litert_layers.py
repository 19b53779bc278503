"""Layers that LiteRT computes correctly, even in earlier versions, in place of Keras' own."""

import keras
from keras import ops

# Its square root is far below the length of any embedding; its reciprocal is a finite float32.
ABOVE_ZERO = 1e-30


class ZeroSafeUnitNormalization(keras.layers.UnitNormalization):
    """`UnitNormalization` without 1 / sqrt(0): infinite in Keras, but NaN in LiteRT."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Divide by the length, or by 1e-12 where the length is below that."""
        squares = ops.sum(ops.square(inputs), axis=self.axis, keepdims=True)
        return inputs * ops.minimum(ops.rsqrt(squares + ABOVE_ZERO), 1e12)


class PaddedConv2D(keras.layers.Conv2D):
    """`Conv2D` with padding "same" in two steps: first the padding, then the convolution.

    In one step, with a stride above the kernel's size as in the shallow branches, LiteRT before 2.2
    and the interpreter of TensorFlow 2.21 return 0 everywhere.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Pad by what the kernel's last position lacks, half of it in front, and convolve."""
        sides = zip(inputs.shape[1:3], self.kernel_size, self.strides, strict=True)
        missing = [max((side - 1) // stride * stride + k - side, 0) for side, k, stride in sides]
        if any(missing):
            pads = [(each // 2, each - each // 2) for each in missing]
            inputs = ops.pad(inputs, [(0, 0), *pads, (0, 0)])
        strides = list(self.strides)
        outputs = ops.conv(inputs, self.kernel, strides=strides, padding="valid")
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs)


def with_litert_layers(model: keras.Model) -> keras.Model:
    """Copy a model, with these layers in place of those that LiteRT computes wrongly.

    Args:
        model: functional model of images of a fixed size.

    Returns:
        Model with the same weights and, up to rounding, the same output.
    """

    def cloned(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if type(layer) is keras.layers.UnitNormalization:
            return ZeroSafeUnitNormalization.from_config(config)
        if type(layer) is keras.layers.Conv2D and _skips_pixels(layer):
            return PaddedConv2D.from_config(config)
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=cloned)
    copy.set_weights(model.get_weights())
    return copy


def _skips_pixels(layer: keras.layers.Conv2D) -> bool:
    return (
        layer.padding == "same"
        and layer.data_format == "channels_last"
        and layer.groups == 1
        and layer.dilation_rate == (1, 1)
        and any(stride > k for stride, k in zip(layer.strides, layer.kernel_size, strict=True))
    )
