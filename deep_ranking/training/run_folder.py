"""The files of a run's folder, which one host alone writes."""

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from deep_ranking.config import TrainConfig
from deep_ranking.files import atomic_path, make_folder
from deep_ranking.model.file import save_model
from deep_ranking.training.checkpoint import save_checkpoint
from deep_ranking.training.history import Row, draw_history, write_history
from deep_ranking.training.resuming import CHECKPOINT, SETTINGS

# Seconds from one picture of the history to the next: drawing takes longer than some epochs.
PICTURE_SECONDS = 10.0


class RunFolder:
    """Writes the folder of a run, each file atomically.

    Args:
        path: the folder.
        writes: False for a host that writes nothing: all methods then do nothing.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINT
        self._writes = writes
        self._picture_time = -math.inf

    def make_anew(self) -> None:
        """Make the folder, in place of that of an earlier run."""
        if self._writes:
            if self.path.is_dir():
                shutil.rmtree(self.path)
            make_folder(self.path)

    def write_settings(self, config: TrainConfig) -> None:
        """Write `config.json`."""
        if self._writes:
            with atomic_path(self.path / SETTINGS) as temporary:
                temporary.write_text(config.to_json(), encoding="utf-8")

    def save_checkpoint(
        self, model: keras.Model, optimizer: keras.optimizers.Optimizer, state: dict[str, Any]
    ) -> None:
        """Write `checkpoint.h5`; see `save_checkpoint` of the module `checkpoint`."""
        if self._writes:
            save_checkpoint(self.checkpoint, model, optimizer, state)

    def save_best(self, model: keras.Model) -> None:
        """Write `best.h5`."""
        if self._writes:
            save_model(model, self.path / "best.h5")

    def write_history(self, history: Sequence[Row]) -> None:
        """Write `history.csv`, if there is something in it."""
        if self._writes and history:
            write_history(self.path / "history.csv", history)

    def draw_history(self, history: Sequence[Row], *, now: bool = False) -> None:
        """Draw `history.png`, unless that was done shortly before; `now` draws it in any case."""
        if self._writes and (now or time.monotonic() - self._picture_time >= PICTURE_SECONDS):
            self._picture_time = time.monotonic()
            draw_history(self.path / "history.png", history)
