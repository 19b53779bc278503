"""Settings of the network, which travel with a model file."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Self

from deep_ranking.config.backbones import BACKBONES, find_backbone
from deep_ranking.config.checks import Config
from deep_ranking.files import InputError

NORMALISATIONS = ("unit", "backbone")
POOLINGS = ("average", "max", "gem", "average+max")

MULTISCALES = ("blog", "paper", "none")
HEAD = "head"


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Config):
    """What `build_network` builds: the blog's network by default.

    Raises:
        InputError: a value is out of its range.
    """

    image_size: int = field(
        default=224, metadata={"help": "side of the network's input in pixels, 32 to 1024"}
    )
    backbone: str = field(
        default="vgg16",
        metadata={
            "help": "convolutional network to start from, one of keras.applications: "
            f"{', '.join(BACKBONES)}",
        },
    )
    weights: str | None = field(
        default="imagenet",
        metadata={
            "help": "where the backbone starts from: imagenet, none (random, as the blog), or the "
            "PATH of a weight file of the backbone without top (.h5), or of a model of train.py, "
            "of which all layers that fit are taken",
            "metavar": "imagenet|none|PATH",
        },
    )
    normalisation: str | None = field(
        default=None,
        metadata={
            "help": "unit: pixels / 255 everywhere; backbone: as the backbone was pre-trained "
            "(default: unit for a random start, otherwise backbone)",
            "choices": NORMALISATIONS,
        },
    )
    backbone_size: int | None = field(
        default=None,
        metadata={
            "help": "side in pixels to which the image is enlarged for the backbone, which learned "
            "objects at 224 pixels and sees little in small images; time goes with the square of "
            "it (default: --image_size)"
        },
    )
    pooling: str = field(
        default="average",
        metadata={
            "help": "how a block's feature map becomes a vector; gem is the generalised mean of "
            "power 2; average+max gives both, one after the other",
            "choices": POOLINGS,
        },
    )
    pooled_blocks: int = field(
        default=1,
        metadata={"help": "how many of the backbone's last blocks are pooled, each by itself"},
    )
    hidden_layers: int = field(
        default=2, metadata={"help": "dense layers behind the backbone, 0 to 4"}
    )
    hidden_size: int = field(default=4096, metadata={"help": "units of each of them"})
    dropout: float = field(
        default=0.6,
        metadata={
            "help": "share of the units dropped behind each of them; without any, of the pooled "
            "features"
        },
    )
    multiscale: str = field(
        default="blog",
        metadata={
            "help": "the two shallow branches, which see the image at coarse scales: blog, by "
            "strides of 16 and 32 pixels; paper, shrunk to a quarter and an eighth, and normalised "
            "as one; none",
            "choices": MULTISCALES,
        },
    )
    embedding_size: int = field(default=4096, metadata={"help": "length of an embedding"})

    def __post_init__(self) -> None:
        """Check the ranges, and fill in what goes with other settings."""
        super().__post_init__()
        spec = find_backbone(self.backbone)
        object.__setattr__(self, "backbone", spec.name)
        if self.normalisation is None:
            implied = "unit" if self.weights is None else "backbone"
            object.__setattr__(self, "normalisation", implied)
        self._check_range("image_size", 32, 1024)
        if self.backbone_size is not None:
            self._check_range("backbone_size", self.image_size, 1024)
        if self.seen_size < spec.min_size:
            raise InputError(
                f"backbone {spec.name} sees images of {spec.min_size} pixels or more; give such an "
                f"--image_size or --backbone_size. Received: {self.seen_size}"
            )
        self._check_counts("pooled_blocks")
        self._check_range("hidden_layers", 0, 4)
        self._check_range("hidden_size", 1, 8192)
        self._check_range("embedding_size", 1, 8192)
        self._check_range("dropout", 0, 0.99)
        self._check_choice("normalisation", NORMALISATIONS)
        self._check_choice("pooling", POOLINGS)
        self._check_choice("multiscale", MULTISCALES)

    @property
    def seen_size(self) -> int:
        """Side in pixels of what the backbone sees."""
        return self.backbone_size or self.image_size

    def to_json(self) -> str:
        """Give the network as JSON, without the weights that it once started from."""
        fields = dataclasses.asdict(self)
        del fields["weights"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote, trusting nothing in it.

        Args:
            text: JSON, from a file that may be anybody's. Fields that an earlier version did not
                have may be missing: the default is what it built.

        Returns:
            The config, with `weights=None`.

        Raises:
            InputError: it is no JSON object of this class's fields, each of its type and range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError("the network's description is not JSON") from None
        if isinstance(values, dict) and "shallow_branches" in values:  # before there was a choice
            values["multiscale"] = "blog" if values.pop("shallow_branches") else "none"
        types = {each.name: type(each.default) for each in dataclasses.fields(cls)}
        types |= {"normalisation": str, "backbone_size": int}
        del types["weights"]
        if not isinstance(values, dict) or not FIRST_FIELDS <= values.keys() <= types.keys():
            raise InputError(f"the network's description must have the fields {', '.join(types)}")
        for name, value in values.items():
            if value is None and name == "backbone_size":
                continue
            if types[name] is float and type(value) is int:
                values[name] = float(value)
            if type(values[name]) is not types[name]:
                raise InputError(
                    f"{name} must be of type {types[name].__name__} in the network's description. "
                    f"Received: {type(value).__name__}"
                )
        return cls(weights=None, **values)


# What the description in a model file of the first version holds.
FIRST_FIELDS = {
    "image_size",
    "normalisation",
    "hidden_size",
    "dropout",
    "embedding_size",
}
