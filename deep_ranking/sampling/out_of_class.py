"""Negatives of all other classes: the blog's rule.

Every image is a query, and its positives are other images of its class. Each (query, positive) pair
gets a new draw of negatives from all images of all other classes. No draw repeats an image, and a
draw that asks for more images than there are returns all of them.
"""

from collections.abc import Iterator

import numpy as np

from deep_ranking.config.base import check_counts
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int32Array, Int64Array, IntArray
from deep_ranking.sampling.drawing import draw_from_ranges
from deep_ranking.sampling.pool import Pool
from deep_ranking.sampling.positives import SameItemPositives
from deep_ranking.sampling.strategy import ByQuery, Drawn


class OutOfClassNegatives:
    """Images of all other classes, each equally likely.

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
        self._pool = pool
        self._num_negatives = num_negatives
        self.most = min(num_negatives, len(pool) - 1)

    def counts(self, queries: Int64Array) -> Int64Array:
        """Return the number of negatives for each pair of each query."""
        return np.minimum(self._num_negatives, len(self._pool) - self._pool.item_ranges(queries)[1])

    def draw(self, rng: np.random.Generator, queries: Int64Array) -> Drawn:
        """Draw negatives, all sets of them equally likely."""
        ranges, own = self._pool.whole_ranges(queries), self._pool.item_ranges(queries)
        row, number = draw_from_ranges(rng, ranges, self.counts(queries), without=own)
        return row, self._pool.images[number]


def sample_triplets(
    labels: IntArray, *, num_positives: int, num_negatives: int, seed: int
) -> Iterator[Int32Array]:
    """Sample triplets of images by the blog's rule, in order of their queries.

    Args:
        labels: integers (images,), not decreasing, so that images of a class are together.
        num_positives: positives drawn for each query, 1 or more.
        num_negatives: negatives drawn for each (query, positive) pair, 1 or more.
        seed: the same seed gives the same triplets.

    Yields:
        int32 (triplets, 3): indices of query, positive and negative. The time for a triplet does
        not depend on the number of images; memory is the labels and one block of bounded size.

    Raises:
        InputError: there are fewer than two classes, no class has two images, or a count is
            below 1.
        ValueError: the labels decrease somewhere.
    """
    labels = np.asarray(labels)
    if np.any(labels[1:] < labels[:-1]):
        raise ValueError("labels must not decrease: sort the images by class")
    pool = Pool(labels)
    negatives = OutOfClassNegatives(pool, num_negatives)
    return ByQuery(SameItemPositives(pool, num_positives), negatives).triplets(seed)
