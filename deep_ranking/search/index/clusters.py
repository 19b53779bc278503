"""Cluster-pruned search: k-means means, the closest clusters first, their members compared.

This is the article's advice for large collections. faiss keeps the members of each cluster next to
each other in one file, which is mapped into memory: opening it reads nothing. The file ends with
the kind of the index and the number of bytes before, and all of its sizes are checked before faiss
opens it (`cluster_file`): faiss itself crashes on one that is cut off, or lies.
"""

import math
import os
import struct
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np

from deep_ranking.files import InputError, atomic_path, open_regular
from deep_ranking.files.array_types import Float32Array, FloatArray, Int64Array
from deep_ranking.search.index.base import (
    ROWS_AT_ONCE,
    Cost,
    Found,
    Index,
    Within,
    distances_of,
    read_rows,
)
from deep_ranking.search.index.cluster_file import check_layout

# k-means needs so many members a cluster to place its mean, and gains nothing beyond (faiss).
LEAST_MEMBERS, MOST_MEMBERS = 39, 256
NUM_ITERATIONS = 10
# Once a collection would get so many times the clusters that it has, it is clustered anew.
OUTGROWN = 2
ENDING = struct.Struct("<16sQ")


class ClusterIndex(Index):
    """Clusters by k-means; a query visits those whose means are nearest.

    Args:
        file: of the index; there if it was built.
        num_clusters: how many to make; 0 for 4 times the root of the number of embeddings.
        probes: clusters visited by each query.

    Raises:
        InputError: the file is cut off or damaged.
    """

    kind = "clusters"
    clusters_by_root: ClassVar[int] = 4

    def __init__(self, file: Path, *, num_clusters: int = 0, probes: int = 1) -> None:
        self._file = file
        self._wanted = num_clusters
        self._index: Any = None
        self._sizes = np.empty(0, np.int64)
        self.probes = probes
        if file.exists():
            self._open()

    def _open(self) -> None:
        self._index = self._read(faiss.IO_FLAG_MMAP_IFC)
        self.num_clusters = self._index.nlist
        lists = self._index.invlists
        self._sizes = np.array([lists.list_size(number) for number in range(lists.nlist)], int)

    @property
    def dimension(self) -> int | None:
        """Numbers of an embedding; None if it was not built yet."""
        return None if self._index is None else int(self._index.d)

    def rows(self) -> Int64Array:
        """Give the rows that the clusters hold."""
        if self._index is None:
            return np.empty(0, np.int64)
        lists = self._index.invlists
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(number), int(size)).astype(np.int64)
            for number, size in enumerate(self._sizes)
            if size
        ]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def update(self, embeddings: FloatArray, added: Int64Array, removed: Int64Array) -> None:
        """Add to the nearest clusters, and remove; cluster anew what has outgrown its clusters."""
        rows = np.union1d(np.setdiff1d(self.rows(), removed), added)
        if self._index is None and not len(rows):
            return
        outgrown = self._num_clusters_for(len(rows)) >= OUTGROWN * self.num_clusters
        if self._index is None or outgrown:
            index = self._train(embeddings, rows)
            added = rows
        else:
            index = self._read(0)
            if len(removed):
                index.remove_ids(removed)
        for begin in range(0, len(added), ROWS_AT_ONCE):
            part = added[begin : begin + ROWS_AT_ONCE]
            index.add_with_ids(read_rows(embeddings, part), part)
        self._write(index)

    def rebuild(self, embeddings: FloatArray) -> None:
        """Cluster anew."""
        rows, self._index = self.rows(), None
        self.update(embeddings, rows, np.empty(0, np.int64))

    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Found:
        """Find the nearest rows among the members of the nearest clusters."""
        if self._index is None or not self._index.ntotal:
            return Found(*(np.empty((len(queries), 0), dtype) for dtype in (np.float32, np.int64)))
        self._prepare(probes)
        squared, rows = self._index.search(queries, min(count, self._index.ntotal))
        return Found(distances_of(squared, rows), rows)

    def cost(self, queries: Float32Array, *, probes: int | None = None) -> Cost:
        """Tell how many clusters are visited, and how many members these have."""
        if self._index is None:
            return Cost(0, 0)
        _, clusters = self._index.quantizer.search(queries, self._prepare(probes))
        visited = clusters[clusters >= 0]
        return Cost(len(visited), int(self._sizes[visited].sum()))

    def within(self, queries: Float32Array, radius: float) -> Within:
        """Find all rows nearer than `radius` in the nearest clusters."""
        if self._index is None:
            nothing = np.zeros(len(queries) + 1, np.int64)
            return Within(nothing, np.empty(0, np.float32), np.empty(0, np.int64))
        self._prepare(None)
        limits, squared, rows = self._index.range_search(queries, radius**2)
        return Within(limits.astype(np.int64), distances_of(squared, rows), rows)

    def _prepare(self, probes: int | None) -> int:
        """Set how many clusters are visited; give their number."""
        probes = min(probes or self.probes, self.num_clusters)
        self._index.nprobe = probes
        return probes

    def _num_clusters_for(self, num_rows: int) -> int:
        """How many clusters so many embeddings should have."""
        wanted = self._wanted or round(self.clusters_by_root * math.sqrt(num_rows))
        return max(1, min(wanted, num_rows // LEAST_MEMBERS))

    def _train(self, embeddings: FloatArray, rows: Int64Array) -> Any:
        """Find the means of some of the embeddings; an index without members."""
        num_clusters = self._num_clusters_for(len(rows))
        sample = read_rows(embeddings, _some(rows, MOST_MEMBERS * num_clusters))
        return _inverted(self._quantizer(sample, num_clusters))

    def _quantizer(self, sample: Float32Array, num_clusters: int) -> Any:
        return _flat(_means(sample, num_clusters))

    def _write(self, index: Any) -> None:
        try:
            with atomic_path(self._file) as temporary:
                faiss.write_index(index, str(temporary))
                with temporary.open("ab") as handle:
                    handle.write(ENDING.pack(self.kind.encode(), handle.tell()))
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self._file}: cannot be written ({reason})") from None
        self._open()

    def _read(self, flags: int) -> Any:
        refused = InputError(
            f"{self._file}: cut off, damaged, or no index of kind {self.kind}; remove it and run "
            "`index` again, which embeds nothing anew"
        )
        try:
            with open_regular(self._file) as handle:
                size = max(0, handle.seek(0, os.SEEK_END) - ENDING.size)
                handle.seek(size)
                if handle.read() != ENDING.pack(self.kind.encode(), size):
                    raise refused
                handle.seek(0)
                check_layout(handle, size)
            index = faiss.read_index(str(self._file), flags)
        except (RuntimeError, OSError, InputError):
            raise refused from None
        if not isinstance(index, faiss.IndexIVFFlat):
            raise refused
        return index


class HierarchyIndex(ClusterIndex):
    """Clusters of clusters: the means are themselves found by the nearest means of theirs.

    For sizes at which comparing a query with all means would take longer than with the members: so
    there are more and smaller clusters.
    """

    kind = "hierarchy"
    clusters_by_root = 16

    def _quantizer(self, sample: Float32Array, num_clusters: int) -> Any:
        """Means of means: k-means of the whole, then of each part by its size."""
        num_tops = round(math.sqrt(num_clusters))
        tops = _means(sample, num_tops)
        upper = _flat(tops)
        _, owners = upper.search(sample, 1)
        means = []
        for top in range(num_tops):
            members = sample[owners[:, 0] == top]
            share = num_clusters * len(members) / len(sample)
            most = max(1, len(members) // LEAST_MEMBERS)
            if len(members):
                means.append(_means(members, max(1, min(round(share), most))))
        while True:
            lower = _inverted(_flat(tops))
            lower.add(np.concatenate(means))
            sizes = [lower.invlists.list_size(part) for part in range(lower.nlist)]
            if all(sizes):
                return lower
            tops = tops[np.array(sizes) > 0]  # what came to a part without means would be lost

    def _prepare(self, probes: int | None) -> int:
        """Visit so many parts that they have several times the means that are asked for."""
        probes = super()._prepare(probes)
        upper: Any = faiss.downcast_index(self._index.quantizer)
        share = probes / self.num_clusters
        upper.nprobe = min(upper.nlist, max(4, math.ceil(4 * share * upper.nlist)))
        return probes


def _means(sample: Float32Array, count: int) -> Float32Array:
    kmeans = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=NUM_ITERATIONS,
        seed=0,
        max_points_per_centroid=MOST_MEMBERS,
        min_points_per_centroid=1,
    )
    kmeans.train(sample)
    return np.asarray(kmeans.centroids, np.float32)


def _flat(means: Float32Array) -> Any:
    index = faiss.IndexFlatL2(means.shape[1])
    index.add(means)
    return index


def _inverted(quantizer: Any) -> Any:
    """Index whose clusters are what `quantizer` holds; it keeps the quantizer."""
    index = faiss.IndexIVFFlat(quantizer, quantizer.d, quantizer.ntotal)
    index.own_fields = True
    quantizer.this.disown()
    index.is_trained = True
    return index


def _some(rows: Int64Array, most: int) -> Int64Array:
    """At most so many of the rows, rising, the same each time."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
