"""Base class of sampling strategies: triplets of image numbers, from a seed and an epoch.

A triplet file takes the `triplets` of epoch 0; training without a file takes the `triplets` of each
epoch, or a `stream`. Most strategies combine two parts: a query's positives, and its negatives.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int32Array, Int64Array, IntArray
from deep_ranking.sampling.drawing import Ranges, draw_distinct, draw_from_ranges

BLOCK_TRIPLETS = 1 << 17
SHUFFLED_TRIPLETS = 1 << 21  # that are shuffled together


class Strategy(ABC):
    """Draws triplets by a seed, epoch after epoch, in blocks of bounded size."""

    @property
    @abstractmethod
    def num_triplets(self) -> int:
        """Most triplets in an epoch."""

    @abstractmethod
    def triplets(self, seed: int, epoch: int = 0, *, shuffle: bool = False) -> Iterator[Int32Array]:
        """Draw the triplets of one epoch.

        Args:
            seed: with the epoch, decides the draw.
            epoch: from 0; each epoch draws different triplets.
            shuffle: draw queries in random order, instead of class by class.

        Yields:
            int32 (triplets, 3): indices of query, positive and negative.

        Raises:
            InputError: while drawing, if there is no triplet to draw.
        """

    def stream(self, seed: int, epoch: int = 0, *, shuffle: bool = True) -> Iterator[Int32Array]:
        """Draw endless triplets, from the start of an epoch on, in random order.

        Yields:
            As `triplets`.
        """
        for each in itertools.count(epoch):
            yield from self.triplets(seed, each, shuffle=shuffle)


class Partners(ABC):
    """Draws images for queries: positives for each query, or negatives for each pair.

    Args:
        limit: most images for a query.
        images: integers, the images that `_ranges` numbers.
    """

    most: int
    """Most images for any query."""

    def __init__(self, limit: int, images: IntArray) -> None:
        self._limit = limit
        self._images = images

    @abstractmethod
    def _ranges(self, queries: Int64Array) -> tuple[Ranges, Ranges | None]:
        """Return the range of each query to draw from, and the part of it to leave out."""

    def counts(self, queries: Int64Array) -> Int64Array:
        """Return the most images for each query; 0 if it has none."""
        (_, sizes), without = self._ranges(queries)
        return np.minimum(self._limit, sizes if without is None else sizes - without[1])

    def draw(self, rng: np.random.Generator, queries: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Draw images, all sets of them equally likely: rows of `queries`, rising, and an image."""
        ranges, without = self._ranges(queries)
        wanted = np.full(len(queries), self._limit)
        row, number = draw_from_ranges(rng, ranges, wanted, without=without)
        return row, self._images[number].astype(np.int64)


class Positives(Partners):
    """Draws positives."""

    queries: Int64Array
    """Images that have a positive, rising."""


class ByQuery(Strategy):
    """Takes every image as a query: draws its positives, and negatives for each pair.

    Args:
        positives: draws the positives.
        negatives: draws the negatives.
        balanced_items: integers (images,), the item of each image: draw as many queries from every
            item, the average number, repeating images of small items. None draws each image once.

    Attributes:
        queries: int64, the images that have a positive and a negative.

    Raises:
        InputError: there is no such image.
    """

    def __init__(
        self,
        positives: Positives,
        negatives: Partners,
        *,
        balanced_items: IntArray | None = None,
    ) -> None:
        self._positives = positives
        self._negatives = negatives
        self.queries = positives.queries[negatives.counts(positives.queries) > 0]
        if not len(self.queries):
            raise InputError("no image has both a positive and a negative")
        self._items = balanced_items

    @property
    def num_triplets(self) -> int:
        """Most triplets in an epoch; an approximation if items are balanced."""
        counts = self._positives.counts(self.queries) * self._negatives.counts(self.queries)
        if self._items is None:
            return int(counts.sum())
        _, item, sizes = np.unique(
            self._items[self.queries], return_inverse=True, return_counts=True
        )
        return int((np.bincount(item, counts) / sizes).sum() * self._queries_per_item(len(sizes)))

    def triplets(self, seed: int, epoch: int = 0, *, shuffle: bool = False) -> Iterator[Int32Array]:
        """Draw the triplets of one epoch; the time for each does not grow with the images."""
        rng = generator(seed, epoch)
        queries = self.queries if self._items is None else self._balanced(rng)
        if shuffle:
            queries = rng.permutation(queries)
        blocks = self._blocks(rng, queries)
        yield from _shuffled(rng, blocks) if shuffle else blocks

    def _blocks(self, rng: np.random.Generator, queries: Int64Array) -> Iterator[Int32Array]:
        step = max(1, BLOCK_TRIPLETS // (self._positives.most * self._negatives.most))
        for begin in range(0, len(queries), step):
            query = queries[begin : begin + step]
            row, positive = self._positives.draw(rng, query)
            query = query[row]
            row, negative = self._negatives.draw(rng, query)
            yield np.column_stack([query[row], positive[row], negative]).astype(np.int32)

    def _queries_per_item(self, num_items: int) -> int:
        return max(1, round(len(self.queries) / num_items))

    def _balanced(self, rng: np.random.Generator) -> Int64Array:
        """Return as many queries of every item; which ones of a large item is random."""
        assert self._items is not None
        items = self._items[self.queries]
        order = np.argsort(items, kind="stable")
        starts = np.flatnonzero(np.diff(items[order], prepend=-1, append=-1))[:-1]
        sizes = np.diff(starts, append=len(items))
        whole, rest = np.divmod(self._queries_per_item(len(sizes)), sizes)
        drawn = draw_distinct(rng, sizes, rest)
        row, column = np.nonzero(drawn >= 0)
        numbers = np.concatenate(
            [np.repeat(order, np.repeat(whole, sizes)), order[starts[row] + drawn[row, column]]]
        )
        queries: Int64Array = self.queries[np.sort(numbers)]
        return queries


def _shuffled(rng: np.random.Generator, blocks: Iterator[Int32Array]) -> Iterator[Int32Array]:
    """Shuffle triplets across blocks, as one block may hold all triplets of few queries."""
    gathered: list[Int32Array] = []
    for block in blocks:
        gathered.append(block)
        if sum(map(len, gathered)) >= SHUFFLED_TRIPLETS:
            yield rng.permutation(np.concatenate(gathered))
            gathered = []
    if gathered:
        yield rng.permutation(np.concatenate(gathered))


def generator(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator of an epoch; epoch 0 has the seed's own, as a triplet file does."""
    return np.random.default_rng(seed if epoch == 0 else [seed, epoch, 3])
