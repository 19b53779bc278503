"""Positives: other images of the query's item, or given ones."""

import numpy as np

from deep_ranking.config.base import check_counts
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array, IntArray
from deep_ranking.sampling.drawing import Pool, Ranges
from deep_ranking.sampling.strategy import Positives


class SameItemPositives(Positives):
    """Other images of the query's class or item, each at most once for a query.

    Args:
        pool: all images.
        num_positives: most positives of a query.

    Raises:
        InputError: no item has two images.
    """

    def __init__(self, pool: Pool, num_positives: int) -> None:
        check_counts(num_positives=num_positives)
        images = np.sort(pool.images)
        sizes = pool.item_ranges(images)[1]
        if sizes.max(initial=0) < 2:
            raise InputError("no class has two images, so no query has a positive")
        super().__init__(num_positives, pool.images)
        self._pool = pool
        self.queries = images[sizes > 1]
        self.most = min(num_positives, int(sizes.max()) - 1)

    def _ranges(self, queries: Int64Array) -> tuple[Ranges, Ranges]:
        return self._pool.item_ranges(queries), self._pool.own_ranges(queries)


class GivenPositives(Positives):
    """Positives from a list, such as a shop's photos of the thing in a customer's photo.

    Args:
        pairs: integers (pairs, 2), query and positive; a query may have any number of positives.
        num_positives: most positives of a query.
    """

    def __init__(self, pairs: IntArray, num_positives: int) -> None:
        check_counts(num_positives=num_positives)
        pairs = np.unique(pairs, axis=0)  # by query
        super().__init__(num_positives, pairs[:, 1])
        queries, self._starts, self._sizes = np.unique(
            pairs[:, 0], return_index=True, return_counts=True
        )
        self.queries: Int64Array = queries.astype(np.int64)
        self.most = min(num_positives, int(self._sizes.max(initial=1)))

    def _ranges(self, queries: Int64Array) -> tuple[Ranges, None]:
        at = np.searchsorted(self.queries, queries)
        return (self._starts[at], self._sizes[at]), None
