"""The backbones there are: models of `keras.applications`, without their top.

A backbone may be used if a plain .h5 file brings it back without code of its own. Tried with Keras
3.15: all of `keras.applications` but those that are refused here.
"""

import re
from dataclasses import dataclass

from deep_ranking.files import InputError

# What the pre-trained weights expect of a pixel in [0, 255], R, G, B: scale and offset. All of
# them read R, G, B here; "caffe" turns the first kernel of weights that were trained on B, G, R.
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
}


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model of `keras.applications`.

    Attributes:
        builder: its function there.
        pixels: which of `RANGES` its ImageNet weights expect.
        block: regular expression of how the names of a block's layers begin.
        min_size: smallest side in pixels of what it can see.
    """

    builder: str
    pixels: str
    block: str
    min_size: int = 32

    @property
    def name(self) -> str:
        """What `--backbone` calls it."""
        return self.builder.lower()

    def block_of(self, layer: str) -> str | None:
        """Block that a layer of this name belongs to; None for what lies outside of blocks."""
        found = re.match(rf"(?:{self.block})(?!\d)", layer)
        return None if found is None else found[0]


_FAMILIES = (
    ("VGG16 VGG19", {"pixels": "caffe", "block": r"block\d"}),
    ("ResNet50 ResNet101 ResNet152", {"pixels": "caffe", "block": r"conv\d"}),
    ("ResNet50V2 ResNet101V2 ResNet152V2", {"pixels": "symmetric", "block": r"conv\d"}),
    ("DenseNet121 DenseNet169 DenseNet201", {"pixels": "torch", "block": r"conv\d"}),
    ("MobileNet", {"pixels": "symmetric", "block": r"conv_pw_\d+"}),
    ("MobileNetV2", {"pixels": "symmetric", "block": r"block_\d+"}),
    (
        "NASNetMobile NASNetLarge",
        {"pixels": "symmetric", "block": r"(?:normal|reduction)_concat_\w+"},
    ),
    ("Xception", {"pixels": "symmetric", "block": r"block\d+", "min_size": 71}),
    ("InceptionV3", {"pixels": "symmetric", "block": r"mixed\d+", "min_size": 75}),
    (
        " ".join(f"EfficientNetB{number}" for number in range(8)),
        {"pixels": "torch", "block": r"block\d"},
    ),
    (
        " ".join(f"EfficientNetV2B{number}" for number in range(4)),
        {"pixels": "torch", "block": r"block\d"},
    ),
    ("EfficientNetV2S EfficientNetV2M EfficientNetV2L", {"pixels": "128", "block": r"block\d"}),
)
BACKBONES = {
    each.name: each
    for builders, settings in _FAMILIES
    for each in (Backbone(builder=builder, **settings) for builder in builders.split())
}
_OWN_LAYER = "an .h5 file brings it back only with a layer of its own ({})"
REFUSED = {
    "convnext": _OWN_LAYER.format("LayerScale"),
    "inceptionresnetv2": _OWN_LAYER.format("CustomScaleLayer"),
    "mobilenetv3": "an .h5 file of it cannot be read back (its hard swish is no layer)",
}


def find_backbone(name: str) -> Backbone:
    """Give the backbone of a name, in capitals or not.

    Raises:
        InputError: there is none, or it cannot be saved in a file that plain Keras opens.
    """
    backbone = BACKBONES.get(name.lower())
    if backbone is not None:
        return backbone
    for family, reason in REFUSED.items():
        if name.lower().startswith(family):
            raise InputError(f"backbone {name} is not offered: {reason}; choose another")
    raise InputError(f"backbone must be one of {', '.join(BACKBONES)}. Received: {name}")
