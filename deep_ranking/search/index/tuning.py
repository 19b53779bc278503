"""Measure the recall and time of an index against exact search, and choose its probes by recall."""

import math
import time
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.search.index.base import Index, read_rows
from deep_ranking.search.index.exact import ExactIndex

COUNTS = (1, 10, 100)
TUNED_COUNT = 20  # nearest images that count for the recall by which probes are chosen
NUM_QUERIES = 200
# Squared distances that differ by less count as equal: which of two copies is found is chance.
TOLERANCE = 1e-5


class SearchMeasurement(NamedTuple):
    """Recall and time of searches with a number of probes.

    Attributes:
        probes: clusters that a query visits.
        recall: share of the nearest images found, 0 to 1, for each of `COUNTS`.
        p50: median milliseconds of a query.
        p99: 99th percentile of the milliseconds of a query.
        share: share of the embeddings compared with a query; NaN if the engine does not tell.
    """

    probes: int
    recall: tuple[float, ...]
    p50: float
    p99: float
    share: float


class GroundTruth:
    """Queries and the distances of their nearest images, by exact search.

    The queries are random images of the collection; an image itself does not count as its own
    neighbour.

    Args:
        embeddings: float (all rows, dim), memory-mapped.
        rows: int64 (rows,) in the index.
        num_queries: largest number of queries.
        seed: decides which images are queries.
        queries: float (all rows, dim), what the images are searched with, if not with their own
            rows of `embeddings`.
    """

    def __init__(
        self,
        embeddings: Rows,
        rows: Int64Array,
        *,
        num_queries: int = NUM_QUERIES,
        seed: int = 0,
        queries: Rows | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.num_rows = len(rows)
        self.query_rows = np.sort(rng.choice(rows, min(num_queries, len(rows)), replace=False))
        self.queries = read_rows(embeddings if queries is None else queries, self.query_rows)
        self.num_nearest = min(max(COUNTS), len(rows) - 1)
        found = ExactIndex(embeddings, rows).search(self.queries, self.num_nearest + 1)
        self.exact = self._others(found.distances, found.rows)

    def recalls(
        self, distances: Float32Array, rows: Int64Array, counts: Sequence[int]
    ) -> list[float]:
        """Return the recall at each count, given the result of a search for one image more."""
        found = self._others(distances, rows)
        recalls = []
        for wanted in counts:
            count = min(wanted, self.num_nearest)
            farthest = self.exact[:, count - 1 : count]
            hits = found[:, :count] ** 2 <= farthest**2 + TOLERANCE
            recalls.append(float(hits.mean()) if count else 1.0)
        return recalls

    def _others(self, distances: Float32Array, rows: Int64Array) -> Float32Array:
        """Return distances (queries, nearest) without those of the queries to themselves."""
        other = rows != self.query_rows[:, None]
        # If a query did not find itself, leave out the farthest image instead.
        order = np.argsort(~other, axis=1, kind="stable")[:, : rows.shape[1] - 1]
        return np.take_along_axis(distances, order, axis=1)


def measure_search(index: Index, truth: GroundTruth) -> list[SearchMeasurement]:
    """Measure an index with 1, 2, 4 ... probes, until it finds everything.

    Args:
        index: an index of the rows that `truth` was made with.
        truth: queries and their nearest images.

    Returns:
        A measurement for each number of probes; only one for an index without clusters.
    """
    measurements = []
    for probes in _doubling(index.num_clusters):
        distances, rows, seconds = [], [], []
        index.search(truth.queries[:1], 1, probes=probes)
        for query in truth.queries:
            start = time.perf_counter()
            found = index.search(query[None], truth.num_nearest + 1, probes=probes)
            seconds.append(time.perf_counter() - start)
            distances.append(found.distances)
            rows.append(found.rows)
        recall = truth.recalls(np.concatenate(distances), np.concatenate(rows), COUNTS)
        p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1000
        cost = index.cost(truth.queries, probes=probes)
        share = cost.rows / len(truth.queries) / truth.num_rows if cost else math.nan
        measurements.append(SearchMeasurement(probes, tuple(recall), p50, p99, share))
        if min(recall) == 1:
            break
    return measurements


def fewest_probes(index: Index, truth: GroundTruth, target_recall: float) -> tuple[int, float]:
    """Find the smallest number of clusters to visit that reaches a recall.

    Args:
        index: an index with clusters.
        truth: queries and their nearest images.
        target_recall: share of the 20 nearest images to find, 0 to 1.

    Returns:
        The number of probes, and the recall measured with it.
    """

    @cache
    def recall(probes: int) -> float:
        found = index.search(truth.queries, TUNED_COUNT + 1, probes=probes)
        return float(truth.recalls(found.distances, found.rows, [TUNED_COUNT])[0])

    low, high = 0, 1
    while recall(high) < target_recall and high < index.num_clusters:
        low, high = high, min(2 * high, index.num_clusters)
    probes = bisect_left(range(high), target_recall, low + 1, key=recall)
    return probes, recall(probes)


def _doubling(most: int) -> list[int]:
    """Return 1, 2, 4 ... below `most`, then `most`."""
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]
