"""Search in k-means clusters: compare a query only with members of the clusters nearest to it.

This is the article's advice for large collections. faiss stores the members of each cluster next to
each other in one file. The file is memory-mapped, so opening it reads little. It ends with its
checksums, the kind of the index and the number of bytes of the index. `cluster_file` checks all
sizes before faiss opens the file, because faiss crashes on a file that is cut off or states wrong
sizes.
"""

import math
import os
import struct
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np

from deep_ranking.files import InputError, atomic_path, open_regular
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.search.index.base import (
    Index,
    Nearest,
    RowsWithin,
    SearchCost,
    distances_from_squared,
    read_blocks,
    read_rows,
)
from deep_ranking.search.index.cluster_file import check_layout
from deep_ranking.search.index.file_checksums import (
    CheckedParts,
    checksums_bytes,
    part_checksums,
)

# Members of a cluster that k-means needs to place its mean, and beyond which it gains nothing
# (faiss's own limits).
LEAST_MEMBERS, MOST_MEMBERS = 39, 256
NUM_ITERATIONS = 10
# Recluster once a collection should have this many times its number of clusters.
RECLUSTER_FACTOR = 2
ENDING = struct.Struct("<16sQ")
NUMBER_BYTES = 8  # of the number of a member, which follows the vectors of its cluster
MAX_TRIES = 10  # to read a file that is replaced meanwhile
REMEDY = "remove it and run `index` again, which only rebuilds this file"


class ClusterIndex(Index):
    """Clusters by k-means; a query visits those with the nearest means.

    Args:
        file: the index file; it need not exist yet.
        num_clusters: clusters to make; 0 for 4 times the root of the number of embeddings.
        probes: clusters that a query visits.

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
        self._members_begin = 0
        self._parts: CheckedParts | None = None
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
        """Length of an embedding; None if the index is not built yet."""
        return None if self._index is None else int(self._index.d)

    def rows(self) -> Int64Array:
        """Return the rows in the clusters."""
        if self._index is None:
            return np.empty(0, np.int64)
        lists = self._index.invlists
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(number), int(size)).astype(np.int64)
            for number, size in enumerate(self._sizes)
            if size
        ]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def update(self, embeddings: Rows, added: Int64Array, removed: Int64Array) -> None:
        """Add rows to the nearest clusters and remove others; recluster after much growth."""
        rows = np.union1d(np.setdiff1d(self.rows(), removed), added)
        if self._index is None and not len(rows):
            return
        wanted = self._wanted or round(self.clusters_by_root * math.sqrt(len(rows)))
        num_clusters = max(1, min(wanted, len(rows) // LEAST_MEMBERS))
        if self._index is None or num_clusters >= RECLUSTER_FACTOR * self.num_clusters:
            size = min(len(rows), MOST_MEMBERS * num_clusters)
            sample = np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
            index = _inverted(self._quantizer(read_rows(embeddings, sample), num_clusters))
            added = rows
        else:
            index = self._read(0)
            if len(removed):
                index.remove_ids(removed)
        for part, block in read_blocks(embeddings, added):
            index.add_with_ids(block, part)
        self._write(index)

    def rebuild(self, embeddings: Rows) -> None:
        """Recluster all rows."""
        rows, self._index = self.rows(), None
        self.update(embeddings, rows, np.empty(0, np.int64))

    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Nearest:
        """Find the nearest rows among the members of the nearest clusters."""
        if self._index is None or not self._index.ntotal:
            shape = (len(queries), 0)
            return Nearest(np.empty(shape, np.float32), np.empty(shape, np.int64))
        self._prepare(queries, probes)
        squared, rows = self._index.search(queries, min(count, self._index.ntotal))
        return Nearest(distances_from_squared(squared, rows), rows)

    def cost(self, queries: Float32Array, *, probes: int | None = None) -> SearchCost:
        """Return how many clusters the queries visit, and how many members these have."""
        if self._index is None:
            return SearchCost(0, 0)
        visited = self._visited(queries, probes)
        return SearchCost(len(visited), int(self._sizes[visited].sum()))

    def within(self, queries: Float32Array, radius: float) -> RowsWithin:
        """Find all rows nearer than `radius` in the clusters that each query visits."""
        if self._index is None:
            nothing = np.zeros(len(queries) + 1, np.int64)
            return RowsWithin(nothing, np.empty(0, np.float32), np.empty(0, np.int64))
        self._prepare(queries, None)
        limits, squared, rows = self._index.range_search(queries, radius**2)
        return RowsWithin(limits.astype(np.int64), distances_from_squared(squared, rows), rows)

    def _set_probes(self, probes: int | None) -> int:
        """Set how many clusters a query visits; return the number."""
        probes = min(probes or self.probes, self.num_clusters)
        self._index.nprobe = probes
        return probes

    def _visited(self, queries: Float32Array, probes: int | None) -> Int64Array:
        """Return the clusters that the queries visit, one query after the other."""
        _, clusters = self._index.quantizer.search(queries, self._set_probes(probes))
        visited: Int64Array = clusters[clusters >= 0]
        return visited

    def _prepare(self, queries: Float32Array, probes: int | None) -> None:
        """Set how many clusters a query visits, and check the members of those visited."""
        self._set_probes(probes)
        if self._parts is None or self._parts.are_checked:
            return
        visited = np.unique(self._visited(queries, probes))
        ends = self._members_begin + np.cumsum(self._sizes * (4 * self._index.d + NUMBER_BYTES))
        begins = np.concatenate([[self._members_begin], ends[:-1]])
        if not self._parts.are_whole(begins[visited], ends[visited]):
            raise InputError(
                f"{self._file}: damaged: some of it is not what was written, by its checksum; "
                f"{REMEDY}"
            )

    def _quantizer(self, sample: Float32Array, num_clusters: int) -> Any:
        return _flat(_means(sample, num_clusters))

    def _write(self, index: Any) -> None:
        try:
            with atomic_path(self._file) as temporary:
                faiss.write_index(index, str(temporary))
                checksums = part_checksums(temporary)
                with temporary.open("ab") as handle:
                    size = handle.tell()
                    handle.write(checksums)
                    handle.write(ENDING.pack(self.kind.encode(), size))
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self._file}: cannot be written ({reason})") from None
        self._open()

    def _read(self, flags: int) -> Any:
        for _ in range(MAX_TRIES):
            index = self._read_unless_replaced(flags)
            if index is not None:
                return index
        raise InputError(
            f"{self._file}: replaced {MAX_TRIES} times while it was read; try again later"
        )

    def _read_unless_replaced(self, flags: int) -> Any:
        """Check and read the index; return None if another process replaced the file meanwhile."""
        refused = InputError(
            f"{self._file}: cut off, damaged, or no index of kind {self.kind}; {REMEDY}"
        )
        try:
            with open_regular(self._file) as handle:
                total = max(0, handle.seek(0, os.SEEK_END) - ENDING.size)
                handle.seek(total)
                kind, size = ENDING.unpack(handle.read())
                has_checksums = size + checksums_bytes(size) == total
                if kind.rstrip(b"\0") != self.kind.encode() or not (size == total or has_checksums):
                    raise refused
                handle.seek(0)
                self._members_begin = check_layout(handle, size)
                # Earlier versions wrote no checksums.
                self._parts = CheckedParts(handle, size) if has_checksums else None
                # What precedes the members is read at every search; without a mapping, all is read.
                end = np.array([self._members_begin if flags else size])
                if self._parts is not None and not self._parts.are_whole(np.array([0]), end):
                    raise refused
                index = faiss.read_index(str(self._file), flags)
                # faiss opens the path by itself, so it may have read another file than was checked.
                if not os.path.samestat(os.fstat(handle.fileno()), self._file.stat()):
                    return None
        except (RuntimeError, OSError, ValueError, struct.error):
            raise refused from None
        if not isinstance(index, faiss.IndexIVFFlat):
            raise refused
        return index


class HierarchyIndex(ClusterIndex):
    """Clusters of clusters: a query finds the nearest means through the nearest means of those.

    For collections so large that comparing a query with all means would take longer than with the
    members. It makes more and smaller clusters.
    """

    kind = "hierarchy"
    clusters_by_root = 16

    def _quantizer(self, sample: Float32Array, num_clusters: int) -> Any:
        """Cluster the sample, then split each cluster in proportion to its size."""
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
            tops = tops[np.array(sizes) > 0]  # rows assigned to a part without means would be lost

    def _set_probes(self, probes: int | None) -> int:
        """Visit enough parts to compare several times the means that the query asks for."""
        probes = super()._set_probes(probes)
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
    """Return an empty index with a cluster for each mean in `quantizer`, which it then owns."""
    index = faiss.IndexIVFFlat(quantizer, quantizer.d, quantizer.ntotal)
    index.own_fields = True
    quantizer.this.disown()
    index.is_trained = True
    return index
