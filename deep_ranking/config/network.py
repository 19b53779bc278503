"""Settings of the network, which every model file carries."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

from deep_ranking.config.backbones import BACKBONES, find_backbone
from deep_ranking.config.base import Config, setting
from deep_ranking.files import InputError

NORMALISATIONS = ("unit", "backbone")
POOLINGS = ("average", "max", "gem", "average+max")
WORD_KINDS = ("colour", "texture")  # branches that count words of training images
MULTISCALES = ("blog", "paper", *WORD_KINDS, "none")
HEAD = "head"
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 1024


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Config):
    """The network that `build_network` builds: the blog's by default.

    Example:
        >>> NetworkConfig(image_size=96, weights=None).normalisation
        'unit'

    Raises:
        InputError: a value is out of its range.
    """

    image_size: int = setting(
        224,
        f"side of the network's input in pixels, {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}",
        metavar="PIXELS",
    )
    backbone: str = setting(
        "vgg16",
        f"convolutional network to start from: {', '.join(BACKBONES)}",
    )
    weights: str | None = setting(
        "imagenet",
        "first weights of the backbone: imagenet, none (random, as in the blog), or the PATH of a "
        "weight file of the backbone without top (.h5), or of a model of train.py, from which all "
        "layers that fit are taken",
        metavar="imagenet|none|PATH",
    )
    normalisation: str | None = setting(
        None,
        "unit: pixels / 255 everywhere; backbone: as in the backbone's pre-training (default: unit "
        "for a random start, otherwise backbone)",
        choices=NORMALISATIONS,
    )
    backbone_size: int | None = setting(
        None,
        "enlarge the image to this side in pixels for the backbone, which learned objects at 224 "
        "pixels and sees little in small images; time grows with its square (default: "
        "--image_size)",
        metavar="PIXELS",
    )
    pooling: str = setting(
        "average",
        "how a block's feature map becomes a vector; gem: the generalised mean of power 2; "
        "average+max: both, one after the other",
        choices=POOLINGS,
    )
    pooled_blocks: int = setting(1, "number of the backbone's last blocks to pool, each by itself")
    hidden_layers: int = setting(2, "number of dense layers after the backbone, 0 to 4")
    hidden_size: int = setting(4096, "units of each of the --hidden_layers")
    dropout: float = setting(
        0.6,
        "share of the units dropped after each hidden layer or, without hidden layers, of the "
        "pooled features",
        metavar="SHARE",
    )
    multiscale: str = setting(
        "blog",
        "the shallow branches, which see the image at coarse scales. blog: two, by strides of 16 "
        "and 32 pixels; paper: two, shrunk to a quarter and an eighth, and normalised together; "
        "colour: the shares of 128 colours learned from training images; texture: these, and the "
        "shares of 128 textures of 5 x 5 pixels, for drawings; none: no branches",
        choices=MULTISCALES,
    )
    embedding_size: int = setting(4096, "length of an embedding")
    layout: bool = setting(
        False,
        "one more shallow branch, without training: the mean colour and the directions of edges in "
        "each cell of a grid of 4 x 4",
    )

    def __post_init__(self) -> None:
        """Check the ranges, and fill in defaults that depend on other settings."""
        self._path_as_text("weights")
        if self.weights == "none":  # as `--weights none` and recipes have it
            object.__setattr__(self, "weights", None)
        super().__post_init__()
        spec = find_backbone(self.backbone)
        object.__setattr__(self, "backbone", spec.name)
        if self.normalisation is None:
            implied = "unit" if self.weights is None else "backbone"
            object.__setattr__(self, "normalisation", implied)
        self._check_range("image_size", MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)
        if self.backbone_size is not None:
            self._check_range("backbone_size", self.image_size, MAX_IMAGE_SIZE)
        if self.seen_size < spec.min_size:
            raise InputError(
                f"backbone {spec.name} sees images of {spec.min_size} pixels or more; raise "
                f"--image_size or --backbone_size. Received: {self.seen_size}"
            )
        self._check_counts("pooled_blocks")
        self._check_range("hidden_layers", 0, 4)
        self._check_range("hidden_size", 1, 8192)
        self._check_range("embedding_size", 1, 8192)
        self._check_range("dropout", 0, 0.99)

    @property
    def seen_size(self) -> int:
        """Side in pixels of the image that the backbone sees."""
        return self.backbone_size or self.image_size

    def to_json(self) -> str:
        """Return the settings as JSON, without `weights`, where the network once started from."""
        fields = dataclasses.asdict(self)
        del fields["weights"]
        if not self.layout:  # so that the fingerprints of earlier models stay what they are
            del fields["layout"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON that `to_json` wrote, without trusting it.

        Args:
            text: JSON from a file of unknown origin. Fields that an earlier version did not have
                may be missing; their defaults are what that version built.

        Returns:
            The config, with `weights=None`.

        Raises:
            InputError: the text is not a JSON object with this class's fields, or a value has the
                wrong type or is out of its range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError("the network's description is not JSON") from None
        if isinstance(values, dict) and "shallow_branches" in values:  # of earlier versions
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


# Fields in a model file of the first version, which every later version has too.
FIRST_FIELDS = {"image_size", "normalisation", "hidden_size", "dropout", "embedding_size"}
