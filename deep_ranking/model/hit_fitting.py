"""Labelled rows -> the chance of a hit: searches with images of a collection, each left out of it.

The two regressions of `hit_calibration` are learned from searches whose answers are known: with
images of the collection, each left out of its own results. Such a query always has its class in the
collection. A user's query may not: it is foreign. So each search is made once more with the query's
whole class left out. `FOREIGN_SHARE` of the searches are taken to be foreign.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import FloatArray, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.metrics.distances import pair_distances
from deep_ranking.metrics.ranking import rank_gallery
from deep_ranking.model.hit_calibration import (
    DEPTH,
    NO_CLASS,
    HitCalibration,
    Neighbourhood,
    features_of_hits,
    features_of_presence,
)
from deep_ranking.model.logistic_regression import LogisticRegression

FOREIGN_SHARE = 0.2
"""Of the searches: those whose query has no image of its class in the collection.

The more there are, the lower is every chance: foreign queries are told from others more often, and
searches for what the collection has are promised too little. So it is the largest multiple of 0.05
with which the expected calibration error of such searches stays at 0.05 or less, on each of three
sets of classes to choose on (`benchmarks/hit_probability.py`, docs/guides/judge.md).
"""

MOST_QUERIES = 500
MIN_QUERIES, MIN_HITS = 10, 10
"""Queries, and hits of either kind, that a fit needs."""


class ClassesByRow(Protocol):
    """Classes that can be asked for by an array of rows, as those in an array can."""

    def __getitem__(self, rows: Int64Array, /) -> npt.NDArray[np.integer]:
        """Return the class of each row."""


def fit_hits(
    query_classes: Int64Array,
    around: Neighbourhood,
    without_class: Neighbourhood,
    *,
    foreign_share: float = FOREIGN_SHARE,
) -> HitCalibration | None:
    """Fit the chance of a hit to searches with images of a collection.

    Args:
        query_classes: int64 (queries,), each of a class with another image in the collection.
        around: the nearest images of each query, itself left out.
        without_class: the nearest images of other classes.
        foreign_share: of the searches: those without the query's class, between 0 and 1.

    Returns:
        The calibration; None if there are fewer than 10 queries, right hits or wrong hits.
    """
    near, foreign = around.classed(), without_class.classed()
    there = np.isfinite(near.distances)
    right = near.classes == query_classes[:, None]
    if len(right) < MIN_QUERIES or min((right & there).sum(), (~right & there).sum()) < MIN_HITS:
        return None
    hit = LogisticRegression.fit(
        features_of_hits(near)[there], right[there], np.ones(np.count_nonzero(there))
    )
    known = features_of_presence(near)[there.any(axis=1)]
    unknown = features_of_presence(foreign)[np.isfinite(foreign.distances).any(axis=1)]
    share = foreign_share / (1 - foreign_share) * len(known) / len(unknown)
    presence = LogisticRegression.fit(
        np.concatenate([known, unknown]),
        np.arange(len(known) + len(unknown)) < len(known),
        np.repeat([1.0, share], [len(known), len(unknown)]),
    )
    return HitCalibration(presence, hit, len(query_classes))


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
    classes: ClassesByRow,
) -> Neighbourhood:
    """Measure the nearest images of each query, and put them in order.

    Args:
        queries: float (n, dim), unit rows.
        query_rows: int64 (queries,), the row in `queries` of each query.
        rows: float (images, dim), unit rows.
        near: int64 (queries, depth), rows of the nearest images in any order; -1 for none.
        classes: integers (images,) of `rows`, or what returns those of some; `NO_CLASS` for none.
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
    seed: int = 0,
    foreign_share: float = FOREIGN_SHARE,
) -> HitCalibration | None:
    """Fit the chance of a hit to searches for images among the others.

    Args:
        rows: float (images, dim), unit rows, in memory or memory-mapped.
        classes: integers (images,); `NO_CLASS` for none.
        seed: decides which images are searched with, at most 500.
        foreign_share: as for `fit_hits`.
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
    return fit_hits(known, around, without_class, foreign_share=foreign_share)


def first_images(order: npt.NDArray[np.integer]) -> Int64Array:
    """Return the first images of a ranking: int64 (depth,), -1 where there are fewer."""
    first = order[:DEPTH].astype(np.int64)
    return np.pad(first, (0, DEPTH - len(first)), constant_values=-1)
