"""The rank of the first right image in a gallery, for every query, with the images themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import IntArray
from deep_ranking.metrics.retrieval import RetrievalMetrics


@dataclass(frozen=True, eq=False)
class QueryRanks:
    """Where each query's first right image is in the gallery. Iterating yields a dict a query.

    A right image is one of the query's class. Images at equal distance have the order of the
    gallery, as in `metrics.retrieval`.

    Attributes:
        paths: one path a query.
        labels: array (queries,) of their classes.
        gallery_paths: one path for each image of the gallery.
        retrieval: the results of `retrieval_metrics`.
        own: int (queries, most), for each query the gallery rows that were left out of its results,
            because they have its own content; -1 for none. None if no query has any.

    Example:
        >>> next(iter(evaluate(model, "street", gallery="shop").ranks))["rank"]
        2
    """

    paths: list[str]
    labels: npt.NDArray[np.str_]
    gallery_paths: list[str]
    retrieval: RetrievalMetrics
    own: IntArray | None = None

    def __repr__(self) -> str:
        return f"QueryRanks({len(self):,} queries in a gallery of {len(self.gallery_paths):,})"

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.of_query, range(len(self)))

    def of_query(self, row: int) -> dict[str, Any]:
        """Return what was found for a query.

        Args:
            row: its number, from 0.

        Returns:
            `path`, `class`, `rank` from 1 of `num_ranked` images, and `path` and `distance` of the
            `nearest` and of the `first_right` image. Rank and first right image are None if the
            gallery has none. `left_out_copies` has the paths of its own content in the gallery.
        """
        found = self.retrieval
        own = [] if self.own is None else self.own[row].tolist()
        first_right = nearest = None
        if found.num_ranked[row]:
            nearest = self._image(found.neighbours[row, 0], found.distances[row, 0])
        if self.has_right_image[row]:
            first_right = self._image(found.first_positive[row], found.first_positive_distance[row])
        return {
            "path": self.paths[row],
            "class": str(self.labels[row]),
            "rank": None if first_right is None else int(found.first_positive_rank[row]),
            "num_ranked": int(found.num_ranked[row]),
            "nearest": nearest,
            "first_right": first_right,
            "left_out_copies": [self.gallery_paths[each] for each in own if each >= 0],
        }

    @property
    def has_right_image(self) -> npt.NDArray[np.bool_]:
        """Bool array (queries,): whether an image of the query's class was ranked for it."""
        return self.retrieval.num_positives > 0

    def worst_first(self) -> list[int]:
        """Return the numbers of the queries with a right image: last rank first.

        Of equal ranks, the lower average precision comes first, and then the path in order.
        """
        ranks = self.retrieval.first_positive_rank
        precision = self.retrieval.per_query["mean_average_precision"]
        rows = np.flatnonzero(self.has_right_image).tolist()
        return sorted(rows, key=lambda row: (-ranks[row], precision[row], self.paths[row]))

    def _image(self, row: int, distance: float) -> dict[str, Any]:
        return {"path": self.gallery_paths[row], "distance": float(distance)}
