"""The hits of queries in a collection, by its plain or its smoothed rows, ranked again or not."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Float64Array, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.metrics import pair_distances
from deep_ranking.search.collection import Collection, GalleryImage
from deep_ranking.search.collection.searchable import Searchable
from deep_ranking.search.index.base import IndexReader, read_rows
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.reranking import (
    NUM_RERANKED,
    expanded,
    reciprocal_distances,
    reranking_in_words,
)
from deep_ranking.search.results import Hit
from deep_ranking.search.smoothed_collection import open_smoothed_index
from deep_ranking.search.smoothed_rows import SmoothedRows, smoothed_rows_of
from deep_ranking.search.smoothing import SAME_CONTENT, smoothed_query, smoothing_in_words
from deep_ranking.search.subset import Subset

MOST_COMPARED = 100_000
"""Embeddings of a class or folder that are compared one by one, whatever the index."""

DEEPEST = 16_384
"""Results that an index is asked for, for those of a class or folder among them: Milvus' limit."""


class Ranker:
    """Ranks the images of a collection by the rows of its index.

    Args:
        collection: the collection.
        index: an index of the rows to rank; None to open the collection's own.
        smooth: whether to rank by the smoothed rows; None to do so if the collection has them and
            no other index is given.

    Attributes:
        collection: as given.
        index: the index.
        embeddings: the plain rows, opened once: the first reading checks them.

    Raises:
        InputError: the index is damaged, its server does not answer, or the collection has no
            smoothed rows.
    """

    def __init__(
        self,
        collection: Searchable,
        index: IndexReader | None = None,
        *,
        smooth: bool | None = None,
    ) -> None:
        self.collection = collection
        self.embeddings = collection.embeddings()
        if smooth is None:
            smooth = index is None and collection.settings.smoothing is not None
        self._smoothed: SmoothedRows | None = None
        self.index: IndexReader
        if not smooth:
            self.index = collection.open_index() if index is None else index
        elif isinstance(collection, Collection):
            self._smoothed = smoothed_rows_of(collection)
            if index is None:
                index = open_smoothed_index(collection, self._smoothed)
            self.index = index
        else:
            raise InputError(
                f"{collection.folder}: no smoothed rows: each of the shards knows its own "
                "neighbours alone; leave out --smooth, or join the shards by `merge`"
            )

    @property
    def is_smoothed(self) -> bool:
        """Whether it ranks by smoothed rows."""
        return self._smoothed is not None

    @property
    def num_neighbours(self) -> int:
        """K of the smoothed rows; 0 for plain ones."""
        return 0 if self._smoothed is None else self._smoothed.num_neighbours

    def in_words(self, *, rerank: bool = False) -> str:
        """Return how results are ranked, in a line; "" if by the distances that are shown."""
        again = reranking_in_words(of_smoothed_rows=self.is_smoothed)
        if self._smoothed is None:
            return f"Ranked by --rerank, not by the distances shown: {again}." if rerank else ""
        how = smoothing_in_words(self._smoothed.num_neighbours, self._smoothed.power)
        if rerank:
            return f"Ranked by smoothed rows ({how}), {again}; --no-smooth takes the plain rows."
        return f"Ranked by smoothed rows ({how}); --no-smooth ranks by the distances shown."

    @property
    def _ranked(self) -> Rows:
        """The rows that the index has: smoothed or plain."""
        return self.embeddings if self._smoothed is None else self._smoothed.rows

    def exact_index(self) -> ExactIndex:
        """Return an index that compares all rows that are ranked."""
        rows = self.collection.rows() if self._smoothed is None else self._smoothed.in_use()
        return ExactIndex(self._ranked, rows)

    def hits(
        self,
        queries: Float32Array,
        count: int,
        probes: int | None,
        subset: Subset | None = None,
        *,
        rerank: bool = False,
        around: Sequence[Sequence[Hit]] | None = None,
    ) -> list[list[Hit]]:
        """Return the hits of each query, best first: all images of `count` or more rows.

        Args:
            queries: float32 (queries, dim), unit rows.
            count: how many rows to find; all if there are fewer.
            probes: clusters that a query visits; None for the index's own.
            subset: the images to find; None for all.
            rerank: whether to rank them again.
            around: the hits of each query among the plain rows, if they are known, K or more of
                them: by these it is smoothed.
        """
        width = max(count, NUM_RERANKED) if rerank else count
        moved = queries
        if self._smoothed is not None:
            if around is None:
                nearest = self._plain_index.search(queries, self.num_neighbours, probes=probes).rows
            else:
                nearest = np.stack([self._first_rows(found) for found in around])
            moved = _moved(queries, nearest, self.embeddings, self._smoothed_query)
        if rerank:
            nearest, _ = self._nearest(moved, width, probes, subset)
            moved = _moved(moved, nearest, self._ranked, expanded)
        nearest, known = self._nearest(moved, width, probes, subset)
        found = []
        for query, moved_query, numbers in zip(queries, moved, nearest, strict=True):
            rows = np.array([row for row in numbers.tolist() if row in known], np.int64)
            distances = _distances(query, self.embeddings, rows)
            ranked_by = _distances(moved_query, self._ranked, rows)
            smoothed: list[float | None] = [None] * len(rows)
            if self._smoothed is not None:
                smoothed = list(map(float, ranked_by))
            elif rerank:
                ranked_by = self._by_common_neighbours(moved_query, rows, ranked_by)
            measured = zip(
                ranked_by.tolist(), distances.tolist(), smoothed, rows.tolist(), strict=True
            )
            found.append(
                sorted(
                    Hit(by, image.path, image.label, distance, row, smoothed_distance)
                    for by, distance, smoothed_distance, row in measured
                    for image in known[row]
                )
            )
        return found

    def _first_rows(self, hits: Sequence[Hit]) -> Int64Array:
        """Return the first K rows of some hits, each once, -1 for none: int64 (K,)."""
        rows = list(dict.fromkeys(hit.row for hit in hits))[: self.num_neighbours]
        return np.array(rows + [-1] * (self.num_neighbours - len(rows)), np.int64)

    def _smoothed_query(self, query: Float32Array, nearest: Float32Array) -> Float32Array:
        """Return a query, smoothed over its K nearest rows: itself and K - 1 others."""
        assert self._smoothed is not None
        itself = len(nearest) and np.linalg.norm(nearest[0] - query) < SAME_CONTENT
        others = nearest if itself else nearest[: self.num_neighbours - 1]
        return smoothed_query(query, others, self._smoothed.power)

    @cached_property
    def _plain_index(self) -> IndexReader:
        """The index of the plain rows, by which queries are smoothed."""
        if self.index.kind == ExactIndex.kind:
            return ExactIndex(self.embeddings, self.collection.rows())
        return self.collection.open_index()

    def _by_common_neighbours(
        self, query: Float32Array, rows: Int64Array, distances: Float64Array
    ) -> Float64Array:
        """Return what ranks some rows: of the first 200 the new distance, then the others."""
        first = np.argsort(distances, kind="stable")[:NUM_RERANKED]
        distances = distances + 2  # more than any new distance
        if len(first):
            with threadpool_limits(1):  # the matrices are small, and threads wait for each other
                nearest = read_rows(self._ranked, rows[first])
                distances[first] = reciprocal_distances(query, nearest)
        return distances

    def _nearest_of_subset(
        self, queries: Float32Array, count: int, probes: int | None, subset: Subset
    ) -> tuple[Int64Array, dict[int, list[GalleryImage]]]:
        """Return what `_nearest` does, of a part of the collection."""
        if self._smoothed is None:
            found = self._nearest_by_server(queries, count, probes, subset)
            if found is not None:
                return found
        with closing(self.collection.images()) as table:
            labels = None if subset.labels is None else sorted(subset.labels)
            allowed = self._rankable(table.rows_of(labels, subset.folder))
            wanted = count
            while True:
                rows = None
                if self.index.kind != ExactIndex.kind and len(allowed) > MOST_COMPARED:
                    rows = self._search_deeper(queries, wanted, probes, allowed)
                if rows is None:
                    rows = ExactIndex(self._ranked, allowed).search(queries, wanted).rows
                known = {
                    row: list(filter(subset.has, images))
                    for row, images in table.of_rows(np.unique(rows[rows >= 0]).tolist()).items()
                }
                once, known = _each_content_once(rows, known)
                repeated = ((rows >= 0) & (once < 0)).sum(axis=1)
                if rows.shape[1] < wanted or (repeated <= wanted - count).all():
                    return once, known
                wanted = max(2 * wanted, count + int(repeated.max()))

    def _nearest_by_server(
        self, queries: Float32Array, count: int, probes: int | None, subset: Subset
    ) -> tuple[Int64Array, dict[int, list[GalleryImage]]] | None:
        """Let the index find the rows of a part of the collection; None if it cannot.

        It may find rows of which one image is of the class and another in the folder, and rows
        whose images are gone: then it is asked for more.
        """
        wanted = count
        while wanted <= DEEPEST:
            nearest = self.index.search_subset(queries, wanted, subset, probes=probes)
            if nearest is None:
                return None
            rows = nearest.rows
            with closing(self.collection.images()) as table:
                known = table.of_rows(np.unique(rows[rows >= 0]).tolist())
            of_subset = {row: list(filter(subset.has, images)) for row, images in known.items()}
            once, of_subset = _each_content_once(rows, of_subset)
            if rows.shape[1] < wanted or ((once >= 0).sum(axis=1) >= count).all():
                return once, of_subset
            wanted *= 4
        return None

    def _rankable(self, rows: Int64Array) -> Int64Array:
        """Return those of some rows that can be ranked.

        If an update was stopped, some rows of the collection are not smoothed yet.
        """
        return rows if self._smoothed is None else self._smoothed.those_in_use(rows)

    def _search_deeper(
        self, queries: Float32Array, count: int, probes: int | None, allowed: Int64Array
    ) -> Int64Array | None:
        """Search the index until each query has `count` of the allowed rows; None if it cannot."""
        wanted = count
        while wanted <= DEEPEST:
            rows = self.index.search(queries, wanted, probes=probes).rows
            rows = np.where(np.isin(rows, allowed), rows, -1)
            if ((rows >= 0).sum(axis=1) >= count).all():
                return rows
            if rows.shape[1] < wanted:
                break
            wanted *= 4
        return None

    def _nearest(
        self, queries: Float32Array, count: int, probes: int | None, subset: Subset | None
    ) -> tuple[Int64Array, dict[int, list[GalleryImage]]]:
        """Return the rows of the nearest embeddings (queries, found), and the images of each row.

        The index may still have rows whose images are gone, if a sync was stopped. Then search for
        more, until each query has `count` rows with images or there are no more.
        """
        if subset is not None:
            return self._nearest_of_subset(queries, count, probes, subset)
        wanted = count
        while True:
            found = self.index.search(queries, wanted, probes=probes).rows
            if not found.shape[1] and len(self.collection.rows()):
                folder = self.collection.folder
                raise InputError(f"{folder}: its index is empty; run index --output {folder} again")
            with closing(self.collection.images()) as images:
                known = images.of_rows(self._rankable(np.unique(found[found >= 0])).tolist())
            rows, known = _each_content_once(found, known)
            gone = ((found >= 0) & (rows < 0)).sum(axis=1)
            if found.shape[1] < wanted or (gone <= wanted - count).all():
                return rows, known
            wanted = max(2 * wanted, count + int(gone.max()))


def _each_content_once(
    rows: Int64Array, known: Mapping[int, list[GalleryImage]]
) -> tuple[Int64Array, dict[int, list[GalleryImage]]]:
    """Return the first row of each content, and -1 in place of others and of those without images.

    Several shards may have a row each of one content. Their images name one row for all of them.

    Args:
        rows: int64 (queries, found), -1 for none.
        known: the images of each row, for rows that have any.

    Returns:
        int64 (queries, found), of rows that the images name; and the images of these.
    """
    named = {row: images[0].row for row, images in known.items() if images}
    once = np.full_like(rows, -1)
    for query, of_query in enumerate(rows.tolist()):
        seen = set()
        for place, row in enumerate(of_query):
            name = named.get(row)
            if name is not None and name not in seen:
                once[query, place] = name
                seen.add(name)
    return once, {name: known[row] for row, name in named.items()}


def _moved(
    queries: Float32Array,
    nearest: Int64Array,
    rows: Rows,
    move: Callable[[Float32Array, Float32Array], Float32Array],
) -> Float32Array:
    """Return each query moved by the rows that are nearest to it; -1 for none."""
    pairs = zip(queries, nearest, strict=True)
    return np.stack([move(query, read_rows(rows, near[near >= 0])) for query, near in pairs])


def _distances(query: Float32Array, rows: Rows, numbers: Int64Array) -> Float64Array:
    """Return the distances of a query (dim,) to some rows: float64 (numbers,)."""
    found = np.asarray(rows[numbers], np.float32)
    places = np.arange(len(numbers))
    return pair_distances(query[None], found, np.zeros_like(places), places)
