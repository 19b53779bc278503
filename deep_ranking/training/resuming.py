"""What `train --resume` restores, and the check that it is still the same run.

`checkpoint.h5` gives back the weights, the optimizer (its moments and its number of steps) and the
`RunState`. `config.json` gives back every setting whose flag is not given again. The rest follows
from the seed: order, augmentation and dropout of an epoch depend on (seed, epoch) alone. So a run
that was stopped ends with the same result as one that was not.

A run goes on only with the settings that it began with, except `FREE_TO_CHANGE`, and with the same
data, of which the state keeps fingerprints.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from deep_ranking.config import TrainConfig
from deep_ranking.files import InputError, read_text_file
from deep_ranking.files.content_digest import content_digest
from deep_ranking.images import find_images
from deep_ranking.model.calibration import Calibration
from deep_ranking.sampling.triplet_file import triplet_files
from deep_ranking.training.checkpoint import read_state, restore_variables
from deep_ranking.training.history import Row

if TYPE_CHECKING:
    import keras

# Files of a run's folder.
CHECKPOINT = "checkpoint.h5"  # weights, optimizer and `RunState`
SETTINGS = "config.json"

# Settings that may change when a run goes on: how long it runs, and where things are.
FREE_TO_CHANGE = (
    "epochs",
    "triplets",
    "validation_triplets",
    "dataset",
    "pairs",
    "relevance",
    "neighbours_of",
    "output",
    "save_augmented",
    "cache_dir",
    "auto_fix",
    "devices",
    "xla",
)

# Settings that `diagnosis` changes, and their types.
FIXED_SETTINGS = {"learning_rate": float, "head_learning_rate": float, "mining": str}


@dataclass
class RunState:
    """What a run needs to go on, besides weights and optimizer.

    Attributes:
        fingerprints: SHA-256 of each triplet file, of a relevance file, and of the image names of
            a folder to train or validate on. With other data it would be another run.
        num_epochs: epochs completed, including those before `start_epoch`.
        history: one row an epoch that was measured; epoch 0 is before training.
        best: best value so far of the quantity that `best.h5` is chosen by.
        num_no_better: validations since then.
        num_rate_drops: how often the learning rate was lowered on a plateau.
        calibration: the latest calibration, as JSON.
        fixes: settings that were changed because training went wrong, with their latest values.
        fixed_epochs: epochs, from 1, after which settings were changed.
    """

    fingerprints: dict[str, str]
    num_epochs: int = 0
    history: list[Row] = field(default_factory=list)
    best: float | None = None
    num_no_better: int = 0
    num_rate_drops: int = 0
    calibration: str | None = None
    fixes: dict[str, Any] = field(default_factory=dict)
    fixed_epochs: list[int] = field(default_factory=list)

    @classmethod
    def at_start(cls, config: TrainConfig) -> Self:
        """Return the state of a run that has not begun."""
        return cls(_fingerprints(config), num_epochs=config.start_epoch)

    @classmethod
    def read(cls, checkpoint: Path, config: TrainConfig, given: dict[str, str]) -> Self:
        """Read the state of the run that goes on, whose data now have the fingerprints `given`.

        Raises:
            InputError: the checkpoint is damaged, or the data differs from the data at the start.
        """
        try:
            state = cls(**read_state(checkpoint))
            has_right_types = state._has_right_types()
        except TypeError:
            has_right_types = False
        if not has_right_types:
            raise InputError(
                f"{checkpoint}: written by another version; start anew by --overwrite"
            ) from None
        for name in sorted(state.fingerprints.keys() | given.keys()):
            if state.fingerprints.get(name) != given.get(name):
                value = config.triplet_file if name == "triplets" else getattr(config, name)
                raise InputError(
                    f"{name} {value}: not what the run began with; give that, or start anew by "
                    "--overwrite"
                )
        return state

    def _has_right_types(self) -> bool:
        """Return whether all values are of the declared types: the file may be anybody's."""
        numbers = [value for row in self.history if isinstance(row, dict) for value in row.values()]
        counts = (self.num_epochs, self.num_no_better, self.num_rate_drops, *self.fixed_epochs)
        return (
            isinstance(self.fingerprints, dict)
            and all(isinstance(row, dict) for row in self.history)
            and all(type(number) in (int, float) for number in numbers)
            and all(type(count) is int and count >= 0 for count in counts)
            and (self.best is None or type(self.best) in (int, float))
            and (self.calibration is None or isinstance(self.calibration, str))
            and isinstance(self.fixes, dict)
            and all(type(value) is FIXED_SETTINGS.get(name) for name, value in self.fixes.items())
        )

    def restore(
        self, checkpoint: Path, model: "keras.Model", optimizer: "keras.optimizers.Optimizer"
    ) -> None:
        """Restore weights, optimizer and calibration; see `restore_variables`."""
        restore_variables(checkpoint, model, optimizer)
        if self.calibration is not None:
            model.calibration = Calibration.from_json(self.calibration)


def settings_to_share(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that all hosts of a run must have: all but where files are."""
    return {
        name: value
        for name, value in _as_flags(config.to_json()).items()
        if name in ("epochs", "auto_fix") or name not in (*FREE_TO_CHANGE, "validation_dataset")
    }


def is_resumed(config: TrainConfig, *, resume: bool, overwrite: bool) -> bool:
    """Return whether an earlier run goes on, after checking that nothing is in the way.

    Raises:
        InputError: there is an earlier run or model, and neither `resume` nor `overwrite` is
            given; the run began with other settings; or a folder has the model's name.
    """
    checkpoint = config.run_dir / CHECKPOINT
    if config.output.is_dir():
        raise InputError(f"{config.output}: is a folder; expected the name of a model file")
    if resume and checkpoint.exists():
        _check_settings(config.run_dir / SETTINGS, config)
        return True
    if (checkpoint.exists() or config.output.exists()) and not overwrite:
        raise InputError(
            f"{config.output}: there is a run or a model already; go on with it by --resume, "
            "replace it by --overwrite, or choose another --output"
        )
    return False


def read_settings(path: Path) -> dict[str, Any]:
    """Read `config.json` as the values of flags.

    Returns:
        All settings by name, those of network, sampling and augmentation beside the others, with
        "augment"; "none" for no weights.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file does not hold settings.
    """
    text = read_text_file(path, hint="start anew by --overwrite")
    try:
        flags = _as_flags(text)
        known = _as_flags(TrainConfig().to_json()).keys()  # another version may know others
        TrainConfig.from_flags({name: flags[name] for name in flags.keys() & known})
        return flags
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        raise not_settings(path) from None


def planned_epochs(path: Path) -> int | None:
    """Return the total of epochs in `config.json`; None without such a file."""
    try:
        return int(read_settings(path)["epochs"])
    except FileNotFoundError:
        return None


def not_settings(path: Path) -> InputError:
    """Return the error for a `config.json` that does not hold the settings of a run."""
    return InputError(f"{path}: not the settings of a run; start anew by --overwrite")


def _check_settings(path: Path, config: TrainConfig) -> None:
    try:
        began = read_settings(path)
    except FileNotFoundError:
        return
    given = _as_flags(config.to_json())
    for name in sorted(began):  # a setting that is newer than the run had its default
        if name not in FREE_TO_CHANGE and began[name] != given.get(name):
            raise InputError(
                f"{path}: the run began with {name} {began[name]}. Received: {given.get(name)}; "
                "resume with the same, or start anew by --overwrite"
            )


def _as_flags(text: str) -> dict[str, Any]:
    settings = json.loads(text)
    network, augmentation = settings.pop("network"), settings.pop("augmentation")
    network["weights"] = network["weights"] or "none"
    sampling = settings.pop("sampling", {})  # missing in runs of earlier versions
    flags: dict[str, Any] = settings | network | sampling | (augmentation or {})
    if flags["batches"] == "classes" or flags.get("strategy") is not None:
        flags.setdefault("splits", False)  # earlier versions took all first folders as classes
    return flags | {"augment": augmentation is not None}


def _fingerprints(config: TrainConfig) -> dict[str, str]:
    reads_triplets = config.batches == "triplets" and not config.draws_triplets
    data = {
        "triplets": config.triplet_file if reads_triplets else None,
        "dataset": None if reads_triplets else config.dataset,
        "pairs": config.pairs,
        "corrections": config.corrections,
        "relevance": config.relevance,
        "validation_triplets": config.validation_triplets,
        "validation_dataset": config.validation_dataset,
    }
    found = {}
    for name, path in data.items():
        if path is None:
            continue
        if name.endswith("triplets"):
            found[name] = content_digest(*triplet_files(Path(path))).hex()
        elif name.endswith("dataset") or (name == "pairs" and Path(path).is_dir()):
            names = "\n".join(find_images(path).paths)
            found[name] = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
        else:  # a file of relevance, or the name of a way to compute it
            found[name] = content_digest(path).hex() if Path(path).is_file() else str(path)
    return found
