"""Negatives of the query's own category, but of another item: the hard ones of nested folders."""

import numpy as np

from deep_ranking.config.checks import check_counts, check_share
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.sampling.drawing import draw_outside
from deep_ranking.sampling.pool import Pool
from deep_ranking.sampling.strategy import Drawn


class SameCategory:
    """Images of other items of the same category, mixed with images of other categories.

    Args:
        pool: images that may be negatives.
        num_negatives: negatives a pair, at most.
        out_of_class_share: chance of each negative to be of another category.
        any_item: where a category has one item only, draw from all other items, rather than leave
            its images out.

    Raises:
        InputError: no category has two items, or only one category is there to draw others from.
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
        check_share("out_of_class_share", out_of_class_share)
        if out_of_class_share and pool.num_categories < 2:
            raise InputError(
                "all images are of one category, so there are no negatives of another; leave out "
                "--out_of_class_share"
            )
        if (
            not any_item
            and not (pool.categories(pool.images)[1] > pool.items(pool.images)[1]).any()
        ):
            raise InputError(
                "no category has two items, so there is no in-class negative; expected "
                "category/item/image, the category as many folders as --level says"
            )
        self._pool = pool
        self._num_negatives = num_negatives
        self._share = out_of_class_share
        self._any_item = any_item
        self.most = min(num_negatives, max(1, len(pool) - 1))

    def counts(self, queries: Int64Array) -> Int64Array:
        """Give how many negatives each query's pairs are given, at most; 0 if it has none."""
        inside = self._outer(queries)[1] - self._pool.items(queries)[1]
        outside = len(self._pool) - self._pool.categories(queries)[1] if self._share else 0
        return np.where(inside > 0, np.minimum(self._num_negatives, inside + outside), 0)

    def draw(self, rng: np.random.Generator, queries: Int64Array) -> Drawn:
        """Draw negatives: each of another category by the share, otherwise of the same."""
        wanted = np.full(len(queries), self._num_negatives)
        outside = rng.binomial(wanted, self._share) if self._share else 0 * wanted
        own, category = self._pool.items(queries), self._pool.categories(queries)
        row, number = draw_outside(rng, self._outer(queries), own, wanted - outside)
        if self._share:
            others = draw_outside(rng, self._pool.all(queries), category, outside)
            row, number = np.concatenate([row, others[0]]), np.concatenate([number, others[1]])
            order = np.argsort(row, kind="stable")
            row, number = row[order], number[order]
        return row, self._pool.images[number]

    def _outer(self, queries: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Ranges of the categories, or of everything where that has no other item."""
        starts, sizes = self._pool.categories(queries)
        if self._any_item:
            alone = sizes == self._pool.items(queries)[1]
            starts, sizes = np.where(alone, 0, starts), np.where(alone, len(self._pool), sizes)
        return starts, sizes
