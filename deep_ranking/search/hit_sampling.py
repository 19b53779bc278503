"""Searches to learn p(hit) from in a large collection; memory does not grow with its rows.

The classes of all rows are never listed: SQLite draws the queries, and the classes of what they
find are looked up.
"""

from collections.abc import Iterable
from contextlib import closing

import numpy as np

from deep_ranking.files.array_types import Int64Array
from deep_ranking.model.hit_calibration import DEPTH, NO_CLASS, HitCalibration
from deep_ranking.model.hit_fitting import (
    MOST_QUERIES,
    first_images,
    fit_hits,
    neighbourhoods,
)
from deep_ranking.search.collection import Collection, ImageTable
from deep_ranking.search.index.base import Index, batches, read_rows

QUERIES_AT_ONCE = 256
DEEPEST = 16_384
"""Results of a search for images of other classes: Milvus' limit."""

# A number that depends on the row alone, so that copies of an image come together, and that follows
# no pattern: remainders by two primes.
MIXED = "((row * 2654435761) % 4294967291 * 40503 + 12345) % 2147483647"
QUERIES = f"""
SELECT row FROM images WHERE row IS NOT NULL AND class IN (
    SELECT class FROM images WHERE row IS NOT NULL AND class <> x''
    GROUP BY class HAVING COUNT(DISTINCT row) > 1
) ORDER BY {MIXED}, row LIMIT ?
"""


class ClassesOfRows:
    """The number of each row's class, as `classes_of_rows` returns it, looked up when it is asked.

    Args:
        table: the images.
    """

    def __init__(self, table: ImageTable) -> None:
        self._table = table
        names = sorted(filter(None, table.classes()))
        self._numbers = {name: number for number, name in enumerate(names)}

    def __getitem__(self, rows: Int64Array) -> Int64Array:
        """Return the number of each row's class, `NO_CLASS` for none and for row -1."""
        asked, places = np.unique(rows, return_inverse=True)
        found = self._table.of_rows(asked[asked >= 0].tolist())
        numbers = [self._first(each.label for each in found.get(row, ())) for row in asked.tolist()]
        return np.array(numbers, np.int64)[places].reshape(rows.shape)

    def _first(self, labels: Iterable[str]) -> int:
        return min((self._numbers[each] for each in labels if each), default=NO_CLASS)


def fit_sampled(collection: Collection, index: Index) -> HitCalibration | None:
    """Fit the chance of a hit to searches with 500 images of a collection.

    Each image is left out of its own results; then its whole class is.

    Args:
        collection: a synced one.
        index: its index, which holds all rows.

    Returns:
        The calibration; None where too few images have a class with another image.
    """
    with closing(collection.images()) as table:
        queries = _queries(table)
        if not len(queries):
            return None
        classes, embeddings = ClassesOfRows(table), collection.embeddings()
        near, others = [], []
        for part in batches(queries, QUERIES_AT_ONCE):
            todo, width = part, 2 * DEPTH
            foreign: dict[int, Int64Array] = {}
            while len(todo):
                rows = index.search(read_rows(embeddings, todo), width).rows
                is_other = (rows >= 0) & (classes[rows] != classes[todo][:, None])
                for query, found, other in zip(todo.tolist(), rows, is_other, strict=True):
                    if width == 2 * DEPTH:
                        near.append(first_images(found[(found != query) & (found >= 0)]))
                    foreign[query] = first_images(found[other])
                is_last = rows.shape[1] < width or width >= DEEPEST
                todo = todo[:0] if is_last else todo[is_other.sum(axis=1) < DEPTH]
                width = min(4 * width, DEEPEST)
            others += [foreign[query] for query in part.tolist()]
        around, without_class = (
            neighbourhoods(embeddings, queries, embeddings, np.stack(each), classes)
            for each in (near, others)
        )
        return fit_hits(classes[queries], around, without_class)


def _queries(table: ImageTable) -> Int64Array:
    """Return the rows of images to search with, rising: int64 (queries,), at most 500."""
    # Copies of an image share a row, and come one after the other.
    rows = [row for (row,) in table.base.execute(QUERIES, (2 * MOST_QUERIES,))]
    return np.sort(np.array(list(dict.fromkeys(rows))[:MOST_QUERIES], np.int64))
