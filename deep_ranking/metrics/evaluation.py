"""Evaluate embeddings of labelled images: all metrics with intervals, by class and by query."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, Int64Array
from deep_ranking.metrics.clustering import nmi
from deep_ranking.metrics.distances import first_non_finite_row, slices
from deep_ranking.metrics.intervals import Interval, bootstrap_interval
from deep_ranking.metrics.pairs import pair_intervals, pair_metrics
from deep_ranking.metrics.retrieval import Gallery, RetrievalMetrics, retrieval_metrics
from deep_ranking.metrics.triplets import (
    correct_triplets,
    score_at_top_k,
    triplet_distances,
    triplet_ranks,
)

TRIPLETS_PER_QUERY = 10
TOP_K = 30
TRIPLETS_AT_ONCE = 1 << 16
RECALL_DEPTHS = (1, 5, 10, TOP_K)

# The metrics with a value for every query that commands print, in this order.
PER_QUERY = (
    "similarity_precision",
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "precision_at_30",
    "knn_accuracy",
    "r_precision",
    "map_at_r",
    "mean_average_precision",
)


@dataclass(frozen=True)
class EmbeddedImages:
    """Images with their classes and embeddings.

    Attributes:
        paths: one path an image.
        labels: array (images,) of class names.
        embeddings: float array (images, dim).
    """

    paths: list[str]
    labels: npt.NDArray[np.str_]
    embeddings: npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingMetrics:
    """The metrics of one embedding.

    Attributes:
        per_query: for each of `PER_QUERY` a float array (queries,), NaN where a query has no image
            of its class in the gallery.
        intervals: for each of `PER_QUERY` the mean with its 95 % bootstrap interval over queries.
        whole: metrics of the whole set: `score_at_top_30` and the number of its `triplets`, `nmi`,
            `roc_auc`, `equal_error_rate` and `equal_error_threshold`, a distance.
        whole_intervals: 95 % bootstrap intervals over queries of `roc_auc`, `equal_error_rate` and
            `score_at_top_30`.
        retrieval: all results of `retrieval_metrics`, the nearest images included.
    """

    per_query: dict[str, Float64Array]
    intervals: dict[str, Interval]
    whole: dict[str, float]
    whole_intervals: dict[str, Interval]
    retrieval: RetrievalMetrics


def evaluate_embeddings(
    queries: EmbeddedImages, gallery: EmbeddedImages | None = None, *, seed: int = 0
) -> EmbeddingMetrics:
    """Evaluate embeddings by how they rank a gallery for each query.

    Similarity precision, score at top 30 (Wang et al. 2014, section 6.2), ROC-AUC and equal error
    rate use 10 triplets a query: a positive from the gallery's images of its class, a negative from
    all others. Ties, and queries without a positive: see `metrics.triplets`, `metrics.pairs` and
    `metrics.retrieval`.

    Args:
        queries: images to search with.
        gallery: images to search; by default the queries, each left out of its own ranking.
        seed: seed of triplets, bootstrap and clustering.

    Raises:
        InputError: an embedding is not finite (the message names its image), dimensions differ, or
            no query has both an image of its class and one of another class in the gallery.
    """
    for images in filter(None, (queries, gallery)):
        _check_finite(images)
    searched = gallery or queries
    if searched.embeddings.shape[1] != queries.embeddings.shape[1]:
        raise InputError(
            f"queries have {queries.embeddings.shape[1]} dimensions, the gallery "
            f"{searched.embeddings.shape[1]}; embed both with the same model"
        )
    triplets = draw_triplets(queries.labels, None if gallery is None else gallery.labels, seed=seed)
    rows = None if gallery is None else gallery.embeddings
    distances = triplet_distances(queries.embeddings, triplets, rows)
    correct = correct_triplets(*distances)
    retrieval = retrieval_metrics(
        queries.embeddings,
        queries.labels,
        None if gallery is None else Gallery(gallery.embeddings, gallery.labels),
        ks=RECALL_DEPTHS,
    )
    pairs = pair_metrics(*distances)
    groups = triplets[:, 0]  # a triplet's query
    counted = _in_top(retrieval.neighbours[:, :TOP_K], triplets)
    points = np.where(counted, np.where(correct, 1, -1), 0)
    points_each = bootstrap_interval(points, seed=seed, groups=groups)
    precision = _group_means(groups, correct, len(queries.paths))
    per_query = {"similarity_precision": precision, **retrieval.per_query}
    per_query = {name: per_query[name] for name in PER_QUERY}
    return EmbeddingMetrics(
        per_query,
        {name: bootstrap_interval(values, seed=seed) for name, values in per_query.items()},
        {
            "score_at_top_30": int(points.sum()),
            "triplets": len(triplets),
            "nmi": nmi(searched.embeddings, searched.labels, seed=seed),
            "roc_auc": pairs.roc_auc,
            "equal_error_rate": pairs.equal_error_rate,
            "equal_error_threshold": pairs.threshold,
        },
        {
            **pair_intervals(*distances, groups, groups, seed=seed),
            "score_at_top_30": Interval(*(value * len(points) for value in points_each)),
        },
        retrieval,
    )


def evaluate_triplets(
    images: EmbeddedImages, triplets: npt.NDArray[np.integer], *, seed: int = 0
) -> tuple[Interval, int]:
    """Evaluate embeddings by given triplets, such as those that people labelled.

    Args:
        images: images of the triplets, which are also the gallery; their labels are ignored.
        triplets: int (triplets, 3), rows of `images`.
        seed: seed of the bootstrap, which draws queries with all their triplets.

    Returns:
        The paper's two metrics: the similarity precision, which is the share of correct triplets,
        with its 95 % bootstrap interval; and the score at top 30, which is correct minus incorrect
        triplets, of those with an image among the query's 30 nearest.

    Raises:
        InputError: an embedding is not finite (the message names its image), or a triplet's query
            is its own positive or negative.
    """
    _check_finite(images)
    itself = (triplets[:, :1] == triplets[:, 1:]).any(axis=1)
    if itself.any():
        raise InputError(
            f"triplet {int(np.argmax(itself)) + 1}: the query is its own positive or negative"
        )
    correct = correct_triplets(*triplet_distances(images.embeddings, triplets))
    return (
        bootstrap_interval(correct, seed=seed, groups=triplets[:, 0]),
        score_at_top_k(*triplet_ranks(images.embeddings, triplets), k=TOP_K),
    )


def draw_triplets(
    query_labels: npt.NDArray[np.str_],
    gallery_labels: npt.NDArray[np.str_] | None = None,
    *,
    per_query: int = TRIPLETS_PER_QUERY,
    seed: int = 0,
) -> Int64Array:
    """Draw triplets with replacement, positives and negatives from the gallery.

    Args:
        query_labels: array (queries,) of classes.
        gallery_labels: array (gallery,) of classes; by default the queries are the gallery, and
            none is its own positive.
        per_query: triplets for each query that has a positive and a negative; others get none.
        seed: seed of the draw.

    Returns:
        int64 (triplets, 3): row of the query, gallery rows of positive and negative.

    Raises:
        InputError: no query has both a positive and a negative.
    """
    own = gallery_labels is None
    gallery_labels = query_labels if gallery_labels is None else gallery_labels
    order = np.argsort(gallery_labels, kind="stable")  # the images of a class in a row
    ordered = gallery_labels[order]
    start = np.searchsorted(ordered, query_labels, side="left")
    size = np.searchsorted(ordered, query_labels, side="right") - start
    num_positives, num_negatives = size - own, len(ordered) - size
    usable = np.flatnonzero((num_positives > 0) & (num_negatives > 0))
    if not len(usable):
        raise InputError(
            "no query has an image of its class and one of another class to compare with; "
            "two classes are needed, one of them with two images or more"
        )
    query = np.repeat(usable, per_query)
    rng = np.random.default_rng(seed)
    positive = rng.integers(0, num_positives[query])
    if own:  # skip the query's own place within its class
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        positive += positive >= place[query] - start[query]
    negative = rng.integers(0, num_negatives[query])
    negative += np.where(negative >= start[query], size[query], 0)
    return np.column_stack([query, order[start[query] + positive], order[negative]])


def means_by_class(
    evaluation: EmbeddingMetrics, labels: npt.NDArray[np.str_]
) -> dict[str, dict[str, float]]:
    """Return the mean of each per-query metric by class; NaN for a class of one image.

    Args:
        evaluation: evaluation on queries of these labels.
        labels: array (queries,) of classes.

    Returns:
        Class name -> `queries`, their number, and each of `PER_QUERY`.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    sizes = np.bincount(codes)
    table = {
        name: _group_means(codes, values, len(classes))
        for name, values in evaluation.per_query.items()
    }
    return {
        str(label): {
            "queries": float(sizes[row]),
            **{name: float(values[row]) for name, values in table.items()},
        }
        for row, label in enumerate(classes)
    }


def _check_finite(images: EmbeddedImages) -> None:
    bad = first_non_finite_row(images.embeddings)
    if bad is not None:
        raise InputError(f"{images.paths[bad]}: its embedding is not finite (NaN or infinity)")


def _in_top(nearest: Int64Array, triplets: Int64Array) -> npt.NDArray[np.bool_]:
    """Return whether a triplet's positive or negative is among its query's nearest images.

    The ranking is known already, so `triplet_ranks` need not compute it again.
    """
    found = np.zeros(len(triplets), bool)
    for part in slices(len(triplets), TRIPLETS_AT_ONCE):
        around = nearest[triplets[part, 0]]  # (triplets, top K)
        for column in (1, 2):
            found[part] |= (around == triplets[part, column, None]).any(axis=1)
    return found


def _group_means(
    groups: Int64Array, values: npt.NDArray[np.generic], num_groups: int
) -> Float64Array:
    """Return the mean of each group's values without NaN; NaN for a group without values."""
    values = np.asarray(values, np.float64)
    defined = ~np.isnan(values)
    totals = np.bincount(groups[defined], weights=values[defined], minlength=num_groups)
    counts = np.bincount(groups[defined], minlength=num_groups)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
