"""The chance that an image which a search found is of the query's class.

How near is near enough differs from query to query. So each hit is seen against the query's
neighbourhood, the 100 images of the collection that are nearest to it, by four features:

    distance    of the hit from the query
    rank        logarithm of the hit's place in the neighbourhood
    background  mean distance of the farther half of the neighbourhood
    agreement   share of the votes of the 20 nearest other images that are for the hit's class,
                each weighted by the squared cosine to the query; only where classes are known

A logistic regression of these (Platt 1999, "Probabilistic Outputs for Support Vector Machines")
learns from searches whose answers are known: with images of the collection, each left out of its
own results. Such a query always has its class in the collection. A user's query may not, so one in
twenty of the searches is made in the collection without the query's class, where every hit is
wrong.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Float64Array, FloatArray, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.metrics.distances import pair_distances
from deep_ranking.metrics.ranking import rank_gallery

DEPTH = 100
"""Images of a neighbourhood."""

NUM_VOTERS = 20
SHARE_WITHOUT_CLASS = 0.05
"""Of the searches: those whose query has no image of its class in the collection."""

MOST_QUERIES = 500
MIN_QUERIES, MIN_HITS = 10, 10
"""Queries, and hits of either kind, that a fit needs."""

MOST_STEPS, TOLERANCE, ROUNDING_OF_SUMS = 100, 1e-9, 1e-12

ROUNDING = 1e-6
"""By which the distance of one image may differ from call to call."""

NO_CLASS = -1
FEATURES = ("distance", "rank", "background", "agreement")
LISTS = ("centres", "scales", "weights")


class Neighbourhood(NamedTuple):
    """The nearest images of each query.

    Attributes:
        distances: float64 (queries, depth), Euclidean, rising; infinite where there is no image.
        classes: int64 (queries, depth), numbers of their classes; `NO_CLASS` for none.
    """

    distances: Float64Array
    classes: Int64Array


@dataclass(frozen=True)
class HitCalibration:
    """A fitted logistic regression of the features, each first centred and scaled.

    Attributes:
        centres: one number for each feature: all four, or the three that need no classes.
        scales: likewise, above 0.
        weights: likewise.
        bias: added to the weighted sum.
        num_queries: searches that it was fitted on.

    Example:
        >>> found = HitCalibration((0.5, 0.0, 1.0), (1.0, 1.0, 1.0), (-9.0, 0.0, 9.0), 0.0, 10)
        >>> around = Neighbourhood(np.array([[0.5, 1.0]]), np.array([[-1, -1]]))
        >>> found.probabilities(np.array([[0.5]]), np.array([[-1]]), around)
        array([[0.5]])

    Raises:
        InputError: the numbers are out of range.
    """

    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    num_queries: int

    def __post_init__(self) -> None:
        """Check the ranges: the numbers may come from an untrusted file."""
        rows = [np.asarray(getattr(self, name), np.float64) for name in LISTS]
        if (
            any(row.ndim != 1 or len(row) not in (3, 4) for row in rows)
            or len({len(row) for row in rows}) != 1
            or not all(np.isfinite(row).all() for row in (*rows, np.array(self.bias)))
            or not (rows[1] > 0).all()
        ):
            raise InputError("the calibration of hits has numbers out of range")

    @property
    def needs_classes(self) -> bool:
        """Whether it goes by the classes of the collection's images."""
        return len(self.weights) == len(FEATURES)

    def probabilities(
        self, distances: Float64Array, classes: Int64Array, around: Neighbourhood
    ) -> Float64Array:
        """Return the chance of each hit to be of its query's class: float64 (queries, hits).

        Args:
            distances: float64 (queries, hits), Euclidean, of the hits, in any order; infinite
                where there is no hit.
            classes: int64 (queries, hits), numbers of their classes as in `around`.
            around: the neighbourhood of each query in the whole collection.
        """
        found = hit_features(distances, classes, around)[..., : len(self.weights)]
        found = (found - self.centres) / self.scales
        log_odds = found @ np.array(self.weights) + self.bias
        chances: Float64Array = np.exp(-np.logaddexp(0, -log_odds))
        return chances

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """Return the calibration of a dict of its attributes, which may come from a damaged file.

        Raises:
            InputError: it is not such a calibration.
        """
        try:
            lists = {name: tuple(map(float, values[name])) for name in LISTS}
            bias, num_queries = float(values["bias"]), int(values["num_queries"])
        except (ValueError, TypeError, LookupError, OverflowError):
            raise InputError("the calibration of hits is not what was written") from None
        return cls(**lists, bias=bias, num_queries=num_queries)


def hit_features(
    distances: Float64Array, classes: Int64Array, around: Neighbourhood
) -> Float64Array:
    """Return the features of hits: float64 (queries, hits, 4), in the order of `FEATURES`.

    Args:
        distances: as for `HitCalibration.probabilities`.
        classes: likewise.
        around: likewise.
    """
    near, near_classes = around
    found = np.isfinite(near)
    places = (near[:, None, :] < distances[:, :, None]).sum(axis=2)  # (queries, hits)
    # The farther half of the images that there are.
    farther = found & (np.arange(near.shape[1]) >= found.sum(axis=1, keepdims=True) // 2)
    background = np.where(farther, near, 0).sum(axis=1) / np.maximum(farther.sum(axis=1), 1)
    votes = _votes(near[:, :NUM_VOTERS])
    same = classes[:, :, None] == near_classes[:, None, :NUM_VOTERS]
    same &= (classes != NO_CLASS)[:, :, None]
    # A hit among the voters does not vote for itself. The query's own image is not among them.
    lowest, highest = (distances[:, :, None] + each for each in (-ROUNDING, ROUNDING))
    voters = near[:, None, :NUM_VOTERS]
    is_voter = (places < votes.shape[1]) & ((voters >= lowest) & (voters <= highest)).any(axis=2)
    own = np.where(is_voter, _votes(distances), 0)
    all_votes = votes.sum(axis=1, keepdims=True) - own
    for_class = np.einsum("qhv,qv->qh", same, votes) - np.where(classes == NO_CLASS, 0, own)
    agreement = np.clip(for_class / np.maximum(all_votes, 1e-9), 0, 1)
    rows = distances, np.log1p(places), np.broadcast_to(background[:, None], distances.shape)
    return np.stack([*rows, agreement], axis=-1)


def _votes(distances: Float64Array) -> Float64Array:
    """Return the squared cosines of unit rows at these distances, 0 where they are negative."""
    found = np.isfinite(distances)
    cosines = 1 - np.where(found, distances, 2) ** 2 / 2
    return np.where(found, np.maximum(cosines, 1e-3) ** 2, 0)


def fit_hits(
    query_classes: Int64Array,
    around: Neighbourhood,
    without_class: Neighbourhood,
    *,
    by_classes: bool,
) -> HitCalibration | None:
    """Fit the chance of a hit to searches with images of a collection.

    Args:
        query_classes: int64 (queries,), each of a class with another image in the collection.
        around: the nearest images of each query, itself left out.
        without_class: the nearest images of other classes.
        by_classes: whether the classes of a collection's images will be known, so that their
            agreement counts.

    Returns:
        The calibration; None if there are fewer than 10 queries, right hits or wrong hits.
    """
    there = np.isfinite(around.distances) & (around.classes != NO_CLASS)
    right = around.classes == query_classes[:, None]
    if len(right) < MIN_QUERIES or min((right & there).sum(), (~right & there).sum()) < MIN_HITS:
        return None
    num_features = len(FEATURES) if by_classes else FEATURES.index("agreement")
    known = hit_features(*around, around)[there][:, :num_features]
    foreign = hit_features(*without_class, without_class)[np.isfinite(without_class.distances)]
    foreign = foreign[:, :num_features]
    centres, scales = known.mean(axis=0), known.std(axis=0)
    scales[scales < 1e-9] = 1
    rows = (np.concatenate([known, foreign]) - centres) / scales
    answers = np.concatenate([right[there], np.zeros(len(foreign), bool)])
    share = SHARE_WITHOUT_CLASS / (1 - SHARE_WITHOUT_CLASS) * len(known) / max(len(foreign), 1)
    weights = np.repeat([1.0, share], [len(known), len(foreign)])
    *coefficients, bias = fit_logistic_regression(rows, answers, weights).tolist()
    lists = (centres.tolist(), scales.tolist(), coefficients)
    return HitCalibration(
        **dict(zip(LISTS, map(tuple, lists), strict=True)),
        bias=bias,
        num_queries=len(query_classes),
    )


def fit_logistic_regression(
    rows: Float64Array, answers: BoolArray, weights: Float64Array
) -> Float64Array:
    """Return the coefficients of a logistic regression, and last its bias: float64 (features + 1,).

    Minimises the weighted sum of the logistic losses plus half the squared coefficients, without
    the bias: scikit-learn's `LogisticRegression`, a package of 200 MB. By Newton's method, each
    step halved until the sum falls (Boyd and Vandenberghe 2004, 9.5); the sum is strictly convex,
    so this converges even where a plane separates the answers.

    Args:
        rows: float64 (n, features), finite, centred and scaled.
        answers: bool (n,), some of either kind.
        weights: float64 (n,), above 0.

    Raises:
        InputError: it did not converge, which only damaged rows explain.
    """
    rows = np.column_stack([rows, np.ones(len(rows))])
    penalty = np.append(np.ones(rows.shape[1] - 1), 0)

    def total(at: Float64Array) -> float:
        losses = np.logaddexp(0, np.where(answers, -1, 1) * (rows @ at))
        return float(weights @ losses + penalty @ at**2 / 2)

    found = np.zeros(rows.shape[1])
    for _ in range(MOST_STEPS):
        chances = np.exp(-np.logaddexp(0, -(rows @ found)))
        slope = rows.T @ (weights * (chances - answers)) + penalty * found
        curvature = (rows.T * (weights * chances * (1 - chances))) @ rows + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        if slope @ step <= TOLERANCE:  # twice what the sum can still fall
            return np.asarray(found - step)
        least = total(found) * (1 + ROUNDING_OF_SUMS)
        while total(found - step) > least:
            step /= 2
        found = found - step
    raise InputError(
        "the chances of hits could not be fitted; the embeddings may be damaged: make the index "
        "anew"
    )


def queries_to_fit_on(classes: npt.NDArray[np.integer], seed: int = 0) -> Int64Array:
    """Return images to search with: int64 (queries,), rising, at most 500.

    Args:
        classes: integers (images,); `NO_CLASS` for none.
        seed: decides which, of more images whose class has another one.
    """
    names, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    usable = np.flatnonzero((sizes[codes] > 1) & (names[codes] != NO_CLASS))
    if len(usable) <= MOST_QUERIES:
        return usable
    return np.sort(np.random.default_rng(seed).choice(usable, MOST_QUERIES, replace=False))


def neighbourhoods(
    queries: Rows,
    query_rows: Int64Array,
    rows: Rows,
    near: Int64Array,
    classes: npt.NDArray[np.integer],
) -> Neighbourhood:
    """Measure the nearest images of each query, and put them in order.

    Args:
        queries: float (n, dim), unit rows.
        query_rows: int64 (queries,), the row in `queries` of each query.
        rows: float (images, dim), unit rows.
        near: int64 (queries, depth), rows of the nearest images in any order; -1 for none.
        classes: integers (images,) of `rows`; `NO_CLASS` for none.
    """
    distances, found = np.full(near.shape, np.inf), near >= 0
    of_query = query_rows[np.nonzero(found)[0]]
    distances[found] = pair_distances(queries, rows, of_query, near[found])
    order = np.argsort(distances, axis=1, kind="stable")
    near, distances = (np.take_along_axis(each, order, axis=1) for each in (near, distances))
    return Neighbourhood(distances, np.where(near >= 0, classes[near], NO_CLASS).astype(np.int64))


def fit_hits_among(
    rows: FloatArray,
    classes: npt.NDArray[np.integer],
    *,
    by_classes: bool = False,
    seed: int = 0,
) -> HitCalibration | None:
    """Fit the chance of a hit to searches for images among the others.

    Args:
        rows: float (images, dim), unit rows, in memory or memory-mapped.
        classes: integers (images,); `NO_CLASS` for none.
        by_classes: as for `fit_hits`; False for collections whose images have no classes.
        seed: decides which images are searched with, at most 500.
    """
    queries = queries_to_fit_on(classes, seed)
    if len(queries) < MIN_QUERIES:
        return None
    near, others = [], []
    for ranking in rank_gallery(rows[queries], rows, exclude=queries, nearest=1):
        for query, order in zip(queries[ranking.queries], ranking.order, strict=True):
            near.append(first_images(order))
            others.append(first_images(order[classes[order] != classes[query]]))
    around, without_class = (
        neighbourhoods(rows, queries, rows, np.stack(each), classes) for each in (near, others)
    )
    known = classes[queries].astype(np.int64)
    return fit_hits(known, around, without_class, by_classes=by_classes)


def first_images(order: npt.NDArray[np.integer]) -> Int64Array:
    """Return the first images of a ranking: int64 (depth,), -1 where there are fewer."""
    first = order[:DEPTH].astype(np.int64)
    return np.pad(first, (0, DEPTH - len(first)), constant_values=-1)
