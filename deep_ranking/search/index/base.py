"""The interface of every index, and what they share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.stored_rows import Rows, StoredRows

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.subset import Subset

ROWS_AT_ONCE = 1 << 14
"""Embeddings to read from disk at once: 256 MiB of 4096 floats."""


class SearchCost(NamedTuple):
    """The work of a search, summed over its queries.

    Attributes:
        clusters: clusters visited.
        rows: embeddings compared with the queries.
    """

    clusters: int
    rows: int


class Nearest(NamedTuple):
    """The nearest embeddings of each query.

    Attributes:
        distances: float32 (queries, count), Euclidean, rising; infinite where there is none.
        rows: int64 (queries, count), -1 where there is none.
    """

    distances: Float32Array
    rows: Int64Array


class RowsWithin(NamedTuple):
    """All embeddings within a radius of each query.

    Attributes:
        limits: int64 (queries + 1,); entries `[limits[i]:limits[i + 1]]` belong to query i.
        distances: float32 (found,), Euclidean, in no order.
        rows: int64 (found,).
    """

    limits: Int64Array
    distances: Float32Array
    rows: Int64Array


class Changes(NamedTuple):
    """How many rows an update added and removed, and how many the index held before."""

    num_added: int
    num_removed: int
    num_held: int


class IndexReader(ABC):
    """Search for the nearest embeddings, by their rows in a matrix on disk.

    Attributes:
        kind: its name in `--index`.
        num_clusters: number of its clusters; 0 for none.
    """

    kind: str
    num_clusters: int = 0

    @abstractmethod
    def rows(self) -> Int64Array:
        """Return the rows in the index, rising: int64 (rows,)."""

    @abstractmethod
    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Nearest:
        """Find the nearest rows.

        Args:
            queries: float32 (queries, dim), unit rows.
            count: how many to find, at least 1.
            probes: clusters that a query visits; None for the index's own.

        Returns:
            Up to `count` rows a query, fewer if the index has fewer.
        """

    def search_subset(
        self, queries: Float32Array, count: int, subset: "Subset", *, probes: int | None = None
    ) -> Nearest | None:
        """Find the nearest rows of a part of the collection, if the index can; None otherwise.

        A row may have images, some of which are of the class and others in the folder.
        """
        return None

    @abstractmethod
    def cost(self, queries: Float32Array, *, probes: int | None = None) -> SearchCost | None:
        """Return the work of a search without searching; None if the engine does not tell.

        Args:
            queries: float32 (queries, dim), unit rows.
            probes: as for `search`.
        """


class Index(IndexReader):
    """An index of one collection, which can be changed.

    Attributes:
        probes: clusters that a query visits by default.
    """

    probes: int = 0

    @abstractmethod
    def update(self, embeddings: Rows, added: Int64Array, removed: Int64Array) -> None:
        """Add and remove rows, and store the result.

        If it is stopped at any instant, the index holds the old rows, or lacks some of the added
        ones; `rows` tells which.

        Args:
            embeddings: float (all rows, dim), unit rows, memory-mapped.
            added: int64 (rows,) of `embeddings`, not in the index yet.
            removed: int64 (rows,), in the index.

        Raises:
            InputError: the disk is full, or the server does not answer.
        """

    def bring_up_to_date(self, collection: "Collection") -> Changes:
        """Add what the collection has and the index lacks, and remove the reverse.

        Args:
            collection: a synced one; the caller holds its lock.

        Raises:
            InputError: as `update`.
        """
        rows, held = collection.rows(), self.rows()
        added, removed = np.setdiff1d(rows, held), np.setdiff1d(held, rows)
        if len(added) or len(removed):
            self.update(collection.embeddings(), added, removed)
        return Changes(len(added), len(removed), len(held))

    @abstractmethod
    def within(self, queries: Float32Array, radius: float) -> RowsWithin:
        """Find all rows nearer than `radius` (Euclidean), including those equal to a query."""


def batches(rows: Int64Array, size: int) -> Iterator[Int64Array]:
    """Yield at most `size` rows at a time, and at least 1."""
    for begin in range(0, len(rows), max(1, size)):
        yield rows[begin : begin + max(1, size)]


def read_blocks(
    embeddings: Rows, rows: Int64Array, size: int | None = None
) -> Iterator[tuple[Int64Array, Float32Array]]:
    """Yield some rows and their embeddings, at most `size` (or `ROWS_AT_ONCE`) at a time.

    Of a large store, a block leaves the memory of the process when the next is read.
    """
    for part in batches(rows, ROWS_AT_ONCE if size is None else size):
        yield part, read_rows(embeddings, part)
        if isinstance(embeddings, StoredRows):
            embeddings.release(int(part[0]), int(part[-1]) + 1)


def read_rows(embeddings: Rows, rows: Int64Array) -> Float32Array:
    """Read some rows as float32; without a copy if they are consecutive and float32 already.

    Raises:
        InputError: a row is not there: the list of images is of another state than the embeddings.
    """
    if len(rows) and int(rows.max()) >= embeddings.shape[0]:
        raise InputError(
            f"row {int(rows.max()):,} of {embeddings.shape[0]:,} is asked for: the collection is "
            "being changed or damaged; try again, or index the images anew"
        )
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        block = embeddings[int(rows[0]) : int(rows[-1]) + 1]
    else:
        block = embeddings[rows]
    return np.ascontiguousarray(block, np.float32)


def distances_from_squared(squared: Float32Array, rows: Int64Array) -> Float32Array:
    """Return the roots of squared distances: 0 where rounding made one negative, infinite for none.

    Args:
        squared: float32, any shape.
        rows: int64, the same shape; -1 for none.
    """
    distances = np.sqrt(np.maximum(squared, 0))
    distances[rows < 0] = np.inf
    return distances
