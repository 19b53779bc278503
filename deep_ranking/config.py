"""Every choice that a user can make for a network and a training run, with its range.

The defaults are the blog's figures. Commands take their flags, help and defaults from the fields
here. Nothing in this module imports TensorFlow.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from deep_ranking.augmentation import Augmentation
from deep_ranking.errors import InputError

NORMALISATIONS = ("unit", "backbone")
DISTANCES = ("euclidean", "squared")
HINGES = ("triplet", "batch")
OPTIMIZERS = ("sgd", "adam")
MONITORS = ("loss", "similarity_precision", "recall_at_1", "map_at_r")

# The layers of VGG16 that have weights, in the order of the data, as Keras names them.
BACKBONE_LAYERS = tuple(
    f"block{block}_conv{number}"
    for block, count in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
    for number in range(1, count + 1)
)
HEAD = "head"


def _check_range(config: Any, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if not low <= value <= high:
        raise InputError(f"{name} must lie between {low} and {high}. Received: {value}")


def _check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}. Received: {value}")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What `build_network` builds: the blog's network by default.

    Raises:
        InputError: a value is out of its range.
    """

    image_size: int = field(
        default=224, metadata={"help": "side of the network's input in pixels, 32 to 1024"}
    )
    weights: str | None = field(
        default="imagenet",
        metadata={
            "help": "where the backbone starts from: imagenet, none (random, as the blog), or the "
            "PATH of a VGG16 weight file without top (.h5)",
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
    hidden_size: int = field(
        default=4096, metadata={"help": "units of the two dense layers behind the backbone"}
    )
    dropout: float = field(
        default=0.6, metadata={"help": "share of the units dropped behind each of them"}
    )
    embedding_size: int = field(default=4096, metadata={"help": "length of an embedding"})

    def __post_init__(self) -> None:
        """Check the ranges, and fill in the normalisation that goes with the weights."""
        if self.normalisation is None:
            implied = "unit" if self.weights is None else "backbone"
            object.__setattr__(self, "normalisation", implied)
        _check_range(self, "image_size", 32, 1024)
        _check_range(self, "hidden_size", 1, 8192)
        _check_range(self, "embedding_size", 1, 8192)
        _check_range(self, "dropout", 0, 0.99)
        _check_choice(self, "normalisation", NORMALISATIONS)

    def to_json(self) -> str:
        """Give the network as JSON, without the weights that it once started from."""
        fields = dataclasses.asdict(self)
        del fields["weights"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote, trusting nothing in it.

        Args:
            text: JSON, from a file that may be anybody's.

        Returns:
            The config, with `weights=None`.

        Raises:
            InputError: it is no JSON object of this class's fields, each of its type and range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError("the network's description is not JSON") from None
        types = {each.name: type(each.default) for each in dataclasses.fields(cls)}
        types["normalisation"] = str
        del types["weights"]
        if not isinstance(values, dict) or values.keys() != types.keys():
            raise InputError(f"the network's description must have the fields {', '.join(types)}")
        for name, expected in types.items():
            if expected is float and type(values[name]) is int:
                values[name] = float(values[name])
            if type(values[name]) is not expected:
                raise InputError(
                    f"{name} must be of type {expected.__name__} in the network's description. "
                    f"Received: {type(values[name]).__name__}"
                )
        return cls(weights=None, **values)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: the blog's by default.

    Raises:
        InputError: a value is out of its range.
    """

    triplets: Path = field(
        default=Path("triplets.txt"), metadata={"help": "triplet file to train on"}
    )
    dataset: Path | None = field(
        default=None,
        metadata={
            "help": "folder that the paths in the triplet files start from (default: tried in "
            "turn, the triplet file's folder and the working folder)"
        },
    )
    validation_triplets: Path | None = field(
        default=None,
        metadata={"help": "triplet file to judge on, before training and while it goes on"},
    )
    validation_dataset: Path | None = field(
        default=None,
        metadata={
            "help": "folder of classes to judge on instead, by recall@1, mAP@R and similarity "
            "precision; training must not see them"
        },
    )
    validate_every: int = field(
        default=1, metadata={"help": "epochs from one judgement to the next"}
    )
    monitor: str | None = field(
        default=None,
        metadata={
            "help": "what the best model and --patience go by (default: similarity precision on "
            "validation data or, without any, the training loss)",
            "choices": MONITORS,
        },
    )
    patience: int | None = field(
        default=None,
        metadata={
            "help": "stop when so many judgements in turn were no better than the best "
            "(default: never)"
        },
    )
    tensorboard: bool = field(
        default=False, metadata={"help": "write curves for TensorBoard to NAME.run/tensorboard"}
    )
    output: Path = field(
        default=Path("deepranking.h5"),
        metadata={"help": "model file to write; the run's folder, NAME.run, lies beside it"},
    )
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    batch_size: int = field(
        default=24, metadata={"help": "images a batch, 3 times the number of triplets"}
    )
    epochs: int = field(default=25, metadata={"help": "epochs in all, also when resuming"})
    steps_per_epoch: int | None = field(
        default=None,
        metadata={
            "help": "batches an epoch, and so between checkpoints (default: one pass over the "
            "triplets)"
        },
    )
    optimizer: str = field(
        default="sgd",
        metadata={"help": "sgd has Nesterov momentum 0.9", "choices": OPTIMIZERS},
    )
    learning_rate: float = field(default=0.001, metadata={"help": "step size of the optimizer"})
    gap: float = field(
        default=1.0,
        metadata={"help": "lead required of the negative, in units of the distance"},
    )
    hinge: str = field(
        default="triplet",
        metadata={
            "help": "triplet: the formula, a hinge for each triplet; batch: the blog's code, one "
            "hinge for the mean of the batch",
            "choices": HINGES,
        },
    )
    distance: str = field(
        default="euclidean",
        metadata={"help": "distance in the loss; squared is the paper's", "choices": DISTANCES},
    )
    clip: bool = field(
        default=False, metadata={"help": "clip embeddings to [eps, 1 - eps], as the blog's code"}
    )
    train_from: str | None = field(
        default=None,
        metadata={
            "help": "train this layer of the backbone and what follows it, such as block4_conv1; "
            "head: all but the backbone (default: everything)",
            "metavar": "LAYER",
        },
    )
    shuffle: bool = field(default=True, metadata={"help": "permute all triplets in each epoch"})
    skip_broken: bool = field(
        default=False, metadata={"help": "leave out triplets with a missing or broken image"}
    )
    save_augmented: Path | None = field(
        default=None,
        metadata={
            "help": "folder for the first 100 triplets of an epoch as PNG, as the network sees them"
        },
    )
    seed: int = field(
        default=0, metadata={"help": "decides first weights, order, augmentation and dropout"}
    )

    def __post_init__(self) -> None:
        """Check what needs no look at a file."""
        for name in ("epochs", "steps_per_epoch", "validate_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be 1 or more. Received: {value}")
        if self.batch_size < 3 or self.batch_size % 3:
            raise InputError(
                "batch_size must be a multiple of 3, as rows are query, positive and negative in "
                f"turn. Received: {self.batch_size}"
            )
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more. Received: {self.seed}")
        for name in ("learning_rate", "gap"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InputError(f"{name} must be above 0. Received: {value}")
        if self.output.suffix != ".h5":
            raise InputError(f"output must end in .h5. Received: {self.output}")
        if self.train_from is not None:
            _check_choice(self, "train_from", (*BACKBONE_LAYERS, HEAD))
        self._check_validation()
        _check_choice(self, "optimizer", OPTIMIZERS)
        _check_choice(self, "hinge", HINGES)
        _check_choice(self, "distance", DISTANCES)

    def _check_validation(self) -> None:
        if self.validation_triplets is not None and self.validation_dataset is not None:
            raise InputError("give validation_triplets or validation_dataset, not both")
        if self.monitor is None:
            return
        _check_choice(self, "monitor", MONITORS)
        measured = {"loss"}
        if self.validation_triplets is not None:
            measured = {"loss", "similarity_precision"}
        if self.validation_dataset is not None:
            measured = {"similarity_precision", "recall_at_1", "map_at_r"}
        if self.monitor not in measured:
            raise InputError(
                f"monitor {self.monitor} is not measured; with the validation data given, choose "
                f"one of: {', '.join(sorted(measured))}"
            )

    @property
    def run_dir(self) -> Path:
        """Folder of the run: history, settings, picture, best model and checkpoint."""
        return self.output.with_suffix(".run")

    def to_json(self) -> str:
        """Give the settings as indented JSON, paths as text."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"
