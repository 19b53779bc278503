"""Which triplets an epoch holds: those of a file, or those that a strategy draws for it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int32Array
from deep_ranking.sampling import Strategy
from deep_ranking.sampling.triplet_file import COLUMNS, Triplets, resolve_paths


@dataclass(frozen=True)
class OrderedTriplets:
    """The triplets of an epoch.

    Attributes:
        rows: int32 (any, 3), numbers of the images of a triplet: query, positive, negative.
        order: int32 (triplets,), the row of each of the epoch's triplets, in order.
    """

    rows: Int32Array
    order: Int32Array

    def __len__(self) -> int:
        """Give the number of triplets."""
        return len(self.order)

    def images(self, position: int) -> list[int]:
        """Give the numbers of the three images of the triplet at a position."""
        images: list[int] = self.rows[self.order[position]].tolist()
        return images


class EpochTriplets(ABC):
    """Gives the triplets of each epoch.

    Attributes:
        name: of where they come from, for messages.
        paths: the images, by number.
    """

    name: str
    paths: Sequence[str]

    @property
    @abstractmethod
    def description(self) -> str:
        """What is trained on, in words."""

    @abstractmethod
    def __len__(self) -> int:
        """Give the number of triplets of one pass, at most."""

    @abstractmethod
    def of_epoch(
        self, epoch: int, *, count: int | None, seed: int, shuffle: bool
    ) -> OrderedTriplets:
        """Give the triplets of an epoch.

        Args:
            epoch: from 0.
            count: how many, where the epochs go on from each other through one pass after the
                other; None for a pass an epoch.
            seed: with the epoch, decides.
            shuffle: whether they come in random order.

        Raises:
            InputError: nothing can be drawn.
        """

    def prepare(self, epoch: int, model: Any) -> None:  # noqa: B027  # most need nothing
        """Get ready for an epoch, which `model` is about to be trained in."""

    def find_missing(self, *, skip_broken: bool) -> set[int]:
        """Give the images that are not there, before hours of training meet one.

        Raises:
            InputError: there are any, unless they are to be skipped and something is left.
        """
        return set()

    def left_out(self, images: set[int]) -> set[int]:
        """Give what is left out where some images cannot be read: triplets, or else the images."""
        return set(images)

    def error_at(self, row: int, error: InputError) -> InputError:
        """Say of an image's fault where its triplet is, and what to do."""
        return InputError(
            f"{self._place(row)}{error}; mend the image, or leave such triplets out with "
            "--skip_broken"
        )

    def _place(self, row: int) -> str:
        """Where a triplet stands, to go before what is wrong with it."""
        return ""


class FileTriplets(EpochTriplets):
    """All triplets of a file in each epoch, permuted by (seed, epoch).

    Args:
        triplets: the file's.
        dataset_dir: folder that its paths start from, if not the file's own.

    Raises:
        InputError: the images are in no such folder.
    """

    def __init__(
        self, triplets: Triplets, dataset_dir: str | os.PathLike[str] | None = None
    ) -> None:
        self.name = str(triplets.file)
        self.triplets = triplets
        self.paths = resolve_paths(triplets, dataset_dir)

    @property
    def description(self) -> str:
        """How many triplets, of how many images."""
        return f"{len(self.triplets):,} triplets of {len(self.paths):,} images"

    def __len__(self) -> int:
        return len(self.triplets)

    def of_epoch(
        self, epoch: int, *, count: int | None, seed: int, shuffle: bool
    ) -> OrderedTriplets:
        """Give the file's triplets, or a part of one permutation after the other."""

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
        """Give the images that are not there."""
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
        """Give the triplets that have one of some images."""
        has_one = np.isin(self.triplets.rows, list(images)).any(axis=1)
        return set(np.flatnonzero(has_one).tolist())

    def _place(self, row: int) -> str:
        return f"{self.triplets.place(row)}: "


class DrawnTriplets(EpochTriplets):
    """Triplets that a strategy draws for each epoch: 12 bytes for each triplet of it, and no file.

    Args:
        paths: the images, as the strategy numbers them.
        strategy: which triplets.
        name: of the folder that the images are from.
        description: what is drawn from, in words.
        repeats: epochs that train on the same triplets before others are drawn.
        opened: what the strategy reads from, open as long as triplets are drawn.
    """

    def __init__(
        self,
        paths: Sequence[str],
        strategy: Strategy,
        *,
        name: str,
        description: str,
        repeats: int = 1,
        opened: ExitStack | None = None,
    ) -> None:
        self.paths = paths
        self.name = name
        self._description = description
        self._repeats = repeats
        self._opened = opened
        self.set_strategy(strategy)

    def set_strategy(self, strategy: Strategy) -> None:
        """Draw by another strategy for the same images from now on."""
        self._strategy = strategy
        self._stream: _Stream | None = None
        self._latest: tuple[tuple[object, ...], Int32Array] | None = None

    @property
    def description(self) -> str:
        """What is drawn from."""
        return self._description

    def __len__(self) -> int:
        return self._strategy.num_triplets

    def of_epoch(
        self, epoch: int, *, count: int | None, seed: int, shuffle: bool
    ) -> OrderedTriplets:
        """Draw a pass over the queries, or go on through the endless stream."""
        number, again = divmod(epoch, self._repeats)
        key = (number, count, seed, shuffle)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self._draw(*key)
        rows = self._latest[1]
        # Triplets that are trained on again come in another order.
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
            # Drawing costs so little beside training that the start is never far.
            self._stream = _Stream(self._strategy.stream(seed, shuffle=shuffle))
        return self._stream.take(begin, count)


class _Stream:
    """Pieces of an endless stream by their place, one after the other.

    Attributes:
        begin: the first place that can still be had.
    """

    def __init__(self, blocks: Iterator[Int32Array]) -> None:
        self.begin = 0
        self._blocks = blocks
        self._block = np.empty((0, len(COLUMNS)), np.int32)

    def take(self, begin: int, count: int) -> Int32Array:
        """Give the triplets from a place on: int32 (count, 3)."""
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
    """Numbers from 0 to `count` in random order, or in their own without a seed."""
    order = np.arange(count, dtype=np.int32)
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    return order
