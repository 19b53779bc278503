"""Query images and a collection -> the images that are nearest, with distance, path and class."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.metrics import cosine_at, pair_distances
from deep_ranking.model.calibration import Calibration, probability_of_same
from deep_ranking.search.collection import Collection, GalleryImage
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.index_from_settings import open_index


@dataclass(frozen=True)
class Result:
    """An image that was found.

    Attributes:
        rank: 1 for the nearest.
        distance: Euclidean, 0 (alike) to 2.
        path: of the image, absolute.
        label: its class, the first folder below the collection's root; "" for none.
        probability: that it is of the query's class, where the model is calibrated.
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
    """An open collection with its index: opened once, for any number of queries.

    Args:
        collection: the collection.
        index: its index; by default opened.

    Raises:
        InputError: the index is damaged, or its server cannot be reached.
    """

    def __init__(self, collection: Collection, index: Index | None = None) -> None:
        self.collection = collection
        self.index = open_index(collection) if index is None else index
        self.calibration: Calibration | None = collection.calibration
        self._embeddings = collection.embeddings()

    def search(
        self, queries: Float32Array, count: int, *, probes: int | None = None
    ) -> list[list[Result]]:
        """Find the nearest images of each query.

        Args:
            queries: float32 (queries, dim), unit rows of the collection's model.
            count: how many images to find, at least 1; all, if there are fewer.
            probes: clusters to visit a query; None for the index's own.

        Returns:
            For each query its results, nearest first, of equal distance by path.
            Distances are computed anew from the embeddings, so that every index gives the same.

        Raises:
            InputError: the queries are of another model.
        """
        width = self.collection.settings.dimension
        if queries.shape[1] != width:
            raise InputError(
                f"{self.collection.folder}: holds embeddings of {width} numbers, and its model "
                f"gives {queries.shape[1]}; index the images anew"
            )
        nearest, known = self._nearest(queries, count, probes)
        root = Path(self.collection.settings.root)
        results = []
        for query, found in zip(queries, nearest, strict=True):
            rows = np.array([row for row in found.tolist() if row in known], np.int64)
            distances = self._distances(query, rows)
            pairs = sorted(
                (distance, image.path, image.label)
                for distance, row in zip(distances.tolist(), rows.tolist(), strict=True)
                for image in known[row]
            )
            results.append(
                [
                    Result(
                        rank,
                        distance,
                        str(root / path),
                        label,
                        probability_of_same(distance, self.calibration),
                    )
                    for rank, (distance, path, label) in enumerate(pairs[:count], start=1)
                ]
            )
        return results

    def _nearest(
        self, queries: Float32Array, count: int, probes: int | None
    ) -> tuple[Int64Array, dict[int, list[GalleryImage]]]:
        """Rows of the nearest embeddings, and their images, of which each query has enough.

        The index may hold rows whose images are gone, if a sync was stopped: more are asked for.
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

    def _distances(self, query: Float32Array, rows: Int64Array) -> npt.NDArray[np.float64]:
        embeddings = np.asarray(self._embeddings[rows], np.float32)
        return pair_distances(query[None], embeddings, np.zeros_like(rows), np.arange(len(rows)))


def as_rows(query: str, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Write results as plain values, for JSON and CSV."""
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
