"""Search a collection: query embeddings -> the nearest images, with distance, path and class."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.images import find_images, read_image
from deep_ranking.metrics import pair_distances
from deep_ranking.model.calibration import probability_of_same
from deep_ranking.search.collection import Collection, GalleryImage
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.results import Result, SearchResults

PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
SMALL = 32  # pixels; enough to learn why an image cannot be read


class Searcher:
    """An open collection with its index, to search any number of times.

    Args:
        collection: the collection.
        index: the collection's index; None to open it.

    Example:
        >>> searcher = Searcher(Collection.open("photos.index"))
        >>> searcher.search_images("photos/cat", top=2).queries
        ['photos/cat/0.png', 'photos/cat/1.png', 'photos/cat/2.png', 'photos/cat/3.png']

    Raises:
        InputError: the index is damaged, or its server does not answer.
    """

    def __init__(self, collection: Collection, index: Index | None = None) -> None:
        self.collection = collection
        self.index = open_index(collection) if index is None else index
        self._embeddings = collection.embeddings()

    @cached_property
    def _model(self) -> Any:
        from deep_ranking.model.file import load_model

        return load_model(self.collection.model)

    def search_images(
        self, images: PathOrPaths, top: int = 20, *, probes: int | None = None
    ) -> SearchResults:
        """Find the images that are most similar to query images.

        Args:
            images: an image file, a folder of images, or several of either. Images of a folder that
                cannot be read are left out.
            top: images to find for each query.
            probes: as for `search`.

        Example:
            >>> searcher = Searcher(Collection.open("photos.index"))
            >>> searcher.search_images("photos/cat/0.png", top=1)[0][0].label
            'cat'

        Raises:
            InputError: a query is missing or cannot be read, or as for `search`.
        """
        return self.search_listed(list_queries(images), top, probes=probes)

    def search_listed(
        self, queries: Mapping[str, bool], top: int = 20, *, probes: int | None = None
    ) -> SearchResults:
        """Search with the images of `list_queries`, as `search_images` does."""
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
        results = self.search(rows[~broken], top, probes=probes)
        return SearchResults(kept, results, left_out, rows[~broken])

    def search(
        self, queries: Float32Array, count: int, *, probes: int | None = None
    ) -> list[list[Result]]:
        """Find the nearest images of each query.

        Args:
            queries: float32 (queries, dim), unit rows of the collection's model.
            count: how many images to find, at least 1.
            probes: clusters that a query visits; None for the index's own.

        Returns:
            For each query its results, nearest first, ties by path; all images if there are fewer
            than `count`. The distances are computed from the embeddings, so every index returns
            the same ones.

        Raises:
            InputError: the queries come from another model, or the index is empty.
        """
        width = self.collection.settings.dimension
        if queries.shape[1] != width:
            raise InputError(
                f"{self.collection.folder}: its embeddings have {width} numbers, and those of its "
                f"model {queries.shape[1]}; index the images again into a new folder"
            )
        nearest, known = self._nearest(queries, count, probes)
        root, calibration = Path(self.collection.settings.root), self.collection.calibration
        results = []
        for query, found in zip(queries, nearest, strict=True):
            rows = np.array([row for row in found.tolist() if row in known], np.int64)
            embeddings = np.asarray(self._embeddings[rows], np.float32)
            places = np.arange(len(rows))
            distances = pair_distances(query[None], embeddings, np.zeros_like(places), places)
            pairs = sorted(
                (distance, image.path, image.label)
                for distance, row in zip(distances.tolist(), rows.tolist(), strict=True)
                for image in known[row]
            )
            of_query = []
            for rank, (distance, path, label) in enumerate(pairs[:count], start=1):
                probability = probability_of_same(distance, calibration)
                of_query.append(Result(rank, distance, str(root / path), label, probability))
            results.append(of_query)
        return results

    def search_exactly(self, queries: Float32Array, count: int) -> list[list[Result]]:
        """Find the nearest images of each query by comparing all embeddings, as for `search`."""
        from deep_ranking.search.index.exact import ExactIndex

        exact = ExactIndex(self._embeddings, self.collection.rows())
        return Searcher(self.collection, exact).search(queries, count)

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
                known = images.of_rows(np.unique(rows[rows >= 0]).tolist())
            gone = ~np.isin(rows, list(known)) & (rows >= 0)
            if rows.shape[1] < wanted or (gone.sum(axis=1) <= wanted - count).all():
                return rows, known
            wanted = max(2 * wanted, count + int(gone.sum(axis=1).max()))


def list_queries(images: PathOrPaths) -> dict[str, bool]:
    """Return the query images of files and folders; True for those left out if they are broken.

    Raises:
        InputError: there is no such file, or a folder has no images.
    """
    given = [images] if isinstance(images, str | os.PathLike) else images
    queries: dict[str, bool] = {}
    for each in map(Path, given):
        if each.is_dir():
            queries |= dict.fromkeys(find_images(each).files(), True)
        elif each.exists():
            queries[str(each)] = False
        else:
            raise InputError(f"{each}: no such image; check --image")
    if not queries:
        raise InputError("no query images")
    return queries
