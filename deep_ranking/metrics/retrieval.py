"""Retrieval metrics of a ranking: rank, Recall@K, Precision@K, R-precision, mAP, MAP@R, k-NN.

All metrics come from one pass over the rankings of `rank_gallery`. Each has a value for every
query; means, intervals, tables by class and the worst queries are computed from these.

A *hit* is a ranked image of the query's class, h_i is 1 if the i-th image is a hit, else 0, and R
is the number of hits in the complete ranking. For every metric here:

* Ties: gallery rows at equal distance keep the order of the gallery. So a wrong image at the
  distance of the right one is ranked before it if it comes first in the gallery, else after it. If
  all embeddings are equal, the rank of an image is its place in the gallery.
* Query in the gallery: its row is left out of its own ranking, as are all rows that
  `Gallery.exclude` names for it. Every figure is that of a gallery without these rows. A second
  copy that is not named stays in.
* No positive: NaN for a query without a hit (R = 0, a class of one image). Means leave it out.

Each metric of hits takes a bool array (queries, ranked): whether each image of the complete
ranking, nearest first, is a hit. It returns a float64 array (queries,).

References:
    Jegou et al. 2011, "Product Quantization for Nearest Neighbor Search" (Recall@K).
    Manning et al. 2008, "Introduction to Information Retrieval", section 8.4 (precision, mAP).
    Voorhees 1999, "The TREC-8 Question Answering Track Report" (mean reciprocal rank).
    Musgrave et al. 2020, "A Metric Learning Reality Check", section 3.2 (R-precision, MAP@R).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import BoolArray, Float64Array, FloatArray, IntArray
from deep_ranking.metrics.distances import MEMORY_LIMIT, pair_distances
from deep_ranking.metrics.ranking import Ranking, rank_gallery

Labels = npt.NDArray[Any]

NUM_NEIGHBOURS = 30
"""Neighbours of the k-nearest-neighbour classifier, as in the article's PyTorch port."""


class Gallery(NamedTuple):
    """The images that are ranked.

    Attributes:
        embeddings: float array (gallery, dim).
        labels: array (gallery,) of classes, integers or strings.
        exclude: integer array (queries,) or (queries, most), for each query the gallery rows that
            are left out of its ranking, such as the query itself and its copies; -1 for none. None
            if no query is in the gallery.
    """

    embeddings: FloatArray
    labels: Labels
    exclude: IntArray | None = None


@dataclass(frozen=True, eq=False)
class RetrievalMetrics:
    """The results of `retrieval_metrics`, for every query.

    Attributes:
        per_query: metric name -> float64 array (queries,), NaN where undefined.
        num_positives: int64 array (queries,), ranked gallery images of the query's class.
        num_ranked: int64 array (queries,), gallery images that were ranked: all but the excluded.
        first_positive_rank: float64 array (queries,), rank of the nearest of them from 1, NaN where
            there is none. Recall@K for any K is the share of ranks up to K.
        first_positive: int64 array (queries,), the gallery row of that image, -1 where there is
            none.
        first_positive_distance: float64 array (queries,), its Euclidean distance, NaN where there
            is none.
        neighbours: int64 array (queries, nearest) of gallery rows, nearest first; -1 in the last
            columns of a query that ranks fewer.
        distances: float64 array (queries, nearest), their Euclidean distances, infinite for -1.
    """

    per_query: dict[str, Float64Array]
    num_positives: npt.NDArray[np.int64]
    num_ranked: npt.NDArray[np.int64]
    first_positive_rank: Float64Array
    first_positive: npt.NDArray[np.int64]
    first_positive_distance: Float64Array
    neighbours: npt.NDArray[np.int64]
    distances: Float64Array

    @property
    def most_ranked(self) -> int:
        """Most images that any query ranks: the gallery, or less if each leaves some out."""
        return int(self.num_ranked.max())


def retrieval_metrics(
    embeddings: FloatArray,
    labels: Labels,
    gallery: Gallery | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10, 30),
    memory_limit: int = MEMORY_LIMIT,
    reorder: Callable[[Ranking], Ranking] | None = None,
) -> RetrievalMetrics:
    """Return all metrics of all queries, in one pass over their rankings.

    Args:
        embeddings: float array (queries, dim), finite.
        labels: array (queries,) of classes, integers or strings.
        gallery: the images to rank; by default the queries, each left out of its own ranking.
        ks: depths of recall and precision.
        memory_limit: bytes that a chunk of queries may take, besides the embeddings.
        reorder: returns another order of the same rows, for searches that do not rank by distance.

    Returns:
        For each query `recall_at_K` and `precision_at_K` for each K, `mean_reciprocal_rank` (the
        query's 1/rank of the first hit), `r_precision`, `mean_average_precision`, `map_at_r` and
        `knn_accuracy` (30 neighbours, weights 1/distance); its first hit; and its nearest images,
        as many as the largest of 30 and `ks`. `precision_at_30` is the metric of the PyTorch port.

    Raises:
        ValueError: as in `rank_gallery`; `labels` does not have one label a row; or a K is below 1.
    """
    if gallery is None:
        gallery = Gallery(embeddings, labels, np.arange(len(embeddings)))
    query_codes, gallery_codes = _class_codes(embeddings, labels, gallery)
    chunks = []
    by_distance = rank_gallery(
        embeddings,
        gallery.embeddings,
        exclude=gallery.exclude,
        nearest=max(*ks, NUM_NEIGHBOURS),
        memory_limit=memory_limit,
    )
    for ranking in by_distance if reorder is None else map(reorder, by_distance):
        codes = query_codes[ranking.queries]
        hits = np.empty(ranking.order.shape, np.bool_)
        for query, code in enumerate(codes):
            np.equal(gallery_codes[ranking.order[query]], code, out=hits[query])
        fewest, most = int(ranking.num_ranked.min()), len(hits[0])
        hits[:, fewest:] &= _is_ranked(ranking, fewest, most)
        nearest = ranking.order[:, : ranking.distances.shape[1]].astype(np.int64)
        nearest[~_is_ranked(ranking, 0, nearest.shape[1])] = -1  # infinitely far: without a vote
        predicted = knn_classify(
            gallery_codes[nearest[:, :NUM_NEIGHBOURS]], ranking.distances[:, :NUM_NEIGHBOURS]
        )
        per_query = {f"recall_at_{k}": recall_at_k(hits, k) for k in ks}
        per_query |= {f"precision_at_{k}": precision_at_k(hits, k, ranking.num_ranked) for k in ks}
        rank = first_positive_rank(hits)
        per_query |= {
            "mean_reciprocal_rank": 1 / rank,
            "r_precision": r_precision(hits),
            "mean_average_precision": average_precision(hits),
            "map_at_r": average_precision_at_r(hits),
            "knn_accuracy": _where_defined(hits, predicted == codes),
        }
        first = _first_positives(ranking, rank, embeddings, gallery.embeddings)
        counts = hits.sum(axis=1), ranking.num_ranked
        chunks.append((per_query, *counts, rank, *first, nearest, ranking.distances))
    tables, *columns = zip(*chunks, strict=True)
    per_query = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return RetrievalMetrics(per_query, *map(np.concatenate, columns))


def recall_at_k(hits: BoolArray, k: int) -> Float64Array:
    """Return Recall@K: 1 if one of h_1 ... h_k is 1, else 0 (Jegou et al. 2011).

    This is the convention of metric learning and image retrieval: one hit is enough. Information
    retrieval divides the number of hits by R instead. Raise ValueError if `k` is below 1.
    """
    _check_depth(k)
    return _where_defined(hits, hits[:, :k].any(axis=1))


def precision_at_k(
    hits: BoolArray, k: int, num_ranked: npt.NDArray[np.int64] | None = None
) -> Float64Array:
    """Return Precision@K: (h_1 + ... + h_k) / k (Manning et al. 2008).

    With fewer ranked images than `k`, divide by their number: `num_ranked` int64 (queries,), or all
    columns of `hits`. Raise ValueError if `k` is below 1.
    """
    _check_depth(k)
    ranked = hits.shape[1] if num_ranked is None else np.maximum(num_ranked, 1)
    return _where_defined(hits, hits[:, :k].sum(axis=1) / np.minimum(k, ranked))


def r_precision(hits: BoolArray) -> Float64Array:
    """Return R-precision: (h_1 + ... + h_R) / R (Musgrave et al. 2020)."""
    queries, ranks, sizes = _ranks_of_hits(hits)
    return _mean_of_hits(queries, ranks <= sizes[queries], sizes)


def average_precision(hits: BoolArray) -> Float64Array:
    """Return the average precision: the sum over all i of h_i * Precision@i, divided by R.

    Its mean over the queries is the mean average precision (mAP), over the complete ranking and
    without interpolation (Manning et al. 2008).
    """
    queries, ranks, sizes = _ranks_of_hits(hits)
    return _mean_of_hits(queries, _precision_at_hits(queries, ranks, sizes), sizes)


def average_precision_at_r(hits: BoolArray) -> Float64Array:
    """Return the average precision at R: the sum over i <= R of h_i * Precision@i, divided by R.

    Its mean over the queries is MAP@R (Musgrave et al. 2020).
    """
    queries, ranks, sizes = _ranks_of_hits(hits)
    precision = _precision_at_hits(queries, ranks, sizes)
    return _mean_of_hits(queries, precision * (ranks <= sizes[queries]), sizes)


def first_positive_rank(hits: BoolArray) -> Float64Array:
    """Return the rank, from 1, of the nearest image of the query's class: the first hit."""
    return _where_defined(hits, hits.argmax(axis=1) + 1)


def knn_classify(classes: IntArray, distances: Float64Array) -> IntArray:
    """Return the class that the nearest images vote for, each with the weight 1/distance.

    This is scikit-learn's `KNeighborsClassifier(weights="distance")`: if any neighbour is at
    distance 0, only those at 0 vote. Ties: of classes with equal votes, up to rounding, the
    smallest wins. Classes and distances of the neighbours are arrays (queries, neighbours).
    """
    equal = distances == 0
    weights = 1 / np.where(equal, 1, distances)
    weights = np.where(equal.any(axis=1, keepdims=True), equal, weights)
    # Sum the votes for the class of each neighbour, without a table of queries x classes.
    same = classes[:, :, np.newaxis] == classes[:, np.newaxis, :]  # (queries, neighbours, ...)
    votes = np.matmul(same, weights[:, :, np.newaxis])[:, :, 0]
    winners = votes >= votes.max(axis=1, keepdims=True) * (1 - 1e-12)
    smallest: IntArray = np.where(winners, classes, classes.max()).min(axis=1)
    return smallest


def _is_ranked(ranking: Ranking, begin: int, end: int) -> BoolArray:
    """Return whether columns of the order are ranked for each query, not excluded."""
    return np.arange(begin, end) < ranking.num_ranked[:, np.newaxis]


def _first_positives(
    ranking: Ranking, ranks: Float64Array, queries: FloatArray, gallery: FloatArray
) -> tuple[npt.NDArray[np.int64], Float64Array]:
    """Return the gallery row and the distance of each query's first hit, -1 and NaN for none.

    A hit among the nearest has its distance already; the others are measured one by one.
    """
    rows, distances = np.full(len(ranks), -1, np.int64), np.full(len(ranks), np.nan)
    found = np.flatnonzero(~np.isnan(ranks))
    columns = ranks[found].astype(np.int64) - 1
    rows[found] = ranking.order[found, columns]
    near = columns < ranking.distances.shape[1]
    distances[found[near]] = ranking.distances[found[near], columns[near]]
    far = found[~near]
    distances[far] = pair_distances(queries, gallery, ranking.queries.start + far, rows[far])
    return rows, distances


def _class_codes(
    embeddings: FloatArray, labels: Labels, gallery: Gallery
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the labels of queries and gallery as numbers, in the order of the labels."""
    for name, rows, given in (
        ("queries", embeddings, labels),
        ("gallery", gallery.embeddings, gallery.labels),
    ):
        if np.shape(given) != (len(rows),):
            raise ValueError(
                f"The {name} need one label for each of {len(rows)} embeddings. "
                f"Received: labels of shape {np.shape(given)}."
            )
    _, codes = np.unique(np.concatenate([labels, gallery.labels]), return_inverse=True)
    query_codes, gallery_codes = np.split(codes.astype(np.int32), [len(labels)])
    return query_codes, gallery_codes


def _check_depth(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1. Received: k={k}.")


def _where_defined(hits: BoolArray, values: npt.ArrayLike) -> Float64Array:
    return np.where(hits.any(axis=1), values, np.nan)


def _ranks_of_hits(hits: BoolArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return query and rank (from 1) of every hit, in order, and the number of hits per query."""
    # Flat, because NumPy takes many times as long to search a matrix.
    queries, columns = np.divmod(np.flatnonzero(hits), hits.shape[1])
    return queries, columns + 1, np.bincount(queries, minlength=len(hits))


def _precision_at_hits(queries: IntArray, ranks: IntArray, sizes: IntArray) -> Float64Array:
    """Return the precision at the rank of each hit: its number among the query's hits / rank."""
    before = np.cumsum(sizes) - sizes
    return (np.arange(1, len(ranks) + 1) - before[queries]) / ranks


def _mean_of_hits(queries: IntArray, values: npt.NDArray[Any], sizes: IntArray) -> Float64Array:
    """Return the mean value of each query's hits, NaN where it has none."""
    totals = np.bincount(queries, weights=values, minlength=len(sizes))
    return np.where(sizes > 0, totals / np.maximum(sizes, 1), np.nan)
