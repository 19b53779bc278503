"""The indexes of all shards, asked at once, their answers merged by distance."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import faiss
import numpy as np

from deep_ranking.files.array_types import Float32Array, Float64Array, Int64Array
from deep_ranking.metrics import pair_distances
from deep_ranking.search.collection.searchable import ShardError
from deep_ranking.search.index.base import Index, IndexReader, Nearest, SearchCost, read_rows
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.index.kinds import MILVUS
from deep_ranking.search.shards.shard import Shard
from deep_ranking.search.subset import Subset

if TYPE_CHECKING:
    from deep_ranking.search.shards.opening import Shards

T = TypeVar("T")
MOST_THREADS = 32
KIND = "shards"


class _Measured(NamedTuple):
    """The rows that a shard found for each query: distances (queries, found), infinite for none."""

    distances: Float64Array
    rows: Int64Array


class ShardedIndex(IndexReader):
    """The indexes of several shards, each searched on a thread of its own.

    Each shard is asked for as many rows as are wanted in all. The distances are then measured anew
    from the embeddings, in double precision: what indexes of different kinds say is rounded
    differently, or, of compressed rows, a guess. Rows that are equally far are in the order of the
    shards, then of their numbers.

    Args:
        shards: the shards; they decide whether one that fails is left out.

    Attributes:
        kind: that of all shards if it is exact in each, so that all rows are compared.

    Raises:
        ShardError: an index cannot be opened, and is not to be left out.
    """

    def __init__(self, shards: "Shards") -> None:
        self._shards = shards
        count, cores = len(shards.there()), os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(
            min(MOST_THREADS, count),
            "shard",
            initializer=faiss.omp_set_num_threads,  # of that thread alone
            initargs=(max(1, cores // count),),
        )
        self._indexes: dict[int, Index] = self._of_each(Shard.open_index)
        self.num_clusters = sum(each.num_clusters for each in self._indexes.values())
        is_exact = all(each.kind == ExactIndex.kind for each in self._indexes.values())
        self.kind = ExactIndex.kind if is_exact else KIND

    def rows(self) -> Int64Array:
        """Return the rows in all indexes."""
        found = self._of_each(lambda shard: shard.first_row + self._index(shard).rows())
        return np.concatenate([np.empty(0, np.int64), *found.values()])

    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Nearest:
        """Find the nearest rows of all shards.

        Raises:
            ShardError: one of them cannot be searched, and is not to be left out.
        """

        def of_shard(shard: Shard) -> _Measured:
            found = self._index(shard).search(queries, count, probes=probes)
            if not found.rows.shape[1] and len(shard.collection.rows()):
                raise shard.place.failure("its index is empty; run `index` on it again")
            return _measured(shard, queries, found)

        return _merged(list(self._of_each(of_shard).values()), count)

    def search_subset(
        self, queries: Float32Array, count: int, subset: Subset, *, probes: int | None = None
    ) -> Nearest | None:
        """Find the nearest rows of a part of the shards, if the index of any of them can.

        Of a shard whose index cannot, the rows of the part are compared one by one.

        Raises:
            ShardError: one of them cannot be searched, and is not to be left out.
        """

        def by_index(shard: Shard) -> Nearest | None:
            own = shard.inner_subset(subset)
            if own is None:
                return None
            index = self._index(shard)
            if index.kind == MILVUS and own == Subset():  # all of its images belong to the part
                return index.search(queries, count, probes=probes)
            return index.search_subset(queries, count, own, probes=probes)

        by_server = self._of_each(by_index)
        if all(found is None for found in by_server.values()):
            return None

        def of_shard(shard: Shard) -> _Measured:
            found = by_server.get(shard.place.number)
            if found is None:
                compared = ExactIndex(shard.embeddings, shard.rows_of(subset))
                found = compared.search(queries, count)
            return _measured(shard, queries, found)

        return _merged(list(self._of_each(of_shard).values()), count)

    def cost(self, queries: Float32Array, *, probes: int | None = None) -> SearchCost | None:
        """Return the work of all shards; None if one does not tell."""
        costs = self._of_each(
            lambda shard: self._index(shard).cost(queries, probes=probes)
        ).values()
        known = [each for each in costs if each is not None]
        if len(known) < len(costs):
            return None
        return SearchCost(sum(each.clusters for each in known), sum(each.rows for each in known))

    def _index(self, shard: Shard) -> Index:
        return self._indexes[shard.place.number]

    def _of_each(self, work: Callable[[Shard], T]) -> dict[int, T]:
        """Return what a function returns of each shard that is there, by number, all at once.

        Raises:
            ShardError: it fails for one that is not to be left out.
        """

        def named(shard: Shard) -> T:
            with shard.place.named_in_errors():
                return work(shard)

        answers: dict[int, T] = {}
        futures = [(shard, self._pool.submit(named, shard)) for shard in self._shards.there()]
        for shard, future in futures:
            try:
                answers[shard.place.number] = future.result()
            except ShardError as error:
                self._shards.leave_out(error)
        return answers


def _merged(found: list[_Measured], count: int) -> Nearest:
    distances = np.concatenate([each.distances for each in found], axis=1)
    rows = np.concatenate([each.rows for each in found], axis=1)
    order = np.lexsort((rows, distances))[:, :count]
    nearest = np.take_along_axis(distances, order, axis=1).astype(np.float32)
    return Nearest(nearest, np.take_along_axis(rows, order, axis=1))


def _measured(shard: Shard, queries: Float32Array, nearest: Nearest) -> _Measured:
    """Measure what an index found from the rows themselves, and number it among all shards."""
    # An index on a server may know rows that were added since the shard was opened.
    found = (nearest.rows >= 0) & (nearest.rows < len(shard.embeddings))
    owners, places = np.nonzero(found)
    own = nearest.rows[owners, places]
    distances = np.full(nearest.rows.shape, np.inf)
    different, which = np.unique(own, return_inverse=True)
    rows = read_rows(shard.embeddings, different)
    distances[found] = pair_distances(queries, rows, owners, which)
    return _Measured(distances, np.where(found, shard.first_row + nearest.rows, -1))
