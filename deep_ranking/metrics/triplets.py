"""The two metrics of the deep ranking paper, on triplets (Wang et al. 2014, section 6.2).

Ties: a triplet whose positive and negative are equally far from the query is wrong. A collapsed
model, which maps all images to one point, thus scores 0 and not one half.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import BoolArray, Float64Array, FloatArray, Int64Array, IntArray
from deep_ranking.metrics.distances import MEMORY_LIMIT, GalleryDistances, pair_distances


def triplet_distances(
    embeddings: FloatArray, triplets: IntArray, gallery: FloatArray | None = None
) -> tuple[Float64Array, Float64Array]:
    """Return the Euclidean distances of each triplet's query to its positive and negative.

    Args:
        embeddings: float array (n, dim).
        triplets: integer array (triplets, 3) of rows: query, positive, negative.
        gallery: float array (m, dim) that positives and negatives are rows of; by default
            `embeddings`.

    Returns:
        Distances to the positives and to the negatives, float64 (triplets,) each.

    Raises:
        ValueError: the triplets are not (triplets, 3), dimensions differ, or a row is not finite.
    """
    _check_triplets(triplets)
    gallery = embeddings if gallery is None else gallery
    query, positive, negative = triplets.T
    return (
        pair_distances(embeddings, gallery, query, positive),
        pair_distances(embeddings, gallery, query, negative),
    )


def correct_triplets(
    positive_distances: Float64Array, negative_distances: Float64Array
) -> BoolArray:
    """Return whether the positive of each triplet is strictly nearer than its negative.

    Args:
        positive_distances: float array (triplets,), query to positive.
        negative_distances: float array (triplets,), query to negative.

    Returns:
        Bool array (triplets,); a tie is wrong.

    Raises:
        ValueError: the shapes differ or a distance is NaN.
    """
    _check_shapes("distance", positive_distances, negative_distances)
    undefined = np.isnan(positive_distances) | np.isnan(negative_distances)
    if undefined.any():
        raise ValueError(
            f"Distances must be numbers. Received: NaN in triplet {int(np.argmax(undefined))}."
        )
    return np.less(positive_distances, negative_distances)


def similarity_precision(
    positive_distances: Float64Array, negative_distances: Float64Array
) -> float:
    """Return the similarity precision: the share of triplets with D(q, p) < D(q, n) (section 6.2).

    D is the distance of the query q to its positive p or negative n.

    Args:
        positive_distances: float array (triplets,), query to positive.
        negative_distances: float array (triplets,), query to negative.

    Returns:
        0 to 1; a tie is wrong. NaN without triplets.

    Raises:
        ValueError: the shapes differ or a distance is NaN.
    """
    correct = correct_triplets(positive_distances, negative_distances)
    return float(correct.mean()) if correct.size else float("nan")


def triplet_ranks(
    embeddings: FloatArray, triplets: IntArray, *, memory_limit: int = MEMORY_LIMIT
) -> tuple[Int64Array, Int64Array]:
    """Return the ranks of each triplet's positive and negative among all images but the query.

    The rank is 1 plus the number of images that are strictly nearer. Ties: images at equal distance
    share a rank.

    Args:
        embeddings: float array (n, dim), finite.
        triplets: integer array (triplets, 3) of rows: query, positive, negative.
        memory_limit: bytes that a chunk of queries may take, besides the embeddings.

    Returns:
        Ranks of the positives and of the negatives from 1, int64 (triplets,) each.

    Raises:
        ValueError: the triplets are not (triplets, 3), or one has its own query as positive or
            negative; the array is empty or has a row that is not finite.
    """
    _check_triplets(triplets)
    itself = (triplets[:, :1] == triplets[:, 1:]).any(axis=1)
    if itself.any():
        triplet = int(np.argmax(itself))
        raise ValueError(
            "The query must not be its own positive or negative. "
            f"Received: {triplets[triplet].tolist()} (triplet {triplet})."
        )
    distances = GalleryDistances(embeddings, memory_limit=memory_limit)
    ranks = np.empty((len(triplets), 2), np.int64)
    queries, counts = np.unique(triplets[:, 0], return_counts=True)
    by_query = np.argsort(triplets[:, 0], kind="stable")
    triplets_of = np.split(by_query, np.cumsum(counts)[:-1])
    for chunk in distances.query_chunks(len(queries)):
        rows = queries[chunk]
        squared = distances.squared(embeddings[rows], rows[:, np.newaxis])
        for around, members in zip(squared, triplets_of[chunk], strict=True):
            ranks[members] = np.searchsorted(np.sort(around), around[triplets[members, 1:]]) + 1
    return ranks[:, 0], ranks[:, 1]


def score_at_top_k(positive_ranks: IntArray, negative_ranks: IntArray, *, k: int = 30) -> int:
    """Return the score at top K: correct minus incorrect triplets that count (section 6.2).

    A triplet counts if its positive or its negative is one of the K nearest gallery images of its
    query. It is correct if the positive has the lower rank. The paper ranks 1,000 images of the
    query's text search; here the gallery is the one of `triplet_ranks`. The score grows with the
    number of triplets, so compare it only on the same triplets.

    Args:
        positive_ranks: integer array (triplets,), from `triplet_ranks`.
        negative_ranks: integer array (triplets,).
        k: depth; the paper's is 30.

    Returns:
        -triplets to triplets. Ties share a rank: such a triplet is incorrect. 0 without triplets.

    Raises:
        ValueError: the shapes differ or `k` is below 1.
    """
    _check_shapes("rank", positive_ranks, negative_ranks)
    if k < 1:
        raise ValueError(f"k must be at least 1. Received: k={k}.")
    counted = np.minimum(positive_ranks, negative_ranks) <= k
    correct = np.less(positive_ranks, negative_ranks)
    return int((counted & correct).sum() - (counted & ~correct).sum())


def _check_shapes(name: str, positive: npt.NDArray[Any], negative: npt.NDArray[Any]) -> None:
    if np.shape(positive) != np.shape(negative):
        raise ValueError(
            f"Each triplet has a positive and a negative {name}. "
            f"Received: shapes {np.shape(positive)} and {np.shape(negative)}."
        )


def _check_triplets(triplets: IntArray) -> None:
    if np.ndim(triplets) != 2 or triplets.shape[1] != 3:
        raise ValueError(
            "Triplets are rows of query, positive and negative: (triplets, 3). "
            f"Received: shape {np.shape(triplets)}."
        )
