"""What every strategy is: triplets of image numbers, from a seed and an epoch.

A strategy serves a file (`triplets` of epoch 0) and a training that takes triplets without one
(`stream`) alike. Most are made of two parts: which positives a query has, and which negatives.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int32Array, Int64Array
from deep_ranking.sampling.drawing import draw_distinct

Drawn = tuple[Int64Array, Int64Array]

BLOCK_TRIPLETS = 1 << 17
MIXED_TRIPLETS = 1 << 21


class Strategy(ABC):
    """Which triplets: seeded, epoch after epoch, in blocks of bounded memory."""

    @property
    @abstractmethod
    def num_triplets(self) -> int:
        """How many triplets an epoch gives, at most."""

    @abstractmethod
    def triplets(self, seed: int, epoch: int = 0, *, shuffle: bool = False) -> Iterator[Int32Array]:
        """Draw the triplets of one epoch.

        Args:
            seed: with the epoch, decides what is drawn.
            epoch: from 0; each has triplets of its own.
            shuffle: draw queries in random order, rather than class by class.

        Yields:
            int32 (triplets, 3): indices of query, positive and negative.

        Raises:
            InputError: while drawing, if nothing can be drawn.
        """

    def stream(self, seed: int, epoch: int = 0, *, shuffle: bool = True) -> Iterator[Int32Array]:
        """Draw triplets without end, from the start of an epoch on, in random order.

        Yields:
            As `triplets`.
        """
        for each in itertools.count(epoch):
            yield from self.triplets(seed, each, shuffle=shuffle)


class Positives(Protocol):
    """Which positives a query has."""

    queries: Int64Array
    """Images that have one, rising."""
    most: int
    """Positives that any query is given, at most."""

    def counts(self, queries: Int64Array) -> Int64Array:
        """Give how many positives each query is given."""

    def draw(self, rng: np.random.Generator, queries: Int64Array) -> Drawn:
        """Draw positives: rows of `queries`, rising, and the image that each was given."""


class Negatives(Protocol):
    """Which negatives a pair of query and positive has."""

    most: int
    """Negatives that any pair is given, at most."""

    def counts(self, queries: Int64Array) -> Int64Array:
        """Give how many negatives each query's pairs are given, at most; 0 if it has none."""

    def draw(self, rng: np.random.Generator, queries: Int64Array) -> Drawn:
        """Draw negatives afresh for each of `queries`: rows, rising, and images."""


class ByQuery(Strategy):
    """Every image is a query: positives are drawn for it, and negatives for each such pair.

    Args:
        positives: which positives.
        negatives: which negatives.
        balanced_items: integers (images,), the item of each image: then every item gives equally
            many queries, as many as there are on average, images of small items more than once.

    Attributes:
        queries: int64, the images that have a positive and a negative.

    Raises:
        InputError: there are none.
    """

    def __init__(
        self,
        positives: Positives,
        negatives: Negatives,
        *,
        balanced_items: npt.NDArray[np.integer] | None = None,
    ) -> None:
        self._positives = positives
        self._negatives = negatives
        self.queries = positives.queries[negatives.counts(positives.queries) > 0]
        if not len(self.queries):
            raise InputError("no image has both a positive and a negative")
        self._items = balanced_items

    @property
    def num_triplets(self) -> int:
        """How many triplets an epoch gives, at most; about, if items are balanced."""
        counts = self._positives.counts(self.queries) * self._negatives.counts(self.queries)
        if self._items is None:
            return int(counts.sum())
        _, item, sizes = np.unique(
            self._items[self.queries], return_inverse=True, return_counts=True
        )
        return int((np.bincount(item, counts) / sizes).sum() * self._queries_an_item(len(sizes)))

    def triplets(self, seed: int, epoch: int = 0, *, shuffle: bool = False) -> Iterator[Int32Array]:
        """Draw the triplets of one epoch; the time of each does not grow with the images."""
        rng = generator(seed, epoch)
        queries = self.queries if self._items is None else self._balanced(rng)
        if shuffle:
            queries = rng.permutation(queries)
        blocks = self._blocks(rng, queries)
        yield from _mixed(rng, blocks) if shuffle else blocks

    def _blocks(self, rng: np.random.Generator, queries: Int64Array) -> Iterator[Int32Array]:
        step = max(1, BLOCK_TRIPLETS // (self._positives.most * self._negatives.most))
        for begin in range(0, len(queries), step):
            query = queries[begin : begin + step]
            row, positive = self._positives.draw(rng, query)
            query = query[row]
            row, negative = self._negatives.draw(rng, query)
            yield np.column_stack([query[row], positive[row], negative]).astype(np.int32)

    def _queries_an_item(self, num_items: int) -> int:
        return max(1, round(len(self.queries) / num_items))

    def _balanced(self, rng: np.random.Generator) -> Int64Array:
        assert self._items is not None
        items = self._items[self.queries]
        order = np.argsort(items, kind="stable")
        starts = np.flatnonzero(np.diff(items[order], prepend=-1, append=-1))[:-1]
        sizes = np.diff(starts, append=len(items))
        whole, rest = np.divmod(self._queries_an_item(len(sizes)), sizes)
        drawn = draw_distinct(rng, sizes, rest)
        row, column = np.nonzero(drawn >= 0)
        numbers = np.concatenate(
            [np.repeat(order, np.repeat(whole, sizes)), order[starts[row] + drawn[row, column]]]
        )
        queries: Int64Array = self.queries[np.sort(numbers)]
        return queries


def _mixed(rng: np.random.Generator, blocks: Iterator[Int32Array]) -> Iterator[Int32Array]:
    """Permute triplets across blocks, as one block may hold all triplets of few queries."""
    gathered: list[Int32Array] = []
    for block in blocks:
        gathered.append(block)
        if sum(map(len, gathered)) >= MIXED_TRIPLETS:
            yield rng.permutation(np.concatenate(gathered))
            gathered = []
    if gathered:
        yield rng.permutation(np.concatenate(gathered))


def generator(seed: int, epoch: int) -> np.random.Generator:
    """Give the randomness of an epoch; that of epoch 0 is the seed's own, as a file has it."""
    return np.random.default_rng(seed if epoch == 0 else [seed, epoch, 3])
