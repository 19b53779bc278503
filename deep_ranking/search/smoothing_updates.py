"""Keep the smoothed rows of a collection up to date: only the rows that change are computed again.

A row changes if it is new, if one of its K nearest was removed, or if a new row is among its K
nearest now; no other row does, because the embeddings themselves never change. New rows are
compared with all rows exactly. A row that lost a neighbour, or is new, is compared with all rows:
exactly, or through the index if that has clusters and over 50,000 rows. Only in this last case may
the result differ from rows that are smoothed afresh, because such an index misses some neighbours.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import BoolArray, Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.row_store import RECORD
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.neighbours import MOST_COMPARED
from deep_ranking.search.smoothed_rows import SmoothedRows, SmoothedWriter, read_smoothed
from deep_ranking.search.smoothing import ROWS_AT_ONCE, NearestRows, nearest_rows, smoothed


class _Changes(NamedTuple):
    """What an update has to do.

    Attributes:
        rows: int64 (rows,), all rows in use.
        keys: (all rows,), of their contents.
        added: int64 (rows,), those that were not smoothed yet.
        is_kept: bool (all rows,), whether a row was smoothed before, and is in use.
        is_removed: bool (rows smoothed before + 1,), whether a row is no longer in use.
    """

    rows: Int64Array
    keys: npt.NDArray[np.void]
    added: Int64Array
    is_kept: BoolArray
    is_removed: BoolArray


def update_rows(
    collection: Collection,
    index: Index,
    old: SmoothedRows | None,
    *,
    num_neighbours: int,
    power: float,
) -> tuple[SmoothedRows, Int64Array]:
    """Smooth what changed since the rows were smoothed.

    Args:
        collection: a synced one; the caller holds its lock.
        index: its index, up to date.
        old: its smoothed rows, of the same K and power; None to smooth all rows.
        num_neighbours: K, at least 2.
        power: of the similarity.

    Returns:
        The smoothed rows, and the numbers of those that were computed now: int64 (rows,).

    Raises:
        InputError: the embeddings or the smoothed rows are damaged, or the disk is full.
    """
    embeddings = collection.embeddings()
    is_exact = index.kind == ExactIndex.kind or len(collection.rows()) <= MOST_COMPARED
    changes = _changes(collection, old, is_exact=is_exact)
    if old is not None and not len(changes.added) and not changes.is_removed.any():
        return old, np.empty(0, np.int64)
    if is_exact:
        index = ExactIndex(embeddings, changes.rows)
    added = ExactIndex(embeddings, changes.added)
    count = num_neighbours
    recomputed = []
    with (
        SmoothedWriter.replacing(collection, len(changes.keys), count, power) as writer,
        progress_bar(total=len(changes.rows), title="smoothing", unit="rows") as bar,
    ):
        for begin in range(0, len(changes.keys), ROWS_AT_ONCE):
            end = min(begin + ROWS_AT_ONCE, len(changes.keys))
            first, last = np.searchsorted(changes.rows, (begin, end))
            rows = changes.rows[first:last]
            nearest = NearestRows(
                np.full((len(rows), count), -1, np.int64), np.zeros((len(rows), count), np.float32)
            )
            values = np.zeros((len(rows), embeddings.shape[1]), np.float32)
            is_kept = changes.is_kept[rows]
            if old is not None and is_kept.any():
                nearest.rows[is_kept], nearest.similarities[is_kept] = old.nearest(rows[is_kept])
                values[is_kept] = old.rows[rows[is_kept]]
            # The last entry of `is_removed` stands for -1, no neighbour.
            lost = ~is_kept | changes.is_removed[nearest.rows].any(axis=1)
            changed = lost.copy()
            nearest.rows[lost], nearest.similarities[lost] = nearest_rows(
                embeddings, rows[lost], index, count
            )
            if len(changes.added) and not lost.all():
                known = NearestRows(nearest.rows[~lost], nearest.similarities[~lost])
                gained = nearest_rows(embeddings, rows[~lost], added, count, known=known)
                changed[~lost] = (gained.rows != known.rows).any(axis=1)
                nearest.rows[~lost], nearest.similarities[~lost] = gained
            values[changed] = smoothed(
                embeddings, nearest.rows[changed], nearest.similarities[changed], power
            )
            is_in_use = np.zeros(end - begin, bool)
            is_in_use[rows - begin] = True
            writer.write(changes.keys[begin:end], is_in_use, nearest, values)
            recomputed.append(rows[changed])
            bar.update(len(rows))
    return read_smoothed(collection), np.concatenate([np.empty(0, np.int64), *recomputed])


def _changes(collection: Collection, old: SmoothedRows | None, *, is_exact: bool) -> _Changes:
    """Find the rows that are new, and those that are gone, since the rows were smoothed.

    If more than half of them are, or too many to compare with each row, all count as new.
    """
    keys = np.array(collection.store.keys(), RECORD["key"])
    rows = collection.rows()
    nothing = _Changes(rows, keys, rows, np.zeros(len(keys), bool), np.zeros(1, bool))
    if old is None:
        return nothing
    held = old.in_use()
    here = held[np.isin(held, rows)]
    here = here[old.records["key"][here] == keys[here]]
    is_kept, is_removed = np.zeros(len(keys), bool), np.zeros(len(old.records) + 1, bool)
    is_kept[here] = is_removed[held] = True
    is_removed[here] = False
    added = rows[~is_kept[rows]]
    if len(added) + is_removed.sum() > len(rows) / 2:
        return nothing
    if not is_exact and len(added) > MOST_COMPARED:
        return nothing
    return _Changes(rows, keys, added, is_kept, is_removed)
