"""All settings of a training run."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from deep_ranking.config.base import setting
from deep_ranking.config.data import DataConfig, DrawnTripletsConfig
from deep_ranking.config.hosts import Cluster, find_cluster
from deep_ranking.config.loss import LossConfig
from deep_ranking.config.network import MAX_IMAGE_SIZE, WORD_KINDS, NetworkConfig
from deep_ranking.config.recipes import TAUGHT, find_recipe
from deep_ranking.config.sampling import HARD, SamplingConfig
from deep_ranking.config.schedule import ScheduleConfig
from deep_ranking.config.validation import ValidationConfig
from deep_ranking.files import InputError
from deep_ranking.images.augmentation import Augmentation

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")
MAX_SEED = 2**32 - 1  # NumPy's global seed, which Keras sets, takes no more


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ValidationConfig, ScheduleConfig, LossConfig, DrawnTripletsConfig):
    """All settings of a training run: the blog's by default.

    Example:
        >>> TrainConfig(output=Path("animals.h5"), epochs=3).run_dir.name
        'animals.run'

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
    hosts: str | None = setting(
        None,
        "train on several machines, each with all its graphics processors: the addresses of all, "
        "the same on each; run the same command on each (default: those of the variable TF_CONFIG)",
        metavar="HOST:PORT,...",
    )
    host_index: int | None = setting(
        None, "number of this machine in --hosts, from 0; machine 0 alone writes files"
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
        self._check_range("seed", 0, MAX_SEED)
        if self.output.suffix != ".h5":
            raise InputError(f"output must end in .h5. Received: {self.output}")
        if self.batches == "triplets":
            self._check_batches_of_triplets()
        if self.pairs is not None and self.validation_split is not None:
            raise InputError("give pairs or validation_split, not both: pairs name the images")
        if self.xla and self.devices is not None:
            raise InputError("give xla or devices, not both: XLA compiles for one device")
        if self.start_epoch >= self.epochs:
            raise InputError(
                f"start_epoch must be below epochs ({self.epochs}), the total. "
                f"Received: {self.start_epoch}"
            )
        if self.branch_start is not None and self.network.multiscale == "none":
            raise InputError("branch_start needs branches: choose them by --multiscale")
        if self.hosts is not None or self.host_index is not None:
            self._check_on(find_cluster(self.hosts, self.host_index))
        if self.cache_features and self.train_from is None:
            raise InputError("cache_features needs frozen layers: give --train_from")

    def _check_batches_of_triplets(self) -> None:
        """Refuse settings that only batches of classes use."""
        classes = "batches of classes: --batches classes"
        needed = dict.fromkeys(("loss", "mining", "memory", "embedding_start"), classes)
        if not self.draws_triplets:
            folders = "folders of classes: --batches classes, or --strategy"
            needed |= dict.fromkeys(
                ("validation_share", "validation_split", "max_images_per_class"), folders
            )
        for name, what in needed.items():
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise InputError(f"{name} {getattr(self, name)} needs {what}")

    @property
    def cluster(self) -> Cluster | None:
        """The hosts that train together, by `hosts` or by `TF_CONFIG`; None for one alone.

        Raises:
            InputError: they cannot be used, or a setting does not work on several hosts.
        """
        return self._check_on(find_cluster(self.hosts, self.host_index))

    def _check_on(self, cluster: Cluster | None) -> Cluster | None:
        """Refuse settings that do not work on several hosts."""
        reasons = {
            "devices": "a host trains on all its graphics processors: choose them by the variable "
            "CUDA_VISIBLE_DEVICES",
            "xla": "XLA compiles for one device",
            "cache_features": "a head on cached features trains in minutes on one host",
            "save_augmented": "each host reads a part of the images",
        }
        for name, reason in reasons.items():
            if cluster is not None and getattr(self, name):
                raise InputError(f"{name} does not go with several hosts: {reason}")
        if cluster is not None and self.sampling.strategy == HARD:
            raise InputError(
                "strategy hard does not go with several hosts: one host would search while the "
                "others wait; use --batches classes with --mining"
            )
        return cluster

    @property
    def words_of_images(self) -> bool:
        """Whether the shallow branches start from words of the training images."""
        if self.branch_start is None:
            return self.network.multiscale in WORD_KINDS
        return self.branch_start == "kmeans"

    @property
    def run_dir(self) -> Path:
        """Folder of the run: history, settings, picture, best model and checkpoint."""
        return self.output.with_suffix(".run")

    @property
    def feature_dir(self) -> Path:
        """Folder of cached features."""
        return self.cache_dir or self.output.parent / "deep_ranking_features"

    @classmethod
    def from_recipe(cls, recipe: str, /, **settings: Any) -> Self:
        """Return the settings of a recipe, as `train.py --recipe` trains with them.

        Args:
            recipe: name of one of `RECIPES`.
            **settings: settings that override the recipe's, by the names of their flags: those of
                network, augmentation and sampling beside the others. A whole `network`,
                `augmentation` or `sampling` replaces all that the recipe says of it.

        Raises:
            InputError: there is no such recipe or setting, a value is out of its range, or settings
                do not go together; or the recipe chooses sizes by the images of `dataset`, and that
                cannot be used.

        Example:
        >>> config = TrainConfig.from_recipe("retrieval", output="m.h5", rotation=5)
        >>> config.gap, config.network.backbone, config.augmentation.rotation
        (0.5, 'resnet50', 5.0)
        """
        if recipe == TAUGHT.name:
            raise InputError(
                f"the recipe {recipe} does not train in epochs: call teach(TaughtConfig(...))"
            )
        found = find_recipe(recipe).on(settings)
        merged = found.settings | settings
        if "network" not in settings:
            image_size = merged.get("image_size")
            if image_size is not None:  # check it before images are opened
                enlarged = NetworkConfig(image_size=image_size, backbone_size=MAX_IMAGE_SIZE)
                image_size = enlarged.image_size
            dataset = DataConfig(dataset=settings.get("dataset")).dataset
            merged = found.sizes(dataset, image_size) | merged
        for part in PARTS.keys() & settings.keys():
            names = {each.name for each in fields(PARTS[part])}
            if both := sorted(names & settings.keys()):
                raise InputError(f"give {part} or {both[0]}, not both: it is a setting of {part}")
            merged = {name: each for name, each in merged.items() if name not in names}
        return cls.from_flags(merged)

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Return the config of settings by the names of their flags.

        Args:
            flags: settings of the run, and beside them those of network, augmentation and sampling;
                "augment" is False for no augmentation. Others have their defaults.

        Raises:
            InputError: there is no such setting, a value is out of its range, or settings do not go
                together.

        Example:
        >>> config = TrainConfig.from_flags({"gap": 0.5, "image_size": 64, "augment": False})
        >>> config.gap, config.network.image_size, config.augmentation
        (0.5, 64, None)
        """
        known = {each.name for kind in (cls, *PARTS.values()) for each in fields(kind)}
        for name in flags:
            if name not in known | {"augment"}:
                raise InputError(f"there is no setting {name}; known: {', '.join(sorted(known))}")
        settings = {each.name: flags[each.name] for each in fields(cls) if each.name in flags}
        for part, kind in PARTS.items():
            given = {each.name: flags[each.name] for each in fields(kind) if each.name in flags}
            settings.setdefault(part, kind(**given))
        if not flags.get("augment", True):
            settings["augmentation"] = None
        return cls(**settings)

    def to_json(self) -> str:
        """Return the settings as indented JSON, paths as text, without the hosts."""
        settings = dataclasses.asdict(self)
        for name in ("hosts", "host_index"):  # a resumed run may have others, and each its own
            del settings[name]
        return json.dumps(settings, indent=2, default=str) + "\n"


# Settings with a class of their own. Their flags are beside those of the run.
PARTS: dict[str, type[NetworkConfig | Augmentation | SamplingConfig]] = {
    "network": NetworkConfig,
    "augmentation": Augmentation,
    "sampling": SamplingConfig,
}
