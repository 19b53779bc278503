"""Search a collection: query embeddings -> the nearest images, with distance, path and class."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.metrics import cosine_at, pair_distances
from deep_ranking.model.calibration import probability_of_same
from deep_ranking.search.collection import Collection, GalleryImage
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.kinds import open_index


@dataclass(frozen=True)
class Result:
    """One image found by a search.

    Attributes:
        rank: 1 for the nearest.
        distance: Euclidean, 0 (alike) to 2.
        path: the image file, absolute.
        label: its class, the first folder below the collection's root; "" for none.
        probability: probability that it is of the query's class; None if the model is not
            calibrated.
    """

    rank: int
    distance: float
    path: str
    label: str
    probability: float | None

    @property
    def cosine(self) -> float:
        """Cosine of the two embeddings, 1 (alike) to -1."""
        return cosine_at(self.distance)


class Searcher:
    """An open collection with its index, to search any number of times.

    Args:
        collection: the collection.
        index: the collection's index; None to open it.

    Raises:
        InputError: the index is damaged, or its server does not answer.
    """

    def __init__(self, collection: Collection, index: Index | None = None) -> None:
        self.collection = collection
        self.index = open_index(collection) if index is None else index
        self._embeddings = collection.embeddings()

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


def mean_recall(results: Sequence[Sequence[Result]], exact: Sequence[Sequence[Result]]) -> float:
    """Return the share of the exact results that a search found, as a mean over the queries."""
    shares = [
        np.isin([each.path for each in wanted], [each.path for each in found]).mean()
        for wanted, found in zip(exact, results, strict=True)
    ]
    return float(np.mean(shares))


def as_rows(query: str, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the results of a query as plain values, for JSON and CSV."""
    return [
        {
            "query": query,
            "rank": each.rank,
            "distance": each.distance,
            "cosine": each.cosine,
            "probability": each.probability,
            "class": each.label,
            "path": each.path,
        }
        for each in results
    ]
