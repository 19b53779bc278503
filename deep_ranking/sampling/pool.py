"""Images sorted by category and item, so that each category and each item is a range."""

import numpy as np

from deep_ranking.files.array_types import Int64Array, IntArray
from deep_ranking.sampling.drawing import Ranges


class Pool:
    """Images to draw from.

    Args:
        items: integers (images,), the class or item of each image, in the pool or not.
        categories: integers (images,), the category of each, the same for all images of an item;
            None if all items are of one category.
        members: integers (members,), the images in the pool, each once; None for all.

    Attributes:
        images: int64 (members,), sorted by category, then item, then as given.
    """

    def __init__(
        self, items: IntArray, categories: IntArray | None = None, members: IntArray | None = None
    ) -> None:
        names, self._item = np.unique(items, return_inverse=True)
        self._category = np.zeros(len(names), np.int64)
        if categories is not None:
            self._category[self._item] = np.unique(categories, return_inverse=True)[1]
        chosen = np.arange(len(items)) if members is None else np.asarray(members, np.int64)
        item = self._item[chosen]
        order = np.lexsort((item, self._category[item]))
        self.images: Int64Array = chosen[order]
        self._item_sizes = np.bincount(item, minlength=len(names))
        self._item_starts = np.zeros(len(names), np.int64)
        items_in_order = np.lexsort((np.arange(len(names)), self._category))
        ends = np.cumsum(self._item_sizes[items_in_order])
        self._item_starts[items_in_order] = ends - self._item_sizes[items_in_order]
        self._category_sizes = np.bincount(self._category[item], minlength=1)
        self._category_sizes.resize(max(1, self._category.max(initial=0) + 1))
        self._category_starts = np.cumsum(self._category_sizes) - self._category_sizes
        self._position = np.full(len(items), -1)
        self._position[self.images] = np.arange(len(chosen))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_items(self) -> int:
        """Number of items that have an image in the pool."""
        return int(np.count_nonzero(self._item_sizes))

    @property
    def num_categories(self) -> int:
        """Number of categories that have an image in the pool."""
        return int(np.count_nonzero(self._category_sizes))

    def item_of(self, images: Int64Array) -> Int64Array:
        """Return the number of each image's item, from 0."""
        return self._item[images]

    def whole_ranges(self, images: Int64Array) -> Ranges:
        """Return the range of the whole pool, once for each image: starts and sizes."""
        return np.zeros(len(images), np.int64), np.full(len(images), len(self.images))

    def item_ranges(self, images: Int64Array) -> Ranges:
        """Return the range of each image's item in the pool: starts and sizes."""
        item = self._item[images]
        return self._item_starts[item], self._item_sizes[item]

    def category_ranges(self, images: Int64Array) -> Ranges:
        """Return the range of each image's category in the pool: starts and sizes."""
        category = self._category[self._item[images]]
        return self._category_starts[category], self._category_sizes[category]

    def own_ranges(self, images: Int64Array) -> Ranges:
        """Return the range of each image alone, which must be in the pool: starts and sizes."""
        return self._position[images], np.ones(len(images), np.int64)
