"""One pass over weighted images that keeps a few of each category (Wang et al. 2014, section 6).

An image's key is u^(1/w), with u uniform in (0, 1) and w its weight. Each category keeps the images
with the largest keys. So a buffer is a weighted sample without replacement of all images added so
far (Efraimidis and Spirakis 2006). Keys are stored as their logarithm, log(u) / w, because keys of
small weights would all round to 0.
"""

import numpy as np

from deep_ranking.files.array_types import Float64Array, Int64Array


class Reservoirs:
    """Buffers of fixed capacity, one for each category.

    Args:
        num_categories: number of buffers.
        capacity: most images in a buffer.

    Attributes:
        images: int64 (kept,), category by category.
        weights: float (kept,), their weights.
        starts: int64 (categories + 1,): category c has `images[starts[c]:starts[c + 1]]`.
    """

    def __init__(self, num_categories: int, capacity: int) -> None:
        self.images: Int64Array = np.empty(0, np.int64)
        self.weights: Float64Array = np.empty(0)
        self.starts: Int64Array = np.zeros(num_categories + 1, np.int64)
        self._capacity = capacity
        self._categories: Int64Array = np.empty(0, np.int64)
        self._keys: Float64Array = np.empty(0)
        self._thresholds = np.full(num_categories, -np.inf)  # largest key left out

    def add(
        self,
        rng: np.random.Generator,
        images: Int64Array,
        categories: Int64Array,
        weights: Float64Array,
    ) -> None:
        """Add images, and keep those with the largest keys.

        Args:
            rng: source of the keys.
            images: int (images,), none added before.
            categories: int (images,).
            weights: float (images,), above 0.
        """
        keys = np.concatenate([self._keys, np.log(1 - rng.random(len(images))) / weights])
        categories = np.concatenate([self._categories, categories])
        order = np.lexsort((-keys, categories))
        keys, categories = keys[order], categories[order]
        starts = np.searchsorted(categories, np.arange(len(self.starts)))
        rank = np.arange(len(order)) - starts[categories]
        first_out = rank == self._capacity
        out = categories[first_out]
        self._thresholds[out] = np.maximum(self._thresholds[out], keys[first_out])
        kept = rank < self._capacity
        self._keys, self._categories = keys[kept], categories[kept]
        self.images = np.concatenate([self.images, images])[order][kept]
        self.weights = np.concatenate([self.weights, weights])[order][kept]
        self.starts = np.searchsorted(self._categories, np.arange(len(self.starts)))

    def inclusion(self, category: int) -> Float64Array:
        """Return the probability that each image of a buffer is kept: float (kept,).

        Given the largest key t that was left out, an image of weight w is kept if u^(1/w) > t, with
        probability 1 - t^w. This is 1 while no image is left out, and proportional to w when the
        buffer is a small part of all images added.
        """
        part = slice(self.starts[category], self.starts[category + 1])
        return np.asarray(-np.expm1(self.weights[part] * self._thresholds[category]))
