"""Negatives of a query: of all other classes, of its own category, or near to it for a model.

Each pair of query and positive gets a new draw. No draw repeats an image, and a draw that asks for
more images than there are returns all of them. Strategy `relevance` draws its own negatives, in
`by_relevance`.
"""

import numpy as np

from deep_ranking.config.base import check_counts, check_range
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array, IntArray
from deep_ranking.sampling.drawing import Pool, Ranges, draw_from_ranges
from deep_ranking.sampling.strategy import Partners

ROWS_AT_ONCE = 1 << 16


class OutOfClassNegatives(Partners):
    """Images of all other classes, each equally likely: the blog's rule.

    Args:
        pool: images that may be negatives.
        num_negatives: most negatives of a pair.

    Raises:
        InputError: there are fewer than two classes.
    """

    def __init__(self, pool: Pool, num_negatives: int) -> None:
        check_counts(num_negatives=num_negatives)
        if pool.num_items < 2:
            raise InputError(
                f"triplets need images of two classes or more. Received: {pool.num_items}"
            )
        super().__init__(num_negatives, pool.images)
        self._pool = pool
        self.most = min(num_negatives, len(pool) - 1)

    def _ranges(self, queries: Int64Array) -> tuple[Ranges, Ranges]:
        return self._pool.whole_ranges(queries), self._pool.item_ranges(queries)


class InClassNegatives(Partners):
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
        super().__init__(num_negatives, pool.images)
        self._pool = pool
        self._share = out_of_class_share
        self._any_item = any_item
        self.most = min(num_negatives, max(1, len(pool) - 1))

    def counts(self, queries: Int64Array) -> Int64Array:
        """Return the most negatives for each pair of each query; 0 if a query has none."""
        (_, sizes), own = self._ranges(queries)
        inside = sizes - own[1]
        outside = len(self._pool) - self._pool.category_ranges(queries)[1] if self._share else 0
        return np.where(inside > 0, np.minimum(self._limit, inside + outside), 0)

    def draw(self, rng: np.random.Generator, queries: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Draw negatives, each of another category with probability `out_of_class_share`."""
        if not self._share:
            return super().draw(rng, queries)
        wanted = np.full(len(queries), self._limit)
        outside = rng.binomial(wanted, self._share)
        ranges, own = self._ranges(queries)
        row, number = draw_from_ranges(rng, ranges, wanted - outside, without=own)
        whole, category = self._pool.whole_ranges(queries), self._pool.category_ranges(queries)
        others = draw_from_ranges(rng, whole, outside, without=category)
        row, number = np.concatenate([row, others[0]]), np.concatenate([number, others[1]])
        order = np.argsort(row, kind="stable")
        return row[order], self._pool.images[number[order]]

    def _ranges(self, queries: Int64Array) -> tuple[Ranges, Ranges]:
        """Return the categories, or the whole pool where a category has no other item."""
        (starts, sizes), own = self._pool.category_ranges(queries), self._pool.item_ranges(queries)
        if self._any_item:
            alone = sizes == own[1]
            starts, sizes = np.where(alone, 0, starts), np.where(alone, len(self._pool), sizes)
        return (starts, sizes), own


class HardNegatives(Partners):
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
        super().__init__(num_negatives, neighbours.reshape(-1))
        self._width = neighbours.shape[1]
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

    def _ranges(self, queries: Int64Array) -> tuple[Ranges, None]:
        return (queries * self._width, self._sizes[queries]), None
