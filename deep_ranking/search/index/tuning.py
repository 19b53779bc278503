"""How well an index finds what an exact search finds, and at what price: measured, not guessed."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deep_ranking.files.array_types import Float32Array, FloatArray, Int64Array
from deep_ranking.search.index.base import Index, read_rows
from deep_ranking.search.index.exact import ExactIndex

COUNTS = (1, 10, 100)
TUNED_COUNT = 20  # of nearest images, for the recall that probes are chosen by
NUM_QUERIES = 200
# Squared distances that differ by less are one: which of two copies is found is chance.
TOLERANCE = 1e-5


class SearchMeasurement(NamedTuple):
    """What a number of probes gives, and takes.

    Attributes:
        probes: clusters visited by a query.
        recall: for each of `COUNTS`, the share of the nearest images that is found, 0 to 1.
        p50: milliseconds of a query, median.
        p99: milliseconds that 99 % of the queries do not exceed.
        share: of the embeddings that a query is compared with; NaN where the engine does not say.
    """

    probes: int
    recall: tuple[float, ...]
    p50: float
    p99: float
    share: float


class GroundTruth:
    """Queries, and what an exact search finds for them.

    The queries are images of the collection, spread over it; an image does not find itself.

    Args:
        embeddings: float (all rows, dim), memory-mapped.
        rows: int64 (rows,), those that can be found.
        num_queries: how many, at most.
        seed: decides which.
    """

    def __init__(
        self,
        embeddings: FloatArray,
        rows: Int64Array,
        *,
        num_queries: int = NUM_QUERIES,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.num_rows = len(rows)
        self.query_rows = np.sort(rng.choice(rows, min(num_queries, len(rows)), replace=False))
        self.queries = read_rows(embeddings, self.query_rows)
        self.num_nearest = min(max(COUNTS), len(rows) - 1)
        found = ExactIndex(embeddings, rows).search(self.queries, self.num_nearest + 1)
        self.exact = self._others(found.distances, found.rows)

    def recalls(
        self, distances: Float32Array, rows: Int64Array, counts: Sequence[int]
    ) -> list[float]:
        """Give the recall at each count of what a search for one neighbour more found."""
        found = self._others(distances, rows)
        recalls = []
        for wanted in counts:
            count = min(wanted, self.num_nearest)
            farthest = self.exact[:, count - 1 : count]
            hits = found[:, :count] ** 2 <= farthest**2 + TOLERANCE
            recalls.append(float(hits.mean()) if count else 1.0)
        return recalls

    def _others(self, distances: Float32Array, rows: Int64Array) -> Float32Array:
        """Distances without those of the queries to themselves, (queries, nearest)."""
        other = rows != self.query_rows[:, None]
        # Where a query did not find itself, the farthest is left out.
        order = np.argsort(~other, axis=1, kind="stable")[:, : rows.shape[1] - 1]
        return np.take_along_axis(distances, order, axis=1)


def measure_search(index: Index, truth: GroundTruth) -> list[SearchMeasurement]:
    """Measure an index with 1, 2, 4 ... probes, up to those that find everything.

    Args:
        index: an index of the same rows as the truth's.
        truth: queries and what is right.

    Returns:
        A `SearchMeasurement` for each number of probes; one alone where there is nothing to choose.
    """
    measurements = []
    for probes in _doubling(index.num_clusters):
        answers, seconds = [], []
        index.search(truth.queries[:1], 1, probes=probes)
        for query in truth.queries:
            start = time.perf_counter()
            found = index.search(query[None], truth.num_nearest + 1, probes=probes)
            seconds.append(time.perf_counter() - start)
            answers.append((found.distances[0], found.rows[0]))
        recall = truth.recalls(
            np.stack([distances for distances, _ in answers]),
            np.stack([rows for _, rows in answers]),
            COUNTS,
        )
        p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1000
        cost = index.cost(truth.queries, probes=probes)
        share = cost.rows / len(truth.queries) / truth.num_rows if cost else math.nan
        measurements.append(SearchMeasurement(probes, tuple(recall), p50, p99, share))
        if min(recall) == 1:
            break
    return measurements


def fewest_probes(index: Index, truth: GroundTruth, target_recall: float) -> tuple[int, float]:
    """Find how many clusters to visit for a recall of the 20 nearest.

    Args:
        index: an index with clusters.
        truth: queries and what is right.
        target_recall: share of the nearest images to find, 0 to 1.

    Returns:
        The smallest number of probes that reaches it, and the recall measured.
    """

    def recall(probes: int) -> float:
        found = index.search(truth.queries, TUNED_COUNT + 1, probes=probes)
        return float(truth.recalls(found.distances, found.rows, [TUNED_COUNT])[0])

    low, high, reached = 0, 1, recall(1)
    while reached < target_recall and high < index.num_clusters:
        low, high = high, min(2 * high, index.num_clusters)
        reached = recall(high)
    while high - low > 1:
        middle = (low + high) // 2
        found = recall(middle)
        if found >= target_recall:
            high, reached = middle, found
        else:
            low = middle
    return high, reached


def _doubling(most: int) -> list[int]:
    numbers = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*numbers, most]
