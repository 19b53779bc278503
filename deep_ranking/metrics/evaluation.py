"""Evaluate embeddings of labelled images: all metrics with intervals, by class and by query."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Float64Array, Int64Array, IntArray
from deep_ranking.metrics.clustering import nmi
from deep_ranking.metrics.distances import first_non_finite_row, slices
from deep_ranking.metrics.intervals import Interval, bootstrap_interval, median_interval
from deep_ranking.metrics.meaningless import RECALL_DEPTHS, TOP_K, meaningless_figures
from deep_ranking.metrics.pairs import pair_intervals, pair_metrics
from deep_ranking.metrics.retrieval import Gallery, RetrievalMetrics, retrieval_metrics
from deep_ranking.metrics.triplets import (
    correct_triplets,
    triplet_distances,
)

TRIPLETS_PER_QUERY = 10
TRIPLETS_AT_ONCE = 1 << 16

# The metrics with a value for every query that commands print, in this order; those with a gallery
# begin with the rank of the first right image, and leave out what `meaningless_figures` names.
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
OF_RANKS = (
    "mean_reciprocal_rank",
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "recall_at_20",
)


@dataclass(frozen=True)
class EmbeddedImages:
    """Images with their classes and embeddings.

    Attributes:
        paths: one path an image.
        labels: array (images,) of class names.
        embeddings: float array (images, dim).
        confirmed: bool (images,), whose class is right, as a person said; None for nothing known.
    """

    paths: list[str]
    labels: npt.NDArray[np.str_]
    embeddings: npt.NDArray[np.float32]
    confirmed: BoolArray | None = None


@dataclass(frozen=True)
class EmbeddingMetrics:
    """The metrics of one embedding.

    Attributes:
        per_query: for each of `PER_QUERY` a float array (queries,), NaN where a query has no image
            of its class in the gallery. With a gallery also `OF_RANKS`, and not `left_out`.
        intervals: for each of them the mean with its 95 % bootstrap interval over queries.
        whole: metrics of the whole set: `score_at_top_30` and the number of its `triplets`, `nmi`,
            `roc_auc`, `equal_error_rate` and `equal_error_threshold`, a distance; with a gallery
            also `median_rank` of the first right image, from 1, and not `left_out`.
        whole_intervals: 95 % bootstrap intervals over queries of `roc_auc`, `equal_error_rate`,
            `score_at_top_30` and `median_rank`.
        retrieval: all results of `retrieval_metrics`, the nearest images included.
        num_gallery: images of the gallery; None if the queries are searched themselves.
        left_out: figures that say nothing on this gallery, each with the reason.
    """

    per_query: dict[str, Float64Array]
    intervals: dict[str, Interval]
    whole: dict[str, float]
    whole_intervals: dict[str, Interval]
    retrieval: RetrievalMetrics
    num_gallery: int | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def evaluate_embeddings(
    queries: EmbeddedImages,
    gallery: EmbeddedImages | None = None,
    *,
    exclude: IntArray | None = None,
    seed: int = 0,
) -> EmbeddingMetrics:
    """Evaluate embeddings by how they rank a gallery for each query.

    Similarity precision, score at top 30 (Wang et al. 2014, section 6.2), ROC-AUC and equal error
    rate use 10 triplets a query: a positive from the gallery's images of its class, a negative from
    all others. Ties, and queries without a positive: see `metrics.triplets`, `metrics.pairs` and
    `metrics.retrieval`. A query without a positive counts in no figure.

    Args:
        queries: images to search with.
        gallery: images to search; by default the queries, each left out of its own ranking.
        exclude: integer array (queries, most), for each query the rows of the gallery that are
            left out of its own ranking and triplets, such as its copies; -1 for none.
        seed: seed of triplets, bootstrap and clustering.

    Raises:
        InputError: an embedding is not finite (the message names its image), dimensions differ, or
            no query has both an image of its class and one of another class in the gallery.
        ValueError: `exclude` without a gallery, or it names no rows of it.
    """
    if exclude is not None and gallery is None:
        raise ValueError("exclude names rows of a gallery. Received: no gallery.")
    for images in filter(None, (queries, gallery)):
        check_finite_images(images)
    searched = gallery or queries
    if searched.embeddings.shape[1] != queries.embeddings.shape[1]:
        raise InputError(
            f"queries have {queries.embeddings.shape[1]} dimensions, the gallery "
            f"{searched.embeddings.shape[1]}; embed both with the same model"
        )
    gallery_labels = None if gallery is None else gallery.labels
    triplets = draw_triplets(queries.labels, gallery_labels, exclude=exclude, seed=seed)
    rows = None if gallery is None else gallery.embeddings
    distances = triplet_distances(queries.embeddings, triplets, rows)
    correct = correct_triplets(*distances)
    retrieval = retrieval_metrics(
        queries.embeddings,
        queries.labels,
        None if gallery is None else Gallery(gallery.embeddings, gallery.labels, exclude),
        ks=RECALL_DEPTHS,
    )
    pairs = pair_metrics(*distances)
    groups = triplets[:, 0]  # a triplet's query
    counted = _in_top(retrieval.neighbours[:, :TOP_K], triplets)
    points = np.where(counted, np.where(correct, 1, -1), 0)
    precision = _group_means(groups, correct, len(queries.paths))
    per_query = {"similarity_precision": precision, **retrieval.per_query}
    names: tuple[str, ...] = PER_QUERY
    left_out: dict[str, str] = {}
    whole: dict[str, float] = {}
    whole_intervals = pair_intervals(*distances, groups, groups, seed=seed)
    if gallery is not None:
        names = tuple(dict.fromkeys((*OF_RANKS, *PER_QUERY)))
        ranked = retrieval.most_ranked
        left_out = meaningless_figures(retrieval.num_positives, gallery.labels, ranked)
        median = median_interval(retrieval.first_positive_rank, seed=seed)
        whole["median_rank"], whole_intervals["median_rank"] = median.mean, median
    per_query = {name: per_query[name] for name in names if name not in left_out}
    whole["triplets"] = len(triplets)
    if "score_at_top_30" not in left_out:
        points_each = bootstrap_interval(points, seed=seed, groups=groups)
        score = Interval(*(value * len(points) for value in points_each))
        whole["score_at_top_30"], whole_intervals["score_at_top_30"] = int(points.sum()), score
    if "nmi" not in left_out:
        whole["nmi"] = nmi(searched.embeddings, searched.labels, seed=seed)
    whole["roc_auc"] = pairs.roc_auc
    whole["equal_error_rate"] = pairs.equal_error_rate
    whole["equal_error_threshold"] = pairs.threshold
    return EmbeddingMetrics(
        per_query,
        {name: bootstrap_interval(values, seed=seed) for name, values in per_query.items()},
        whole,
        whole_intervals,
        retrieval,
        None if gallery is None else len(gallery.labels),
        left_out,
    )


def draw_triplets(
    query_labels: npt.NDArray[np.str_],
    gallery_labels: npt.NDArray[np.str_] | None = None,
    *,
    exclude: IntArray | None = None,
    per_query: int = TRIPLETS_PER_QUERY,
    seed: int = 0,
) -> Int64Array:
    """Draw triplets with replacement, positives and negatives from the gallery.

    Args:
        query_labels: array (queries,) of classes.
        gallery_labels: array (gallery,) of classes; by default the queries are the gallery, and
            none is its own positive.
        exclude: integer array (queries, most), for each query the gallery rows that are in none of
            its triplets, each row once; -1 for none. With a gallery only.
        per_query: triplets for each query that has a positive and a negative; others get none.
        seed: seed of the draw.

    Returns:
        int64 (triplets, 3): row of the query, gallery rows of positive and negative.

    Raises:
        InputError: no query has both a positive and a negative.
    """
    if gallery_labels is None:
        gallery_labels, exclude = query_labels, np.arange(len(query_labels))[:, np.newaxis]
    elif exclude is None:
        exclude = np.empty((len(query_labels), 0), np.int64)
    order = np.argsort(gallery_labels, kind="stable")  # the images of a class in a row
    ordered = gallery_labels[order]
    start = np.searchsorted(ordered, query_labels, side="left")
    size = np.searchsorted(ordered, query_labels, side="right") - start
    not_positive, not_negative = _excluded_places(exclude, order, start, size)
    none = len(order)
    num_positives = size - (not_positive < none).sum(axis=1)
    num_negatives = none - size - (not_negative < none).sum(axis=1)
    usable = np.flatnonzero((num_positives > 0) & (num_negatives > 0))
    if not len(usable):
        raise InputError(
            "no query has an image of its class and one of another class to compare with; "
            "two classes are needed, one of them with two images or more"
        )
    query = np.repeat(usable, per_query)
    rng = np.random.default_rng(seed)
    positive = rng.integers(0, num_positives[query])
    negative = rng.integers(0, num_negatives[query])
    for column in range(exclude.shape[1]):  # skip the excluded places, in rising order
        positive += positive >= not_positive[query, column]
        negative += negative >= not_negative[query, column]
    negative += np.where(negative >= start[query], size[query], 0)
    return np.column_stack([query, order[start[query] + positive], order[negative]])


def _excluded_places(
    exclude: IntArray, order: Int64Array, start: Int64Array, size: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return the excluded places of each query among its class, and among all other images.

    Args:
        exclude: integer array (queries, most) of gallery rows, -1 for none.
        order: int64 (gallery,), gallery rows with those of a class side by side.
        start: int64 (queries,), place in `order` where the query's class starts.
        size: int64 (queries,), images of that class.

    Returns:
        int64 (queries, most) each, rising; the size of the gallery for none.
    """
    start, size, none = start[:, np.newaxis], size[:, np.newaxis], len(order)
    place = np.empty(none, np.int64)
    place[order] = np.arange(none)
    at = np.where(exclude >= 0, place[exclude], none)
    in_class = (at >= start) & (at < start + size)
    others = at - np.where(at >= start, size, 0)
    among_class = np.where(in_class, at - start, none)
    among_others = np.where(in_class | (exclude < 0), none, others)
    return np.sort(among_class, axis=1), np.sort(among_others, axis=1)


def means_by_class(
    evaluation: EmbeddingMetrics, labels: npt.NDArray[np.str_]
) -> dict[str, dict[str, float]]:
    """Return the mean of each per-query metric by class; NaN for a class without a positive.

    Args:
        evaluation: evaluation on queries of these labels.
        labels: array (queries,) of classes.

    Returns:
        Class name -> `queries`, their number, and each of `evaluation.per_query`; with a gallery
        also `median_rank`.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    sizes = np.bincount(codes)
    table = {
        name: _group_means(codes, values, len(classes))
        for name, values in evaluation.per_query.items()
    }
    if evaluation.num_gallery is not None:
        ranks = evaluation.retrieval.first_positive_rank
        order = np.argsort(codes, kind="stable")
        parts = np.split(ranks[order], np.cumsum(sizes)[:-1])
        ranked = [part[~np.isnan(part)] for part in parts]
        table["median_rank"] = np.array(
            [np.median(each) if len(each) else np.nan for each in ranked]
        )
    return {
        str(label): {
            "queries": float(sizes[row]),
            **{name: float(values[row]) for name, values in table.items()},
        }
        for row, label in enumerate(classes)
    }


def check_finite_images(images: EmbeddedImages) -> None:
    """Raise InputError, which names the image, if an embedding is not finite."""
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
