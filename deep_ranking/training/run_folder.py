"""The run folder NAME.run/ beside NAME.h5: what a training run leaves behind, and goes on from.

It holds `config.json` (the settings), `history.csv` (an epoch a row) and `history.png`, `best.h5`
and `checkpoint.h5`, and with `--strategy hard` `neighbours.h5`, each replaced atomically.
"""

import csv
import hashlib
import io
import json
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from deep_ranking.config import TrainConfig
from deep_ranking.files import InputError, atomic_path, make_folder, open_regular, read_text_file
from deep_ranking.images import find_images
from deep_ranking.sampling.triplet_file import triplet_files
from deep_ranking.training.checkpoint import read_state
from deep_ranking.training.history_plot import run_figure

Row = dict[str, float]

# Settings that may change when a run goes on: they decide how long it runs and where things lie.
FREE_TO_CHANGE = (
    "epochs",
    "triplets",
    "validation_triplets",
    "dataset",
    "relevance",
    "neighbours_of",
    "output",
    "save_augmented",
    "cache_dir",
    "auto_fix",
    "devices",
    "xla",
)

# Settings that `diagnosis` changes.
MENDED = {"learning_rate": float, "head_learning_rate": float, "mining": str}


@dataclass
class RunState:
    """What a run needs to go on, besides weights and optimizer.

    Attributes:
        fingerprints: SHA-256 of each triplet file, of a file of relevance, and of the image names
            of a folder to train or validate on, since another one would be another run.
        num_epochs: epochs completed, those before `start_epoch` among them.
        history: one row an epoch that was measured; epoch 0 is before training.
        best: best value so far of the quantity that `best.h5` is chosen by.
        num_no_better: judgements since then.
        num_rate_drops: how often the learning rate was lowered on a plateau.
        calibration: the latest calibration, as JSON.
        fixes: settings that were changed because training went wrong, by their latest values.
        fixed_epochs: epochs after which that happened, from 1.
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

    def is_sane(self) -> bool:
        """Whether all of it is of the types that it should be, as it may come from any file."""
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
            and all(type(value) is MENDED.get(name) for name, value in self.fixes.items())
        )

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        """Give the state of a run that has not begun."""
        fingerprints = {}
        if config.batches == "triplets" and not config.draws:
            fingerprints["triplets"] = _sha256(*triplet_files(config.triplet_file))
        elif config.dataset is not None:
            fingerprints["dataset"] = _sha256_of_names(config.dataset)
        if config.relevance is not None:
            file = Path(config.relevance)
            fingerprints["relevance"] = _sha256(file) if file.is_file() else config.relevance
        if config.validation_triplets is not None:
            files = triplet_files(config.validation_triplets)
            fingerprints["validation_triplets"] = _sha256(*files)
        if config.validation_dataset is not None:
            fingerprints["validation_dataset"] = _sha256_of_names(config.validation_dataset)
        return cls(fingerprints, num_epochs=config.start_epoch)


class RunFolder:
    """The folder of one run.

    Args:
        config: the run's settings, which name the folder.

    Attributes:
        path: the folder.
        checkpoint: file of weights, optimizer and `RunState`.
        best: model file of the best epoch.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.path = config.run_dir
        self.checkpoint = self.path / "checkpoint.h5"
        self.best = self.path / "best.h5"
        self._drawn = -math.inf

    def check_earlier_run(self, config: TrainConfig, *, resume: bool, overwrite: bool) -> bool:
        """Say whether an earlier run goes on.

        Raises:
            InputError: there is an earlier run or model, and it is not said what to do with it; it
                is to go on with other settings; or a folder has the model's name.
        """
        if config.output.is_dir():
            raise InputError(f"{config.output}: is a folder; expected the name of a model file")
        if resume and self.checkpoint.exists():
            self._check_settings(config)
            return True
        if (self.checkpoint.exists() or config.output.exists()) and not overwrite:
            raise InputError(
                f"{config.output}: there is a run or a model already; go on with it by --resume, "
                "replace it by --overwrite, or choose another --output"
            )
        return False

    def _check_settings(self, config: TrainConfig) -> None:
        path = self.path / "config.json"
        try:
            text = read_text_file(path, hint="start anew by --overwrite")
        except FileNotFoundError:
            return
        try:
            began = _flat(json.loads(text))
        except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
            raise InputError(
                f"{path}: not the settings of a run; start anew by --overwrite"
            ) from None
        goes_on = _flat(json.loads(config.to_json()))
        for name in sorted(began):  # a setting that there was not yet had its default
            if name not in FREE_TO_CHANGE and began[name] != goes_on.get(name):
                raise InputError(
                    f"{path}: the run began with {name} {began[name]}. "
                    f"Received: {goes_on.get(name)}; resume with the same, or start anew by "
                    "--overwrite"
                )

    def read_state(self, config: TrainConfig) -> RunState:
        """Read the state of the run that goes on.

        Raises:
            InputError: the checkpoint is damaged, or the data is not what it began with.
        """
        try:
            state = RunState(**read_state(self.checkpoint))
            is_sane = state.is_sane()
        except TypeError:
            is_sane = False
        if not is_sane:
            raise InputError(
                f"{self.checkpoint}: of another version; start anew by --overwrite"
            ) from None
        given = RunState.of(config).fingerprints
        for name in sorted(state.fingerprints.keys() | given.keys()):
            if state.fingerprints.get(name) != given.get(name):
                given_now = config.triplet_file if name == "triplets" else getattr(config, name)
                raise InputError(
                    f"{name} {given_now}: not what the run began with; give "
                    "that, or start anew by --overwrite"
                )
        return state

    def clear(self) -> None:
        """Make the folder empty: an earlier run gives way."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        make_folder(self.path)

    def write_settings(self, config: TrainConfig) -> None:
        """Write `config.json`."""
        with atomic_path(self.path / "config.json") as temporary:
            temporary.write_text(config.to_json(), encoding="utf-8")

    def write_history(self, history: list[Row]) -> None:
        """Write `history.csv`."""
        columns = list(dict.fromkeys(name for row in reversed(history) for name in row))
        with (
            atomic_path(self.path / "history.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as handle,
        ):
            writer = csv.DictWriter(handle, columns)
            writer.writeheader()
            writer.writerows(history)

    def draw_history(self, history: list[Row], *, unless_younger_than: float = 0.0) -> None:
        """Draw `history.png`.

        Args:
            history: one row an epoch.
            unless_younger_than: seconds for which the picture before may stay as it is; it takes
                longer to draw than some epochs.
        """
        now = time.monotonic()
        if not history or now - self._drawn < unless_younger_than:
            return
        self._drawn = now
        with atomic_path(self.path / "history.png") as temporary:
            run_figure(history).savefig(temporary)


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the history of a training run, `history.csv`: a line of names, then an epoch a line.

    Returns:
        One mapping an epoch, of what was measured in it: empty cells are left out.

    Raises:
        InputError: there is no such file, or it is no history; with the line.
    """
    try:
        with open_regular(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as handle:
            reader = csv.DictReader(handle, restkey="", restval="")
            if "epoch" not in (reader.fieldnames or ()):
                raise InputError(f"{path}:1: expected a line of names with epoch among them")
            rows = []
            for cells in reader:
                rows.append({name: float(cell) for name, cell in cells.items() if cell})
                if not math.isfinite(rows[-1].get("epoch", math.nan)):
                    raise InputError(f"{path}:{reader.line_num}: no number of an epoch")
            return rows
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check --history") from None
    except (ValueError, TypeError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        line = f":{reader.line_num}" if not isinstance(error, UnicodeDecodeError) else ""
        raise InputError(f"{path}{line}: expected numbers; not a history of train.py") from None


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of network and augmentation among them, rather than below them."""
    network, augmentation = settings.pop("network"), settings.pop("augmentation")
    sampling = settings.pop("sampling", {})
    flat: dict[str, Any] = settings | network | sampling | (augmentation or {"augment": False})
    return flat


def _sha256(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path) as handle:
            hashlib.file_digest(handle, lambda: digest)
    return digest.hexdigest()


def _sha256_of_names(folder: Path) -> str:
    names = "\n".join(find_images(folder).paths)
    return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
