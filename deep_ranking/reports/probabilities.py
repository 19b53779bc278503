"""How far probabilities can be trusted: what is stated of labelled images, and whether it is right.

Two kinds are judged: the probability that two images share a class, and the chance that a hit of a
search is of the query's class. Neither is judged on what it was fitted to here: the first is fitted
to half of the classes, the second to half of the images of each class.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.datasets import hold_back_classes
from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Float64Array, FloatArray, Int64Array, IntArray
from deep_ranking.metrics import pair_distances, rank_gallery, sample_pairs
from deep_ranking.model.calibration import Calibration, fit_calibration
from deep_ranking.model.hit_calibration import DEPTH, Neighbourhood
from deep_ranking.model.hit_fitting import fit_hits_among, neighbourhoods
from deep_ranking.search.hit_probability import without_query

MOST_PAIRS = 20_000
"""Pairs of either kind."""

MOST_IMAGES, MOST_OF_CLASS = 20_000, 1_000
MOST_QUERIES = 2_000
HITS_PER_QUERY = 20


class JudgedPairs(NamedTuple):
    """Pairs of images, equally many of one class and of two.

    Attributes:
        probabilities: float64 (pairs,), stated to be of one class, 0 to 1.
        right: bool (pairs,), whether they are.
    """

    probabilities: Float64Array
    right: BoolArray


@dataclass(frozen=True)
class JudgedHits:
    """Hits of searches.

    Attributes:
        chances: float64 (hits,), stated p(hit), 0 to 1.
        pairwise: float64 (hits,), probability that query and hit share a class, if same and
            different pairs were equally frequent; None where it is not known.
        right: bool (hits,), whether they are of the query's class.
        num_queries: searches.
        num_images: images of the collection that was searched.
    """

    chances: Float64Array
    pairwise: Float64Array | None
    right: BoolArray
    num_queries: int
    num_images: int


def judge_pairs(
    embeddings: FloatArray,
    labels: npt.NDArray[np.str_],
    calibration: Calibration | None,
    *,
    seed: int = 0,
) -> JudgedPairs | None:
    """Return what a calibration states of pairs of images, and what is right.

    Args:
        embeddings: float (images, dim), unit rows, in memory or memory-mapped.
        labels: array (images,) of classes.
        calibration: the model's; None to fit one to pairs of half of the classes, and to judge it
            on pairs of the others.
        seed: decides which classes, and which pairs: at most 20,000 of either kind.

    Returns:
        The pairs; None if there are too few.
    """
    codes = np.unique(labels, return_inverse=True)[1]
    judged = np.arange(len(codes))
    if calibration is None:
        try:
            held = hold_back_classes(codes, 0.5, seed)
        except InputError:  # fewer than four classes
            return None
        calibration = _fit_pairs(embeddings, codes, np.flatnonzero(~held), seed)
        judged = np.flatnonzero(held)
    distances = _distances_of_pairs(embeddings, codes, judged, seed)
    if calibration is None or distances is None:
        return None
    right = np.arange(2 * len(distances[0])) < len(distances[0])
    return JudgedPairs(pair_probabilities(calibration, np.concatenate(distances)), right)


def judge_hits(
    embeddings: FloatArray,
    labels: npt.NDArray[np.str_],
    calibration: Calibration | None,
    *,
    seed: int = 0,
) -> JudgedHits | None:
    """Return what is stated of hits in a collection of half of the images, and what is right.

    The images of each class are split in two halves. One is the collection, which p(hit) is
    learned from as for a collection on disk. The others are the queries, with 20 hits each.

    Args:
        embeddings: float (images, dim), unit rows, in memory or memory-mapped.
        labels: array (images,) of classes.
        calibration: the model's; None to fit one to pairs of the collection.
        seed: decides which images: at most 20,000, 1,000 of a class and 2,000 queries.

    Returns:
        The hits; None if there are too few images to learn p(hit) from.
    """
    codes = np.unique(labels, return_inverse=True)[1]
    collection, queries = split_images(codes, seed)
    rows, classes = embeddings[collection], codes[collection]
    learned = fit_hits_among(rows, classes, seed=seed)
    if learned is None:
        return None
    hits, around = find_hits(embeddings[queries], rows, classes)
    calibration = calibration or _fit_pairs(rows, classes, np.arange(len(rows)), seed)
    found = np.isfinite(hits.distances)
    return JudgedHits(
        learned.probabilities(hits.distances, around)[found],
        None if calibration is None else pair_probabilities(calibration, hits.distances[found]),
        (hits.classes == codes[queries, None])[found],
        len(queries),
        len(rows),
    )


def split_images(classes: IntArray, seed: int) -> tuple[Int64Array, Int64Array]:
    """Split the images of each class into a collection and queries.

    Args:
        classes: integers (images,).
        seed: decides which: at most 20,000 images, of whole classes but for 1,000 of each.

    Returns:
        Rows of the collection, and of at most 2,000 queries: int64, rising. A class of an odd
        number has one more in the collection.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(classes))
    codes = np.unique(classes, return_inverse=True)[1]
    turn = rng.permutation(int(codes.max()) + 1)[codes[shuffled]]
    order = np.argsort(turn, kind="stable")
    turn, shuffled = turn[order], shuffled[order]  # class by class
    place = np.arange(len(turn)) - np.searchsorted(turn, turn)  # within the class
    kept = np.flatnonzero(place < MOST_OF_CLASS)[:MOST_IMAGES]
    is_query = place[kept] % 2 == 1
    queries = shuffled[kept[is_query]]
    if len(queries) > MOST_QUERIES:
        queries = rng.choice(queries, MOST_QUERIES, replace=False)
    return np.sort(shuffled[kept[~is_query]]), np.sort(queries)


def find_hits(
    queries: FloatArray, rows: FloatArray, classes: IntArray, *, count: int = HITS_PER_QUERY
) -> tuple[Neighbourhood, Neighbourhood]:
    """Search a collection in memory, exactly.

    Args:
        queries: float (queries, dim), unit rows.
        rows: float (images, dim), unit rows of the collection.
        classes: integers (images,).
        count: hits of each query.

    Returns:
        The hits of each query, and its neighbourhood as `HitCalibration.probabilities` takes it.
    """
    depth = max(count, DEPTH + 1)
    near = [
        ranking.order[:, :depth].astype(np.int64)  # a copy: the whole ranking is let go
        for ranking in rank_gallery(queries, rows, nearest=1)
    ]
    around = neighbourhoods(queries, np.arange(len(queries)), rows, np.concatenate(near), classes)
    hits = Neighbourhood(around.distances[:, :count], around.classes[:, :count])
    return hits, without_query(around)


def pair_probabilities(calibration: Calibration, distances: Float64Array) -> Float64Array:
    """Return the probability of each pair to be of one class: float64 (pairs,).

    Args:
        calibration: of the model.
        distances: float64 (pairs,), Euclidean.
    """
    return np.array([calibration.probability(each) for each in distances.tolist()])


def _fit_pairs(
    embeddings: FloatArray, codes: IntArray, images: Int64Array, seed: int
) -> Calibration | None:
    """Fit a calibration to pairs of some images; None if there are too few."""
    distances = _distances_of_pairs(embeddings, codes, images, seed)
    try:
        return None if distances is None else fit_calibration(*distances)
    except InputError:
        return None


def _distances_of_pairs(
    embeddings: FloatArray, codes: IntArray, images: Int64Array, seed: int
) -> tuple[Float64Array, Float64Array] | None:
    """Return distances of same and of different pairs of some images; None if there are none."""
    try:
        same, different = sample_pairs(codes[images], MOST_PAIRS, seed=seed)
    except ValueError:
        return None
    same_distances, different_distances = (
        pair_distances(embeddings, embeddings, *images[pairs].T) for pairs in (same, different)
    )
    return same_distances, different_distances
