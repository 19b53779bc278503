"""Which triplets each epoch has: those of a file, or those that a strategy draws for it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from deep_ranking.datasets import LabelledImages
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int32Array
from deep_ranking.sampling import Strategy
from deep_ranking.sampling.triplet_file import COLUMNS, Triplets, resolve_paths


@dataclass(frozen=True)
class OrderedTriplets:
    """The triplets of one epoch, in order.

    Attributes:
        rows: int32 (any, 3), numbers of a triplet's images: query, positive, negative.
        order: int32 (triplets,), the rows in the order in which the epoch has them.
    """

    rows: Int32Array
    order: Int32Array

    def __len__(self) -> int:
        """Return the number of triplets."""
        return len(self.order)

    def images(self, position: int) -> list[int]:
        """Return the numbers of the three images of the triplet at a position."""
        images: list[int] = self.rows[self.order[position]].tolist()
        return images


class EpochTriplets(ABC):
    """The triplets of each epoch of a run.

    Attributes:
        name: file or folder that they come from, for messages.
        paths: the images, by number.
        description: the training data in words.
    """

    name: str
    paths: Sequence[str]
    description: str

    @abstractmethod
    def __len__(self) -> int:
        """Return the largest number of triplets of one pass."""

    @abstractmethod
    def of_epoch(
        self, epoch: int, *, count: int | None, seed: int, shuffle: bool
    ) -> OrderedTriplets:
        """Return the triplets of an epoch.

        Args:
            epoch: number of the epoch, from 0.
            count: triplets an epoch, each epoch continuing where the one before ended, through one
                pass after another; None for one pass an epoch.
            seed: with the epoch, decides which triplets and in which order.
            shuffle: whether the order is random.

        Raises:
            InputError: the strategy finds no triplet.
        """

    def prepare(self, epoch: int, model: Any) -> None:  # noqa: B027  # most need nothing
        """Get ready for an epoch, at whose start the network is `model`."""

    def find_missing(self, *, skip_broken: bool) -> set[int]:
        """Return the numbers of missing images, before hours of training come to one.

        Raises:
            InputError: an image is missing and `skip_broken` is False, or nothing is left.
        """
        return set()

    def left_out(self, images: set[int]) -> set[int]:
        """Return what is left out if these images cannot be read: triplets, or just the images."""
        return set(images)

    def error_at(self, row: int, error: InputError) -> InputError:
        """Return an image's error with the place of its triplet and what to do."""
        return InputError(
            f"{self._place(row)}{error}; repair the image, or leave such triplets out with "
            "--skip_broken"
        )

    def _place(self, row: int) -> str:
        """Return where a triplet is, as the beginning of a message."""
        return ""


class FileTriplets(EpochTriplets):
    """The triplets of a file, all in each epoch, permuted by (seed, epoch).

    Args:
        triplets: the triplets of the file.
        dataset_dir: folder that its paths are relative to; None for the file's own folder.

    Raises:
        InputError: the images are not in that folder.
    """

    def __init__(
        self, triplets: Triplets, dataset_dir: str | os.PathLike[str] | None = None
    ) -> None:
        self.name = str(triplets.file)
        self.triplets = triplets
        self.paths = resolve_paths(triplets, dataset_dir)
        self.description = f"{len(triplets):,} triplets of {len(self.paths):,} images"

    def __len__(self) -> int:
        return len(self.triplets)

    def of_epoch(
        self, epoch: int, *, count: int | None, seed: int, shuffle: bool
    ) -> OrderedTriplets:
        """Return the file's triplets, or a part of one permutation after another."""

        def permutation(number: int) -> Int32Array:
            return _permuted(len(self), [seed, number] if shuffle else None)

        if count is None:
            return OrderedTriplets(self.triplets.rows, permutation(epoch))
        begin = epoch * count
        passes = range(begin // len(self), -(-(begin + count) // len(self)))
        pieces = [
            permutation(number)[
                max(0, begin - number * len(self)) : begin + count - number * len(self)
            ]
            for number in passes
        ]
        return OrderedTriplets(self.triplets.rows, np.concatenate(pieces))

    def find_missing(self, *, skip_broken: bool) -> set[int]:
        """Return the numbers of missing images."""
        missing = np.array([not os.path.exists(path) for path in self.paths])
        if not missing.any():
            return set()
        triplets = np.flatnonzero(missing[self.triplets.rows].any(axis=1))
        if not skip_broken:
            rows = self.triplets.rows[triplets[0]]
            path = self.paths[rows[missing[rows]][0]]
            raise self.error_at(int(triplets[0]), InputError(f"{path}: no such image"))
        if len(triplets) == len(self):
            raise InputError(f"{self.name}: every triplet has a missing image")
        return set(np.flatnonzero(missing).tolist())

    def left_out(self, images: set[int]) -> set[int]:
        """Return the triplets that have one of these images."""
        has_one = np.isin(self.triplets.rows, list(images)).any(axis=1)
        return set(np.flatnonzero(has_one).tolist())

    def _place(self, row: int) -> str:
        return f"{self.triplets.place(row)}: "


class DrawnTriplets(EpochTriplets):
    """Triplets that a strategy draws for each epoch, in memory: 12 bytes for each.

    Args:
        data: the images, as the strategy numbers them.
        strategy: draws the triplets.
        strategy_name: its name, for the description.
        repeats: how many epochs train on the same triplets before others are drawn.
        opened: the files that the strategy reads; they stay open as long as this object lives.
    """

    def __init__(
        self,
        data: LabelledImages,
        strategy: Strategy,
        *,
        strategy_name: str | None,
        repeats: int = 1,
        opened: ExitStack | None = None,
    ) -> None:
        self.paths = data.files()
        self.name = str(data.root)
        classes = f"{data.items.num_names:,} classes"
        if data.categories is not None:
            classes = f"{data.items.num_names:,} items in {data.categories.num_names:,} categories"
        self.description = f"{len(data):,} images of {classes}, strategy {strategy_name}"
        self._repeats = repeats
        self._opened = opened
        self.set_strategy(strategy)

    def set_strategy(self, strategy: Strategy) -> None:
        """Draw by another strategy for the same images from now on."""
        self._strategy = strategy
        self._stream: _Stream | None = None
        self._latest: tuple[tuple[object, ...], Int32Array] | None = None

    def __len__(self) -> int:
        return self._strategy.num_triplets

    def of_epoch(
        self, epoch: int, *, count: int | None, seed: int, shuffle: bool
    ) -> OrderedTriplets:
        """Draw a pass over the queries, or read on in the endless stream."""
        number, again = divmod(epoch, self._repeats)
        key = (number, count, seed, shuffle)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self._draw(*key)
        rows = self._latest[1]
        # Triplets that repeat come in another order.
        order = _permuted(len(rows), [seed, epoch, 8] if shuffle and again else None)
        return OrderedTriplets(rows, order)

    def _draw(self, number: int, count: int | None, seed: int, shuffle: bool) -> Int32Array:
        if count is None:
            blocks = [*self._strategy.triplets(seed, number, shuffle=shuffle)]
            rows = np.concatenate(blocks) if blocks else np.empty((0, len(COLUMNS)), np.int32)
            if not len(rows):
                raise InputError(f"{self.name}: the strategy finds no triplet")
            return rows
        begin = number * count
        if self._stream is None or self._stream.begin > begin:
            # Draw from the start again: that costs little beside training.
            self._stream = _Stream(self._strategy.stream(seed, shuffle=shuffle))
        return self._stream.read(begin, count)


class _Stream:
    """Reads an endless stream of triplets by position, forwards only.

    Attributes:
        begin: the first position that can still be read.
    """

    def __init__(self, blocks: Iterator[Int32Array]) -> None:
        self.begin = 0
        self._blocks = blocks
        self._block = np.empty((0, len(COLUMNS)), np.int32)

    def read(self, begin: int, count: int) -> Int32Array:
        """Return the triplets from a position on: int32 (count, 3)."""
        pieces = []
        while count:
            while begin >= self.begin + len(self._block):
                self.begin += len(self._block)
                self._block = next(self._blocks)
            piece = self._block[begin - self.begin :][:count]
            pieces.append(piece)
            begin += len(piece)
            count -= len(piece)
        return np.concatenate(pieces)


def _permuted(count: int, seed: list[int] | None) -> Int32Array:
    """Return the numbers below `count` in random order; without a seed, in rising order."""
    order = np.arange(count, dtype=np.int32)
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    return order
