"""Search a collection: query embeddings -> the nearest images, with distance, path and class."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.content_digest import content_digests, data_digest
from deep_ranking.images import open_image, read_image
from deep_ranking.model.hit_calibration import DEPTH
from deep_ranking.search.collection.searchable import Searchable, ShardError
from deep_ranking.search.feedback import moved_queries
from deep_ranking.search.hit_probability import (
    check_least_probability,
    hit_chances,
    note_on_calibration,
)
from deep_ranking.search.index.base import IndexReader, read_rows
from deep_ranking.search.out_of_date import note_on_problems, out_of_date
from deep_ranking.search.queries import PathOrPaths, are_given, list_queries
from deep_ranking.search.query_classes import classes_of_queries
from deep_ranking.search.ranker import Ranker
from deep_ranking.search.results import Result, SearchResults
from deep_ranking.search.subset import find_subset

if TYPE_CHECKING:
    from deep_ranking.embedding.embed import Image

SMALL = 32  # pixels; enough to learn why an image cannot be read


Method = TypeVar("Method", bound=Callable[..., Any])


def _without_failed_shards(method: Method) -> Method:
    """Make a method begin anew without a shard that failed, if these are to be left out."""

    @wraps(method)
    def tried(self: "Searcher", *given: Any, **options: Any) -> Any:
        while True:
            try:
                return method(self, *given, **options)
            except ShardError as error:
                self.collection.leave_out(error)  # raises it, unless that is asked for

    return cast(Method, tried)


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
        self,
        collection: Searchable,
        index: IndexReader | None = None,
        *,
        smooth: bool | None = None,
    ) -> None:
        self.collection = collection
        self.ranker = Ranker(collection, index, smooth=smooth)

    @property
    def index(self) -> IndexReader:
        """The index that is searched."""
        return self.ranker.index

    @_without_failed_shards
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
        rerank: bool = False,
        min_probability: float | None = None,
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
            rerank: as for `search`.
            min_probability: as for `search`.

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
            rerank=rerank,
            min_probability=min_probability,
        )

    @_without_failed_shards
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
        notes = (
            note_on_problems(self.collection, problems),
            note_on_calibration(self.collection),
            self.collection.note(),
        )
        return SearchResults(
            queries,
            results,
            list(left_out),
            embeddings,
            labels,
            "\n".join(filter(None, notes)),
            ranking=self.ranker.in_words(rerank=options.get("rerank", False)),
            min_probability=options.get("min_probability"),
            shards_left_out=self.collection.left_out,
        )

    def _embed(self, queries: Mapping[str, bool]) -> tuple[list[str], Float32Array, list[str]]:
        """Return the images that can be read, their embeddings, and those that cannot be read."""
        paths = list(queries)
        rows = self.rows_of(paths)
        broken = np.isnan(rows[:, 0])
        left_out = [paths[number] for number in np.flatnonzero(broken)]
        for path in left_out:
            if not queries[path]:
                read_image(path, SMALL)  # raises an error that tells why
        if broken.all():
            raise InputError("none of the query images can be read")
        kept = [path for path, bad in zip(paths, broken, strict=True) if not bad]
        return kept, rows[~broken], left_out

    @_without_failed_shards
    def rows_of(self, images: Sequence["Image"]) -> Float32Array:
        """Return the rows of images, to search with.

        An image with the content of one in the collection takes the row of that, so that a search
        for these alone opens no model.

        Args:
            images: image files, or the bytes of image files.

        Returns:
            float32 (images, dim), unit rows; NaN for an image that cannot be read.

        Raises:
            InputError: the collection is damaged, or its model has another dimension.
        """
        found = self._stored_rows(images)
        known = np.array([each is not None for each in found])
        rows = np.full((len(images), self.collection.settings.dimension), np.nan, np.float32)
        if known.any():
            stored = np.array([each for each in found if each is not None], np.int64)
            rows[known] = read_rows(self.ranker.embeddings, stored)
        if known.all():
            return rows
        from deep_ranking.embedding.embed import embed_images

        missing = [image for image, is_known in zip(images, known, strict=True) if not is_known]
        embedded = embed_images(
            self.collection.embedder, missing, skip_broken=True, progress=len(missing) > 1
        )
        if embedded.shape[1] != rows.shape[1]:
            raise InputError(
                f"{self.collection.folder}: its embeddings have {rows.shape[1]} numbers, and those "
                f"of its model {embedded.shape[1]}; index the images again into a new folder"
            )
        rows[~known] = embedded
        return rows

    def _stored_rows(self, images: Sequence["Image"]) -> list[int | None]:
        """Return the number of the row of each image's content; None for an unknown content."""
        paths = [each for each in images if not isinstance(each, bytes)]
        of_paths = iter(content_digests(paths, open_file=open_image) if paths else ())
        with closing(self.collection.images()) as table:
            contents = (
                data_digest(each) if isinstance(each, bytes) else next(of_paths) for each in images
            )
            return [
                table.row_of_content(each) if isinstance(each, bytes) else None for each in contents
            ]

    @_without_failed_shards
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
        rerank: bool = False,
        min_probability: float | None = None,
    ) -> list[list[Result]]:
        """Find the nearest images of each query.

        A search that is limited to a class or a folder compares the query with each of its images,
        straight from the disk, whatever the index: the results are exact, and as many as there are.
        Only Milvus looks for them itself, as well as for all. If the limits leave more than 100,000
        embeddings, it searches other indexes deeper and deeper instead, and compares all of them
        only if that does not find enough.

        Args:
            queries: float32 (queries, dim), unit rows of the collection's model.
            count: how many images to find, at least 1.
            probes: clusters that a query visits; None for the index's own.
            label: find only images of this class, or below it, as for `matching_labels`.
            folder: find only images below this folder, relative to the collection's root or to the
                working folder.
            like: float32 (images, dim): move the queries towards these, as `moved_queries` does.
            unlike: likewise, away from these.
            rerank: rank the results again by what the collection knows of them, see
                `search.reranking`.
            min_probability: leave out hits with a smaller chance to be of the query's class, 0 to
                1, and hits whose chance is not known.

        Returns:
            For each query its results, nearest first, ties by path; all images if there are fewer
            than `count`. The distances are computed from the embeddings, so every index returns
            the same ones. With smoothed rows, the order is that of the distances to these.

        Raises:
            InputError: the queries come from another model, the index is empty, no image is of
                the class or below the folder, or `min_probability` is out of range, or given
                where nothing tells the chance of a hit.
        """
        width = self.collection.settings.dimension
        if queries.shape[1] != width:
            raise InputError(
                f"{self.collection.folder}: its embeddings have {width} numbers, and those of its "
                f"model {queries.shape[1]}; index the images again into a new folder"
            )
        queries = moved_queries(queries, like, unlike)
        subset = find_subset(self.collection, label=label, folder=folder)
        calibration = self.collection.hit_calibration
        if min_probability is not None:
            check_least_probability(self.collection, min_probability)
        whole = subset is None and not self.ranker.is_smoothed and not rerank
        depth = max(count, DEPTH + 1) if calibration is not None and whole else count
        around = None
        if calibration is not None and not whole:
            around = self._plain.hits(queries, max(DEPTH + 1, self.ranker.num_neighbours), probes)
        found = self.ranker.hits(queries, depth, probes, subset, rerank=rerank, around=around)
        hits = [of_query[:count] for of_query in found]
        chances: list[list[float | None]] = [[None] * len(of_query) for of_query in hits]
        if calibration is not None:
            chances = hit_chances(calibration, found if around is None else around, hits)
        path_of, least = self.collection.settings.path_of, min_probability or 0.0
        return [
            [
                Result(
                    rank,
                    hit.distance,
                    path_of(hit.path),
                    hit.label,
                    chance,
                    smoothed_distance=hit.smoothed_distance,
                )
                for rank, (hit, chance) in enumerate(zip(*of_query, strict=True), start=1)
                if min_probability is None or (chance is not None and chance >= least)
            ]
            for of_query in zip(hits, chances, strict=True)
        ]

    @cached_property
    def _plain(self) -> Ranker:
        """A ranker by the plain rows, which the chance of a hit goes by."""
        return Ranker(self.collection, smooth=False) if self.ranker.is_smoothed else self.ranker

    def search_exactly(
        self, queries: Float32Array, count: int, **limits: Any
    ) -> list[list[Result]]:
        """Find the nearest images of each query by comparing all embeddings, as for `search`."""
        exact = Searcher(self.collection, self.ranker.exact_index(), smooth=self.ranker.is_smoothed)
        return exact.search(queries, count, **limits)
