"""Triplets with hard negatives: the network in training finds the nearest images of other classes.

It does so again after every `resample_every` epochs. `neighbours.h5` in the run's folder keeps them
in between: `neighbours`, int32 (images, K), in the order of the folders' listing, and `epoch`, the
one before which they were found.
"""

from typing import Any

import h5py
import numpy as np

from deep_ranking.config import TrainConfig
from deep_ranking.datasets import LabelledImages
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.array_types import Int32Array
from deep_ranking.files.hdf5 import open_hdf5, read_array
from deep_ranking.model.header import read_header
from deep_ranking.sampling import any_negatives, make_strategy
from deep_ranking.search.collection import Collection
from deep_ranking.search.neighbours import find_neighbours
from deep_ranking.training.batches import DrawnTriplets


class HardTriplets(DrawnTriplets):
    """Triplets with negatives from the nearest images of other classes.

    Args:
        config: the run's settings.
        data: its images.

    Raises:
        InputError: the images do not give triplets, or there is no model or index at
            `neighbours_of`.
    """

    def __init__(self, config: TrainConfig, data: LabelledImages) -> None:
        given = config.neighbours_of
        if given is not None:  # check it before the folder of an earlier run is replaced
            if not given.exists():
                raise InputError(f"{given}: no such file; check --neighbours_of")
            if given.is_dir():
                Collection.open(given)
            else:
                read_header(given)
        # Until a network finds the nearest images: as many triplets, with any negatives.
        strategy = make_strategy(any_negatives(config.sampling), data.items.codes)
        super().__init__(data, strategy, strategy_name=config.sampling.strategy)
        self._config = config
        self._data = data
        self._file = config.run_dir / "neighbours.h5"
        self._found_before: int | None = None  # the epoch

    def prepare(self, epoch: int, model: Any) -> None:
        """Find the nearest images before an epoch, or read those found before an earlier one."""
        due = self._due(epoch)
        if due == self._found_before:
            return
        neighbours = self._find(epoch, model) if due == epoch else self._read(due)
        self.set_strategy(
            make_strategy(self._config.sampling, self._data.items.codes, neighbours=neighbours)
        )
        if due == epoch:
            with atomic_path(self._file) as temporary, h5py.File(temporary, "w") as file:
                file["neighbours"] = neighbours
                file["epoch"] = np.array([epoch])
        self._found_before = due

    def _due(self, epoch: int) -> int:
        """Return the epoch before which the neighbours of this epoch are found."""
        first, every = self._config.start_epoch, self._config.resample_every
        if every is None and self._config.neighbours_of is not None:
            return first
        return max(first, epoch - epoch % (every or 1))

    def _find(self, epoch: int, model: Any) -> Int32Array:
        config, count = self._config, self._config.sampling.num_neighbours
        given = config.neighbours_of if epoch == config.start_epoch else None
        source = model if given is None else given
        found = find_neighbours(self._data, count, source, skip_broken=config.skip_broken)
        by = "the network as it is now" if given is None else given
        print(f"Before epoch {epoch + 1}: nearest images of other classes found by {by}.")
        return found

    def _read(self, epoch: int) -> Int32Array:
        """Read the neighbours that were found before an epoch.

        Raises:
            InputError: the file is damaged, or not from this run.
        """
        num_images, items = len(self._data), self._data.items.codes
        shape = (num_images, self._config.sampling.num_neighbours)
        with open_hdf5(self._file) as file:
            found: Int32Array = read_array(file, "neighbours", shape, np.int32)
            since = int(read_array(file, "epoch", (1,), np.int64)[0])
        fits = since == epoch and found.min() >= -1 and found.max() < num_images
        if not fits or ((items[found] == items[:, None]) & (found >= 0)).any():
            raise InputError(
                f"{self._file}: not the neighbours that this run found before epoch {epoch + 1}; "
                "start anew with --overwrite"
            )
        return found
