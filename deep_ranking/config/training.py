"""All settings of a training run."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from deep_ranking.config.base import setting
from deep_ranking.config.data import DrawnTripletsConfig
from deep_ranking.config.loss import LossConfig
from deep_ranking.config.network import NetworkConfig
from deep_ranking.config.schedule import ScheduleConfig
from deep_ranking.config.validation import ValidationConfig
from deep_ranking.files import InputError
from deep_ranking.images.augmentation import Augmentation

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ValidationConfig, ScheduleConfig, LossConfig, DrawnTripletsConfig):
    """All settings of a training run: the blog's by default.

    Raises:
        InputError: a value is out of its range, or settings do not go together.
    """

    output: Path = setting(
        Path("deepranking.h5"),
        "model file to write; the run's folder, NAME.run, is beside it",
        metavar="FILE.h5",
    )
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    seed: int = setting(0, "decides first weights, order, augmentation and dropout")
    precision: str = setting(
        "float32",
        "arithmetic of the network in training, and of frozen layers whose features are cached; "
        "weights and the model file stay float32. mixed_bfloat16: nearly twice as fast on "
        "processors that have it, and slower on others; mixed_float16: for graphics processors; "
        "auto: the one known to be fast on this machine",
        choices=PRECISIONS,
    )
    xla: bool | None = setting(
        None,
        "compile the training step by XLA (default: Keras decides: on a single graphics processor "
        "only)",
    )
    devices: str | None = setting(
        None,
        "split each batch between graphics processors of this machine: all, or numbers such as "
        "0,1; on a machine without any, between logical processors (default: one device)",
        metavar="all|0,1",
    )
    tensorboard: bool = setting(
        False,
        "write curves, pictures of batches and embeddings for TensorBoard to NAME.run/tensorboard",
    )
    auto_fix: bool = setting(
        False,
        "when training goes wrong, lower the learning rate or change the mining, and continue",
    )

    def __post_init__(self) -> None:
        """Check all that needs no file."""
        super().__post_init__()
        self._check_counts("seed", low=0)
        if self.output.suffix != ".h5":
            raise InputError(f"output must end in .h5. Received: {self.output}")
        if self.batches == "triplets":
            self._check_batches_of_triplets()
        if self.xla and self.devices is not None:
            raise InputError("give xla or devices, not both: XLA compiles for one device")
        if self.start_epoch >= self.epochs:
            raise InputError(
                f"start_epoch must be below epochs ({self.epochs}), the total. "
                f"Received: {self.start_epoch}"
            )
        if self.cache_features and self.train_from is None:
            raise InputError("cache_features needs frozen layers: give --train_from")

    def _check_batches_of_triplets(self) -> None:
        """Refuse settings that only batches of classes use."""
        classes = "batches of classes: --batches classes"
        needed = dict.fromkeys(("loss", "mining", "memory", "embedding_start"), classes)
        if not self.draws_triplets:
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
        """Return the settings as indented JSON, paths as text."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"
