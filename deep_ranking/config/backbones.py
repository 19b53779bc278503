"""The backbones, without their top: models of `keras.applications`, and EfficientNet-Lite0.

A backbone is available if Keras can restore it from a plain .h5 file without custom code. With
Keras 3.15 that is all of `keras.applications`, except the families in `REFUSED`; ConvNeXt is
converted to stock layers by `model/convnext.py`.
"""

import re
from dataclasses import dataclass

from deep_ranking.files import InputError

# Scale and offset that pre-trained weights expect of R, G, B pixels in [0, 255]. "caffe" weights
# were trained on B, G, R: loading flips their first kernel, so that they read R, G, B here too.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
RANGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "caffe": ((1.0, 1.0, 1.0), (-123.68, -116.779, -103.939)),
    "torch": (
        tuple(1 / (255 * deviation) for deviation in _DEVIATION),
        tuple(-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)),
    ),
    "symmetric": ((1 / 127.5,) * 3, (-1.0,) * 3),
    "128": ((1 / 128,) * 3, (-1.0,) * 3),
    "127": ((1 / 128,) * 3, (-127 / 128,) * 3),
}


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A convolutional network without its top.

    Attributes:
        name: its name for `--backbone`.
        builder: name of the function that builds it, in `keras.applications` or in `model`.
        pixels: key of `RANGES`, the pixels that its ImageNet weights expect.
        block: regular expression that matches the start of a layer's name, up to its block's.
        min_size: smallest side in pixels of its input.
    """

    name: str
    builder: str
    pixels: str
    block: str
    min_size: int

    @property
    def is_dense(self) -> bool:
        """Whether its convolutions are dense: each output channel sums over all input channels."""
        return self.name.startswith(("vgg", "resnet", "densenet", "inception"))

    def block_of(self, layer: str) -> str | None:
        """Return the block of the layer with this name; None for a layer outside of blocks."""
        found = re.match(rf"(?:{self.block})(?!\d)", layer)
        return None if found is None else found[0]


# Builders of a family, pixels of its weights, start of the names of its blocks, smallest input.
_FAMILIES = (
    ("VGG16 VGG19", "caffe", r"block\d", 32),
    ("ResNet50 ResNet101 ResNet152", "caffe", r"conv\d", 32),
    ("ResNet50V2 ResNet101V2 ResNet152V2", "symmetric", r"conv\d", 32),
    ("DenseNet121 DenseNet169 DenseNet201", "torch", r"conv\d", 32),
    ("MobileNet", "symmetric", r"conv_pw_\d+", 32),
    ("MobileNetV2", "symmetric", r"block_\d+", 32),
    ("NASNetMobile NASNetLarge", "symmetric", r"(?:normal|reduction)_concat_\w+", 32),
    ("Xception", "symmetric", r"block\d+", 71),
    ("InceptionV3", "symmetric", r"mixed\d+", 75),
    (" ".join(f"EfficientNetB{number}" for number in range(8)), "torch", r"block\d", 32),
    (" ".join(f"EfficientNetV2B{number}" for number in range(4)), "torch", r"block\d", 32),
    ("EfficientNetV2S EfficientNetV2M EfficientNetV2L", "128", r"block\d", 32),
    (
        " ".join(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
        "torch",
        r"stage_\d",
        32,
    ),
)
_BACKBONES = [
    Backbone(name=builder.lower(), builder=builder, pixels=pixels, block=block, min_size=min_size)
    for builders, pixels, block, min_size in _FAMILIES
    for builder in builders.split()
]
EFFICIENTNET_LITE0 = Backbone(
    name="efficientnet-lite0",
    builder="EfficientNetLite0",
    pixels="127",
    block=r"block\d",
    min_size=32,
)
BACKBONES = {backbone.name: backbone for backbone in (*_BACKBONES, EFFICIENTNET_LITE0)}
_OWN_LAYER = "restoring it from an .h5 file needs a custom layer ({})"
REFUSED = {
    "inceptionresnetv2": _OWN_LAYER.format("CustomScaleLayer"),
    "mobilenetv3": "an .h5 file of it cannot be read back (its hard swish is not a layer)",
}


def find_backbone(name: str) -> Backbone:
    """Return the backbone with this name, in upper or lower case, with hyphens or without.

    Raises:
        InputError: no backbone has this name, or plain Keras could not open a saved file of it.
    """
    for backbone in BACKBONES.values():
        if name.lower().replace("-", "") == backbone.name.replace("-", ""):
            return backbone
    for family, reason in REFUSED.items():
        if name.lower().startswith(family):
            raise InputError(f"backbone {name} is not offered: {reason}; choose another")
    raise InputError(f"backbone must be one of {', '.join(BACKBONES)}. Received: {name}")
