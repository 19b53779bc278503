"""The exact index: compare every embedding, straight from the memory-mapped matrix."""

from typing import TYPE_CHECKING

import faiss
import numpy as np

from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.search.index.base import (
    Changes,
    Index,
    Nearest,
    RowsWithin,
    SearchCost,
    distances_from_squared,
    read_blocks,
)

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection


class ExactIndex(Index):
    """Compare each query with all embeddings; needs no file, and memory for one block of rows.

    Args:
        embeddings: float (all rows, dim), memory-mapped.
        rows: int64 (rows,), the rows to search, rising.
    """

    kind = "exact"

    def __init__(self, embeddings: Rows, rows: Int64Array) -> None:
        self._embeddings = embeddings
        self._rows = rows

    def rows(self) -> Int64Array:
        """Return the rows to search."""
        return self._rows

    def update(self, embeddings: Rows, added: Int64Array, removed: Int64Array) -> None:
        """Change the rows to search; nothing is stored."""
        self._embeddings = embeddings
        self._rows = np.union1d(np.setdiff1d(self._rows, removed), added)

    def bring_up_to_date(self, collection: "Collection") -> Changes:
        """Do nothing: it is of the collection's own rows."""
        return Changes(0, 0, len(self._rows))

    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Nearest:
        """Find the nearest rows; `probes` has no effect."""
        count = min(count, len(self._rows))
        best = faiss.ResultHeap(len(queries), max(count, 1))
        for part, block in read_blocks(self._embeddings, self._rows):
            distances, order = faiss.knn(queries, block, min(count, len(block)))
            best.add_result(distances, part[order])
        best.finalize()
        distances, rows = best.D[:, :count], best.I[:, :count]
        return Nearest(distances_from_squared(distances, rows), rows)

    def cost(self, queries: Float32Array, *, probes: int | None = None) -> SearchCost:
        """Return the work of comparing every embedding."""
        return SearchCost(0, len(queries) * len(self._rows))

    def within(self, queries: Float32Array, radius: float) -> RowsWithin:
        """Find all rows nearer than `radius`."""
        owners, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        distances = [np.empty(0, np.float32)]
        for part, block in read_blocks(self._embeddings, self._rows):
            flat = faiss.IndexFlatL2(block.shape[1])
            flat.add(block)
            limits, squared, order = flat.range_search(queries, radius**2)
            owners.append(np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64))))
            distances.append(distances_from_squared(squared, order))
            rows.append(part[order])
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=len(queries))
        return RowsWithin(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate(distances)[order],
            np.concatenate(rows)[order],
        )
