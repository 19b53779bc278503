"""Search a collection: query embeddings -> the nearest images, with distance, path and class."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.images import read_image
from deep_ranking.metrics import pair_distances
from deep_ranking.model.calibration import probability_of_same
from deep_ranking.search.collection import Collection, GalleryImage
from deep_ranking.search.feedback import moved_queries
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.out_of_date import note_on_problems, out_of_date
from deep_ranking.search.queries import PathOrPaths, are_given, list_queries
from deep_ranking.search.query_classes import classes_of_queries
from deep_ranking.search.results import Result, SearchResults
from deep_ranking.search.smoothed_collection import open_smoothed_index
from deep_ranking.search.smoothed_rows import smoothed_rows_of
from deep_ranking.search.smoothing import smoothing_in_words
from deep_ranking.search.subset import Subset, find_subset

SMALL = 32  # pixels; enough to learn why an image cannot be read
MOST_COMPARED = 100_000
"""Embeddings of a class or folder that are compared one by one, whatever the index."""

DEEPEST = 16_384
"""Results that an index is asked for, for those of a class or folder among them: Milvus' limit."""


class Searcher:
    """An open collection with its index, to search any number of times.

    Args:
        collection: the collection.
        index: an index of the rows to rank; None to open the collection's own.
        smooth: whether to rank by the smoothed rows; None to do so if the collection has them and
            no other index is given.

    Example:
        >>> searcher = Searcher(Collection.open("photos.index"))
        >>> searcher.search_images("photos/cat", top=2).queries
        ['photos/cat/0.png', 'photos/cat/1.png', 'photos/cat/2.png', 'photos/cat/3.png']

    Raises:
        InputError: the index is damaged, its server does not answer, or the collection has no
            smoothed rows.
    """

    def __init__(
        self, collection: Collection, index: Index | None = None, *, smooth: bool | None = None
    ) -> None:
        self.collection = collection
        self._embeddings = collection.embeddings()
        if smooth is None:
            smooth = index is None and collection.settings.smoothing is not None
        self._smoothed = smoothed_rows_of(collection) if smooth else None
        if index is not None:
            self.index = index
        elif self._smoothed is not None:
            self.index = open_smoothed_index(collection, self._smoothed)
        else:
            self.index = open_index(collection)

    @property
    def ranking(self) -> str:
        """That results are ranked by smoothed rows, in a line; "" if they are not."""
        if self._smoothed is None:
            return ""
        how = smoothing_in_words(self._smoothed.num_neighbours, self._smoothed.power)
        return f"Ranked by smoothed rows ({how}); --no-smooth ranks by the distances shown."

    @property
    def _ranked(self) -> Rows:
        """The rows that the index has: smoothed or plain."""
        return self._embeddings if self._smoothed is None else self._smoothed.rows

    @cached_property
    def _model(self) -> Any:
        from deep_ranking.model.file import load_model

        return load_model(self.collection.model)

    def search_images(
        self,
        images: PathOrPaths,
        top: int = 20,
        *,
        probes: int | None = None,
        label: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        like: PathOrPaths = (),
        unlike: PathOrPaths = (),
    ) -> SearchResults:
        """Find the images that are most similar to query images.

        Args:
            images: an image file, a folder of images, or several of either. Images of a folder that
                cannot be read are left out.
            top: images to find for each query.
            probes: as for `search`.
            label: as for `search`.
            folder: as for `search`.
            like: images that the results shall be more like, files or folders.
            unlike: images that they shall be less like.

        Example:
            >>> searcher = Searcher(Collection.open("photos.index"))
            >>> searcher.search_images("photos/cat/0.png", top=1)[0][0].label
            'cat'
            >>> found = searcher.search_images("photos/cat/0.png", label="dog")
            >>> {result.label for result in found[0]}
            {'dog'}

        Raises:
            InputError: a query is missing or cannot be read, or as for `search`.
        """
        queries, rows, left_out = self._embed(list_queries(images))
        feedback: list[Float32Array | None] = []
        for each, flag in ((like, "--like"), (unlike, "--unlike")):
            given = self._embed(list_queries(each, flag=flag)) if are_given(each) else None
            feedback.append(None if given is None else given[1])
            left_out += [] if given is None else given[2]
        return self.search_embedded(
            queries,
            moved_queries(rows, *feedback),
            top,
            left_out=left_out,
            probes=probes,
            label=label,
            folder=folder,
        )

    def search_embedded(
        self,
        queries: list[str],
        embeddings: Float32Array,
        top: int,
        *,
        left_out: Sequence[str] = (),
        **options: Any,
    ) -> SearchResults:
        """Search with queries that are embedded; look at the files that are found.

        Args:
            queries: their image files.
            embeddings: float32 (queries, dim), unit rows.
            top: images to find for each query.
            left_out: queries that cannot be read.
            **options: of `search`.
        """
        results = self.search(embeddings, top, **options)
        root = self.collection.settings.root
        inner = {each.path: os.path.relpath(each.path, root) for found in results for each in found}
        problems = out_of_date(self.collection, inner.values())
        results = [
            [replace(each, problem=problems.get(inner[each.path], "")) for each in found]
            for found in results
        ]
        labels = classes_of_queries(self.collection, queries)
        note = note_on_problems(self.collection, list(problems.values()))
        return SearchResults(
            queries, results, list(left_out), embeddings, labels, note, self.ranking
        )

    def _embed(self, queries: Mapping[str, bool]) -> tuple[list[str], Float32Array, list[str]]:
        """Return the images that can be read, their embeddings, and those that cannot be read."""
        from deep_ranking.embedding.embed import embed_images

        paths = list(queries)
        rows = embed_images(self._model, paths, skip_broken=True, progress=len(paths) > 1)
        broken = np.isnan(rows[:, 0])
        left_out = [paths[number] for number in np.flatnonzero(broken)]
        for path in left_out:
            if not queries[path]:
                read_image(path, SMALL)  # raises an error that tells why
        if broken.all():
            raise InputError("none of the query images can be read")
        kept = [path for path, bad in zip(paths, broken, strict=True) if not bad]
        return kept, rows[~broken], left_out

    def search(
        self,
        queries: Float32Array,
        count: int,
        *,
        probes: int | None = None,
        label: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        like: Float32Array | None = None,
        unlike: Float32Array | None = None,
    ) -> list[list[Result]]:
        """Find the nearest images of each query.

        A search that is limited to a class or a folder compares the query with each of its images,
        straight from the disk, whatever the index: the results are exact, and as many as there are.
        If the limits leave more than 100,000 embeddings, it searches the index deeper and deeper
        instead, and compares all of them only if that does not find enough.

        Args:
            queries: float32 (queries, dim), unit rows of the collection's model.
            count: how many images to find, at least 1.
            probes: clusters that a query visits; None for the index's own.
            label: find only images of this class, or below it, as for `matching_labels`.
            folder: find only images below this folder, relative to the collection's root or to the
                working folder.
            like: float32 (images, dim): move the queries towards these, as `moved_queries` does.
            unlike: likewise, away from these.

        Returns:
            For each query its results, nearest first, ties by path; all images if there are fewer
            than `count`. The distances are computed from the embeddings, so every index returns
            the same ones. With smoothed rows, the order is that of the distances to these.

        Raises:
            InputError: the queries come from another model, the index is empty, or no image is of
                the class or below the folder.
        """
        width = self.collection.settings.dimension
        if queries.shape[1] != width:
            raise InputError(
                f"{self.collection.folder}: its embeddings have {width} numbers, and those of its "
                f"model {queries.shape[1]}; index the images again into a new folder"
            )
        queries = moved_queries(queries, like, unlike)
        subset = find_subset(self.collection, label=label, folder=folder)
        if subset is None:
            nearest, known = self._nearest(queries, count, probes)
        else:
            nearest, known = self._nearest_of_subset(queries, count, probes, subset)
        root, calibration = Path(self.collection.settings.root), self.collection.calibration
        results = []
        for query, found in zip(queries, nearest, strict=True):
            rows = np.array([row for row in found.tolist() if row in known], np.int64)
            distances = _distances(query, self._embeddings, rows)
            ranked = distances
            if self._smoothed is not None:
                ranked = _distances(query, self._smoothed.rows, rows)
            measured = zip(ranked, distances, rows.tolist(), strict=True)
            order = sorted(
                (by, image.path, image.label, distance)
                for by, distance, row in measured
                for image in known[row]
            )
            of_query = []
            for rank, (by, path, its_label, distance) in enumerate(order[:count], start=1):
                probability = probability_of_same(distance, calibration)
                result = Result(rank, distance, str(root / path), its_label, probability)
                if self._smoothed is not None:
                    result = replace(result, smoothed_distance=by)
                of_query.append(result)
            results.append(of_query)
        return results

    def search_exactly(
        self, queries: Float32Array, count: int, **limits: Any
    ) -> list[list[Result]]:
        """Find the nearest images of each query by comparing all embeddings, as for `search`."""
        rows = self.collection.rows() if self._smoothed is None else self._smoothed.in_use()
        exact = Searcher(
            self.collection, ExactIndex(self._ranked, rows), smooth=self._smoothed is not None
        )
        return exact.search(queries, count, **limits)

    def _nearest_of_subset(
        self, queries: Float32Array, count: int, probes: int | None, subset: Subset
    ) -> tuple[Int64Array, dict[int, list[GalleryImage]]]:
        """Return what `_nearest` does, of a part of the collection."""
        with closing(self.collection.images()) as table:
            labels = None if subset.labels is None else sorted(subset.labels)
            allowed = self._rankable(table.rows_of(labels, subset.folder))
            rows = None
            if self.index.kind != ExactIndex.kind and len(allowed) > MOST_COMPARED:
                rows = self._search_deeper(queries, count, probes, allowed)
            if rows is None:
                rows = ExactIndex(self._ranked, allowed).search(queries, count).rows
            known = table.of_rows(np.unique(rows[rows >= 0]).tolist())
        return rows, {row: list(filter(subset.has, images)) for row, images in known.items()}

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
        self, queries: Float32Array, count: int, probes: int | None
    ) -> tuple[Int64Array, dict[int, list[GalleryImage]]]:
        """Return the rows of the nearest embeddings (queries, found), and the images of each row.

        The index may still have rows whose images are gone, if a sync was stopped. Then search for
        more, until each query has `count` rows with images or there are no more.
        """
        wanted = count
        while True:
            rows = self.index.search(queries, wanted, probes=probes).rows
            if not rows.shape[1] and len(self.collection.rows()):
                folder = self.collection.folder
                raise InputError(f"{folder}: its index is empty; run index --output {folder} again")
            with closing(self.collection.images()) as images:
                known = images.of_rows(self._rankable(np.unique(rows[rows >= 0])).tolist())
            gone = ~np.isin(rows, list(known)) & (rows >= 0)
            if rows.shape[1] < wanted or (gone.sum(axis=1) <= wanted - count).all():
                return rows, known
            wanted = max(2 * wanted, count + int(gone.sum(axis=1).max()))


def _distances(query: Float32Array, rows: Rows, numbers: Int64Array) -> list[float]:
    """Return the distances of a query (dim,) to some rows."""
    found = np.asarray(rows[numbers], np.float32)
    places = np.arange(len(numbers))
    distances = pair_distances(query[None], found, np.zeros_like(places), places)
    return list(map(float, distances))
