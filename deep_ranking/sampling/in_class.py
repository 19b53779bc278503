"""In-class negatives: images of the query's category, but of another item.

They are the hard negatives of nested folders. Strategy `relevance` draws its own in-class negatives
in `by_relevance`, by the relevance gap.
"""

import numpy as np

from deep_ranking.config.base import check_counts, check_range
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.sampling.drawing import Ranges, draw_from_ranges
from deep_ranking.sampling.pool import Pool
from deep_ranking.sampling.strategy import Drawn


class InClassNegatives:
    """Images of other items of the same category, mixed with images of other categories.

    Args:
        pool: images that may be negatives.
        num_negatives: most negatives of a pair.
        out_of_class_share: chance that a negative is of another category.
        any_item: where a category has a single item, draw from all other items, instead of leaving
            its images out.

    Raises:
        InputError: no category has two items, or `out_of_class_share` is above 0 and there is only
            one category.
    """

    def __init__(
        self,
        pool: Pool,
        num_negatives: int,
        *,
        out_of_class_share: float = 0.0,
        any_item: bool = False,
    ) -> None:
        check_counts(num_negatives=num_negatives)
        check_range("out_of_class_share", out_of_class_share, 0, 1)
        if out_of_class_share and pool.num_categories < 2:
            raise InputError(
                "all images are of one category, so there are no negatives of another category; "
                "leave out --out_of_class_share"
            )
        if (
            not any_item
            and not (pool.category_ranges(pool.images)[1] > pool.item_ranges(pool.images)[1]).any()
        ):
            raise InputError(
                "no category has two items, so there is no in-class negative; expected folders "
                "category/item/image, with --level folders in the category"
            )
        self._pool = pool
        self._num_negatives = num_negatives
        self._share = out_of_class_share
        self._any_item = any_item
        self.most = min(num_negatives, max(1, len(pool) - 1))

    def counts(self, queries: Int64Array) -> Int64Array:
        """Return the most negatives for each pair of each query; 0 if a query has none."""
        inside = self._in_class_ranges(queries)[1] - self._pool.item_ranges(queries)[1]
        outside = len(self._pool) - self._pool.category_ranges(queries)[1] if self._share else 0
        return np.where(inside > 0, np.minimum(self._num_negatives, inside + outside), 0)

    def draw(self, rng: np.random.Generator, queries: Int64Array) -> Drawn:
        """Draw negatives, each of another category with probability `out_of_class_share`."""
        wanted = np.full(len(queries), self._num_negatives)
        outside = rng.binomial(wanted, self._share) if self._share else 0 * wanted
        own, category = self._pool.item_ranges(queries), self._pool.category_ranges(queries)
        ranges = self._in_class_ranges(queries)
        row, number = draw_from_ranges(rng, ranges, wanted - outside, without=own)
        if self._share:
            ranges = self._pool.whole_ranges(queries)
            others = draw_from_ranges(rng, ranges, outside, without=category)
            row, number = np.concatenate([row, others[0]]), np.concatenate([number, others[1]])
            order = np.argsort(row, kind="stable")
            row, number = row[order], number[order]
        return row, self._pool.images[number]

    def _in_class_ranges(self, queries: Int64Array) -> Ranges:
        """Ranges of the categories, or of the whole pool where a category has no other item."""
        starts, sizes = self._pool.category_ranges(queries)
        if self._any_item:
            alone = sizes == self._pool.item_ranges(queries)[1]
            starts, sizes = np.where(alone, 0, starts), np.where(alone, len(self._pool), sizes)
        return starts, sizes
