"""Images to draw from, and drawing without replacement, many draws at once."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Int64Array, IntArray

Ranges = tuple[Int64Array, Int64Array]  # starts and sizes


class Pool:
    """Images sorted by category and item, so that each category and each item is a range.

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


def draw_from_ranges(
    rng: np.random.Generator, ranges: Ranges, counts: Int64Array, *, without: Ranges | None = None
) -> tuple[Int64Array, Int64Array]:
    """Draw numbers from ranges without replacement, many draws at once.

    Args:
        rng: source of randomness.
        ranges: int (rows,) starts and sizes: row i draws from range i.
        counts: int (rows,), how many numbers to draw; all there are if there are fewer.
        without: int (rows,) starts and sizes: part of each range to leave out.

    Returns:
        int64 (drawn,) rows, rising, and int64 (drawn,) the numbers drawn for them.
    """
    starts, populations = ranges
    if without is not None:
        populations = populations - without[1]
    counts = np.minimum(counts, populations)
    drawn = draw_distinct(rng, populations, counts)
    row = np.repeat(np.arange(len(counts)), counts)
    number = starts[row] + drawn[drawn >= 0]
    if without is not None:  # shift the numbers behind the part left out by its size
        number += np.where(number >= without[0][row], without[1][row], 0)
    return row, number


def draw_distinct(
    rng: np.random.Generator, populations: Int64Array, counts: Int64Array
) -> Int64Array:
    """Draw numbers without replacement, many draws at once.

    Args:
        rng: source of randomness.
        populations: int (rows,); row i draws from 0 ... populations[i] - 1.
        counts: int (rows,); row i draws counts[i] <= populations[i] different numbers.

    Returns:
        int64 (rows, max(counts)): each row's numbers, all such draws equally likely, then -1.
    """
    width = int(counts.max(initial=0))
    drawn = np.full((len(counts), width), -1, np.int64)
    # To draw over half of a population, shuffle it all. To draw less, draw and redraw repeats: at
    # most half of the population is taken, so each redraw succeeds at least every other time.
    for (population, count), rows in _groups(populations, counts):
        if 2 * count > population:
            everything = np.broadcast_to(np.arange(population), (len(rows), population))
            drawn[rows, :count] = rng.permuted(everything, axis=1)[:, :count]
    sparse = np.flatnonzero(2 * counts <= populations)
    wanted = np.arange(width) < counts[sparse, None]  # (sparse rows, width)
    high = np.broadcast_to(populations[sparse, None], wanted.shape)
    numbers = np.broadcast_to(-1 - np.arange(width), wanted.shape).copy()  # no two alike
    numbers[wanted] = rng.integers(0, high[wanted])
    rows = _rows_with_repeats(numbers)
    while len(rows):
        again = _repeats(numbers[rows])
        row, column = np.nonzero(again)
        numbers[rows[row], column] = rng.integers(0, high[rows[row], column])
        rows = rows[_rows_with_repeats(numbers[rows])]
    drawn[sparse] = np.where(wanted, numbers, -1)
    return drawn


def _groups(
    populations: Int64Array, counts: Int64Array
) -> Iterator[tuple[tuple[int, int], Int64Array]]:
    """Yield each different (population, count) with count over half of it, and its rows."""
    dense = np.flatnonzero(2 * counts > populations)
    pairs, group = np.unique(
        np.column_stack([populations[dense], counts[dense]]), axis=0, return_inverse=True
    )
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(pairs) + 1))
    for (population, count), begin, end in zip(
        pairs.tolist(), bounds[:-1], bounds[1:], strict=True
    ):
        yield (population, count), dense[order[begin:end]]


def _rows_with_repeats(numbers: Int64Array) -> Int64Array:
    """Return the rows that hold a number twice; usually few do."""
    ordered = np.sort(numbers, axis=1)
    return np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))


def _repeats(numbers: Int64Array) -> npt.NDArray[np.bool_]:
    """Return True for each number that also stands further left in its row."""
    order = np.argsort(numbers, axis=1, kind="stable")
    sorted_numbers = np.take_along_axis(numbers, order, axis=1)
    repeats = np.zeros(numbers.shape, bool)
    np.put_along_axis(
        repeats, order[:, 1:], sorted_numbers[:, 1:] == sorted_numbers[:, :-1], axis=1
    )
    return repeats
