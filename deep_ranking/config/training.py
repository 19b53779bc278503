"""All settings of a training run."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from deep_ranking.config.loss import LossConfig
from deep_ranking.config.network import NetworkConfig
from deep_ranking.config.schedule import ScheduleConfig
from deep_ranking.config.streaming import StreamConfig
from deep_ranking.config.validation import ValidationConfig
from deep_ranking.files import InputError
from deep_ranking.images.augmentation import Augmentation

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ValidationConfig, ScheduleConfig, LossConfig, StreamConfig):
    """A training run: the blog's by default.

    Raises:
        InputError: a value is out of its range, or settings do not go together.
    """

    output: Path = field(
        default=Path("deepranking.h5"),
        metadata={"help": "model file to write; the run's folder, NAME.run, lies beside it"},
    )
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    seed: int = field(
        default=0, metadata={"help": "decides first weights, order, augmentation and dropout"}
    )
    precision: str = field(
        default="float32",
        metadata={
            "help": "arithmetic of the network in training, and of frozen layers whose features "
            "are cached; weights and the model file stay float32. mixed_bfloat16 is nearly twice "
            "as fast on processors that have it, and slower on others; mixed_float16 is for "
            "graphics processors; auto: what is known to be fast on this machine",
            "choices": PRECISIONS,
        },
    )
    xla: bool | None = field(
        default=None,
        metadata={
            "help": "compile the training step by XLA (default: as Keras chooses, which is on one "
            "graphics processor only)"
        },
    )
    devices: str | None = field(
        default=None,
        metadata={
            "help": "share each batch between graphics processors of this machine: all, or numbers "
            "such as 0,1; without any, between logical processors (default: one device)",
            "metavar": "all|0,1",
        },
    )
    tensorboard: bool = field(
        default=False,
        metadata={
            "help": "write curves, pictures of batches and embeddings for TensorBoard to "
            "NAME.run/tensorboard"
        },
    )
    auto_fix: bool = field(
        default=False,
        metadata={
            "help": "when training goes wrong, lower the learning rate or change the mining, and "
            "go on"
        },
    )

    def __post_init__(self) -> None:
        """Check what needs no look at a file."""
        super().__post_init__()
        self._check_counts("seed", low=0)
        if self.output.suffix != ".h5":
            raise InputError(f"output must end in .h5. Received: {self.output}")
        if self.batches == "triplets":
            self._check_batches_of_triplets()
        self._check_choice("precision", PRECISIONS)
        if self.xla and self.devices is not None:
            raise InputError("give xla or devices, not both: XLA compiles for one device")
        if self.start_epoch >= self.epochs:
            raise InputError(
                f"start_epoch must be below epochs ({self.epochs}), which counts all. "
                f"Received: {self.start_epoch}"
            )
        if self.cache_features and self.train_from is None:
            raise InputError("cache_features needs frozen layers: say which train by --train_from")

    def _check_batches_of_triplets(self) -> None:
        classes = "batches of classes: --batches classes"
        needed = dict.fromkeys(("loss", "mining", "memory", "embedding_start"), classes)
        if not self.draws:
            folders = "folders of classes: --batches classes, or --strategy"
            needed |= dict.fromkeys(("validation_share", "max_images_per_class"), folders)
        for name, what in needed.items():
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise InputError(f"{name} {getattr(self, name)} needs {what}")

    @property
    def run_dir(self) -> Path:
        """Folder of the run: history, settings, picture, best model and checkpoint."""
        return self.output.with_suffix(".run")

    @property
    def feature_dir(self) -> Path:
        """Folder of cached features."""
        return self.cache_dir or self.output.parent / "deep_ranking_features"

    def to_json(self) -> str:
        """Give the settings as indented JSON, paths as text."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"
