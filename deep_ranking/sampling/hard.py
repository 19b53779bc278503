"""Hard negatives: images of other classes that a model places nearest to the query."""

import numpy as np

from deep_ranking.config.base import check_counts
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array, IntArray
from deep_ranking.sampling.drawing import draw_from_ranges
from deep_ranking.sampling.strategy import Drawn

ROWS_AT_ONCE = 1 << 16


class HardNegatives:
    """Some of the nearest images of other classes, each equally likely.

    Args:
        neighbours: integers (images, K), the nearest images of other classes of each image; -1
            where there are fewer than K, and for images that are not queries.
        items: integers (images,), the class or item of each image.
        num_negatives: most negatives of a pair.

    Raises:
        InputError: no image has a neighbour.
        ValueError: a neighbour is of the image's own class.
    """

    def __init__(self, neighbours: IntArray, items: IntArray, num_negatives: int) -> None:
        check_counts(num_negatives=num_negatives)
        self._neighbours = neighbours
        self._num_negatives = num_negatives
        self._sizes = np.zeros(len(neighbours), np.int64)
        for begin in range(0, len(neighbours), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            there = neighbours[part] >= 0
            if ((items[neighbours[part]] == items[part, None]) & there).any():
                raise ValueError("a neighbour is of the image's own class, so it is not a negative")
            self._sizes[part] = there.sum(axis=1)
        if not self._sizes.any():
            raise InputError("no image has a neighbour of another class, so there is no negative")
        self.most = min(num_negatives, int(self._sizes.max()))

    def counts(self, queries: Int64Array) -> Int64Array:
        """Return the number of negatives for each pair of each query."""
        return np.minimum(self._num_negatives, self._sizes[queries])

    def draw(self, rng: np.random.Generator, queries: Int64Array) -> Drawn:
        """Draw negatives, all sets of them equally likely."""
        ranges = (np.zeros_like(queries), self._sizes[queries])
        row, number = draw_from_ranges(rng, ranges, self.counts(queries))
        return row, self._neighbours[queries[row], number].astype(np.int64)
