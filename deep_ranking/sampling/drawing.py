"""Drawing without replacement from ranges of numbers, many draws at once."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Int64Array

Ranges = tuple[Int64Array, Int64Array]  # starts and sizes


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
