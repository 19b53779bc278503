"""What every index can do, whatever it is built on."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from deep_ranking.files.array_types import Float32Array, FloatArray, Int64Array

ROWS_AT_ONCE = 1 << 14
"""Embeddings that are read from the disk at once: 256 MiB of 4096 floats."""


class SearchCost(NamedTuple):
    """What searches take, summed over their queries.

    Attributes:
        clusters: clusters that are visited.
        rows: embeddings that the queries are compared with.
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
    """All embeddings that are near each query.

    Attributes:
        limits: int64 (queries + 1,); what query i found is `[limits[i]:limits[i + 1]]` of the rest.
        distances: float32 (found,), Euclidean, in no order.
        rows: int64 (found,).
    """

    limits: Int64Array
    distances: Float32Array
    rows: Int64Array


class Index(ABC):
    """Nearest embeddings, by their rows in a matrix on disk.

    Attributes:
        kind: what `--index` calls it.
        num_clusters: clusters that it has; 0 for none.
        probes: clusters visited by each query, if nothing else is asked for.
    """

    kind: ClassVar[str]
    num_clusters: int = 0
    probes: int = 0

    @abstractmethod
    def rows(self) -> Int64Array:
        """Give the rows that it holds, rising: int64 (rows,)."""

    @abstractmethod
    def update(self, embeddings: FloatArray, added: Int64Array, removed: Int64Array) -> None:
        """Add and remove rows, and keep the result.

        Stopped at any instant, what was kept before is there, or rows that were not yet added are
        missing: `rows` tells.

        Args:
            embeddings: float (all rows, dim), unit rows, memory-mapped.
            added: int64 (rows,) of `embeddings`, not held yet.
            removed: int64 (rows,), held.

        Raises:
            InputError: the disk is full, or the engine cannot be reached.
        """

    @abstractmethod
    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Nearest:
        """Find the nearest rows.

        Args:
            queries: float32 (queries, dim), unit rows.
            count: how many to find, at least 1.
            probes: clusters to visit a query; None for the index's own.

        Returns:
            As many as there are up to `count`.
        """

    @abstractmethod
    def cost(self, queries: Float32Array, *, probes: int | None = None) -> SearchCost | None:
        """Tell what searches take, without searching; None where the engine does not say.

        Args:
            queries: float32 (queries, dim), unit rows.
            probes: as for `search`.
        """

    @abstractmethod
    def within(self, queries: Float32Array, radius: float) -> RowsWithin:
        """Find all rows that are nearer than `radius` (Euclidean), those equal to a query too."""


def read_rows(embeddings: FloatArray, rows: Int64Array) -> Float32Array:
    """Read some rows as float32, those that follow each other without a copy where possible."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        block = embeddings[int(rows[0]) : int(rows[-1]) + 1]
    else:
        block = embeddings[rows]
    return np.ascontiguousarray(block, np.float32)


def distances_from_squared(squared: Float32Array, rows: Int64Array) -> Float32Array:
    """Give distances of squared ones, which rounding may have made negative; infinite for none."""
    distances = np.sqrt(np.maximum(squared, 0))
    distances[rows < 0] = np.inf
    return distances
