"""Rank the results of a search again, by what the collection knows of them.

    query expansion   search again with the weighted mean of the query and its 10 nearest rows,
                      each weighted by its squared cosine (Radenovic et al. 2018, "Fine-tuning CNN
                      Image Retrieval with No Human Annotation", alpha-QE)
    k-reciprocal      order the first 200 by how many neighbours a row and the query have in common
                      (Zhong et al. 2017, "Re-ranking Person Re-identification with k-reciprocal
                      Encoding"), where neighbours are looked for among the 200 and the query

Smoothed rows have learned from their neighbours already: of them, query expansion alone gains as
more in a tenth of the time (`benchmarks/search_modes.py`). Plain rows go through both steps.
Beside the second search, the work for a query does not grow with the collection.
"""

import numpy as np

from deep_ranking.files.array_types import Float32Array, Float64Array
from deep_ranking.search.smoothing import smoothed_query

NUM_EXPANDING, EXPANSION_POWER = 10, 2
NUM_RERANKED = 200
NUM_RECIPROCAL, NUM_AVERAGED = 20, 6
DISTANCE_WEIGHT = 0.3
"""Of half the squared distance, beside the Jaccard distance: lambda of Zhong et al."""


def expanded(query: Float32Array, nearest: Float32Array) -> Float32Array:
    """Return a query moved towards the 10 rows nearest to it: a unit row, float32 (dim,).

    Args:
        query: float32 (dim,), a unit row.
        nearest: float32 (rows, dim), unit rows, nearest first.
    """
    return smoothed_query(query, nearest[:NUM_EXPANDING], EXPANSION_POWER)


def reciprocal_distances(query: Float32Array, nearest: Float32Array) -> Float64Array:
    """Return the distances that rank the rows nearest to a query again.

    A row's k-reciprocal neighbours are those of its 20 nearest that have it among their own 20
    nearest. Each of these adds its own 10-reciprocal neighbours, where two thirds of them are among
    the row's. The result is encoded as a vector over all rows, weighted by exp(-squared distance),
    and averaged over the row's 6 nearest. Two rows are as far apart as the Jaccard distance of
    their vectors, 70 %, and half their squared distance, 30 %.

    Args:
        query: float32 (dim,), a unit row.
        nearest: float32 (rows, dim), unit rows, 1 or more.

    Returns:
        float64 (rows,), 0 (alike) to 1.3.
    """
    rows = np.concatenate([query[None], nearest])
    cosines = np.minimum((rows @ rows.T).astype(np.float64), 1.0)
    itself = cosines + 2 * np.identity(len(rows))  # each row is its own nearest
    reciprocal = _reciprocal(itself, NUM_RECIPROCAL)
    narrow = _reciprocal(itself, NUM_RECIPROCAL // 2)
    common = reciprocal @ narrow.T  # (rows, rows): how many of j's narrow ones are among i's
    adds = (reciprocal > 0) & (common > 2 / 3 * narrow.sum(axis=1))
    neighbours = (reciprocal + adds @ narrow) > 0
    codes = np.where(neighbours, np.exp(2 * cosines - 2), 0)
    codes /= codes.sum(axis=1, keepdims=True)
    averaged = min(NUM_AVERAGED, len(rows))
    first = np.argsort(-itself, axis=1, kind="stable")[:, :averaged]
    codes = codes[first].mean(axis=1)
    shared = np.minimum(codes[0], codes[1:]).sum(axis=1)
    jaccard = 1 - shared / (2 - shared)
    found: Float64Array = (1 - DISTANCE_WEIGHT) * jaccard + DISTANCE_WEIGHT * (1 - cosines[0, 1:])
    return found


def _reciprocal(itself: Float64Array, count: int) -> Float64Array:
    """Return 1 where two rows are among each other's `count` nearest: float64 (rows, rows)."""
    size = min(count + 1, len(itself))  # and itself
    farthest = -np.partition(-itself, size - 1, axis=1)[:, size - 1 : size]
    near = itself >= farthest
    return np.asarray(near & near.T, np.float64)


def reranking_in_words(*, of_smoothed_rows: bool) -> str:
    """Return how results are ranked again, such as "each query moved towards its 10 nearest"."""
    moved = f"each query moved towards its {NUM_EXPANDING} nearest"
    if of_smoothed_rows:
        return moved
    return f"{moved}, the first {NUM_RERANKED} ranked again by common neighbours"
