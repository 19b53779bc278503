"""Smoothing: each row of a collection becomes the weighted mean of itself and its nearest rows.

    row_i' = unit(sum over the K nearest j of max(cos_ij, 0)^power * row_j)

The K nearest of a row are the row itself, with the similarity 1, and the K - 1 rows nearest to it;
ties by row number. A query is smoothed likewise, over the K - 1 rows nearest to it, so that an
image of the collection searches with its own smoothed row. It is transductive: a row depends on the
other rows of its collection. So it is a mode of search, and no property of the model.

The functions here are pure: arrays in, arrays out. `smoothing_choice` chooses K and the power, and
`smoothed_collection` keeps a collection smoothed.

References:
    Turcot and Lowe 2009, "Better matching with fewer features" (database-side augmentation).
    Radenovic et al. 2019, "Fine-tuning CNN Image Retrieval with No Human Annotation", section 5
    (weights that are a power of the similarity).
"""

from typing import NamedTuple

import numpy as np

from deep_ranking.files.array_types import Float32Array, FloatArray, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.metrics import pair_distances
from deep_ranking.metrics.distances import slices
from deep_ranking.search.index.base import Index, batches, read_rows
from deep_ranking.search.index.exact import ExactIndex

ROWS_AT_ONCE = 4_096
# An index compares in float32. It is asked for some rows more than are wanted, which are then
# compared in float64; and for yet more while one that it left out may be as near.
SPARE, MOST_CANDIDATES = 8, 2_048
ROUNDING = 5e-5
"""Largest error of the similarity of two unit rows that an index computes in float32."""

ELEMENTS_AT_ONCE = 1 << 24
SAME_CONTENT = 1e-3
"""Distance below which a row is that of a query itself, stored as float16 or not."""


class NearestRows(NamedTuple):
    """The nearest rows of each of some rows: itself, then the others, nearest first.

    Attributes:
        rows: int64 (rows, K), -1 where there are fewer.
        similarities: float32 (rows, K), cosines: 1 for the row itself, 0 where there is none.
    """

    rows: Int64Array
    similarities: Float32Array


def nearest_rows(
    embeddings: Rows,
    queries: Int64Array,
    index: Index,
    count: int,
    *,
    known: NearestRows | None = None,
) -> NearestRows:
    """Find the nearest rows of some rows: each itself, and the `count` - 1 others nearest to it.

    The index finds them; their order is that of similarities that are computed in float64 and
    rounded to float32, ties by row number. So an exact index gives the same answer whatever rows
    are asked for together. Exception: where over 2,000 rows are as near as the last one, rounding
    decides which of them are among the nearest.

    Args:
        embeddings: float (all rows, dim), unit rows.
        queries: int64 (queries,), the rows to find neighbours for.
        index: an index of the rows that may be found.
        count: K, at least 1.
        known: the nearest of each query among other rows than those of the index; those of the
            index are added to them.

    Returns:
        The nearest of each, -1 where there are fewer than `count`.

    Example:
        >>> import numpy as np
        >>> from deep_ranking.search.index.exact import ExactIndex
        >>> rows = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
        >>> every = np.arange(3)
        >>> nearest_rows(rows, every, ExactIndex(rows, every), 2).rows.tolist()
        [[0, 1], [1, 0], [2, 1]]
    """
    if known is None:
        known = NearestRows(
            np.full((len(queries), count), -1, np.int64),
            np.zeros((len(queries), count), np.float32),
        )
        known.rows[:, 0], known.similarities[:, 0] = queries, 1
    result = NearestRows(known.rows.copy(), known.similarities.copy())
    todo, width = np.arange(len(queries)), count + SPARE
    while len(todo):
        own = queries[todo]
        found = index.search(read_rows(embeddings, own), width)
        reached = 1 - found.distances**2 / 2 + ROUNDING  # -infinity where none was found
        candidates = np.where(reached >= _last(known, todo)[:, None], found.rows, -1)
        some = np.flatnonzero((candidates >= 0).any(axis=1))
        both = np.hstack([known.rows[todo[some]], candidates[some]])
        result.rows[todo[some]], result.similarities[todo[some]] = merged_nearest(
            embeddings, own[some], both, count
        )
        if found.rows.shape[1] < width or width >= MOST_CANDIDATES:
            break
        # One that the index left out may be as near as the last one.
        todo = todo[np.isfinite(reached[:, -1]) & (reached[:, -1] >= _last(result, todo))]
        width *= 4
    return result


def _last(nearest: NearestRows, lines: Int64Array) -> Float32Array:
    """Return the similarity that a row must have to be among the nearest; -infinity for any."""
    is_full = nearest.rows[lines, -1] >= 0
    return np.where(is_full, nearest.similarities[lines, -1], np.float32(-np.inf))


def merged_nearest(
    embeddings: Rows, own: Int64Array, candidates: Int64Array, count: int
) -> NearestRows:
    """Return the nearest rows among candidates, measured exactly; each row itself comes first.

    Args:
        embeddings: float (all rows, dim), unit rows.
        own: int64 (rows,), the rows themselves.
        candidates: int64 (rows, candidates), each row at most once in a line, -1 for none.
        count: K.
    """
    others = np.where(candidates == own[:, None], -1, candidates)
    line, column = np.nonzero(others >= 0)
    distances = pair_distances(embeddings, embeddings, own[line], others[line, column])
    similarities = np.full(others.shape, -np.inf, np.float32)
    similarities[line, column] = 1 - distances**2 / 2
    order = np.lexsort((others, -similarities))[:, : count - 1]
    found = np.full((len(own), count), -1, np.int64)
    measured = np.zeros((len(own), count), np.float32)
    found[:, 0], measured[:, 0] = own, 1
    end = 1 + order.shape[1]
    found[:, 1:end] = np.take_along_axis(others, order, axis=1)
    measured[:, 1:end] = np.take_along_axis(similarities, order, axis=1)
    measured[found < 0] = 0
    return NearestRows(found, measured)


def smoothed(
    embeddings: Rows, neighbours: Int64Array, similarities: Float32Array, power: float
) -> Float32Array:
    """Return the smoothed rows: unit(sum over j of max(similarity_j, 0)^power * row_j).

    Args:
        embeddings: float (all rows, dim), unit rows.
        neighbours: int64 (rows, K), the row itself first; -1 for none.
        similarities: float32 (rows, K); a neighbour with 0 or less has no weight.
        power: above 0; a higher one smooths less.

    Returns:
        float32 (rows, dim), unit rows.

    Example:
        >>> import numpy as np
        >>> rows = np.array([[1, 0], [0, 1]], np.float32)
        >>> smoothed(rows, np.array([[0, 1]]), np.array([[1, 1]], np.float32), 3).round(3).tolist()
        [[0.7070000171661377, 0.7070000171661377]]
    """
    weights = np.maximum(similarities, 0) ** np.float32(power)
    weights[neighbours < 0] = 0
    # A row that is not there may be of an image that could not be read, and hold NaN.
    rows = np.where(neighbours < 0, neighbours[:, :1], neighbours)
    result = np.empty((len(neighbours), embeddings.shape[1]), np.float32)
    for part in slices(len(rows), ELEMENTS_AT_ONCE // max(1, rows.shape[1] * result.shape[1])):
        gathered = np.asarray(embeddings[rows[part]], np.float32)  # (rows, K, dim)
        result[part] = np.matmul(weights[part, None], gathered)[:, 0]
    result /= np.linalg.norm(result, axis=1, keepdims=True)
    return result


def smooth_rows(embeddings: FloatArray, num_neighbours: int, power: float) -> Float32Array:
    """Smooth all rows of a matrix by each other, in memory.

    Args:
        embeddings: float (rows, dim), unit rows.
        num_neighbours: K, the row itself among them; 0 or 1 changes nothing.
        power: of the similarity, above 0.

    Returns:
        float32 (rows, dim), unit rows.
    """
    every = np.arange(len(embeddings))
    index = ExactIndex(embeddings, every)
    result = np.array(embeddings, np.float32)
    if num_neighbours > 1:
        for part in batches(every, ROWS_AT_ONCE):
            nearest = nearest_rows(embeddings, part, index, num_neighbours)
            result[part] = smoothed(embeddings, *nearest, power)
    return result


def smoothed_query(query: Float32Array, nearest: Float32Array, power: float) -> Float32Array:
    """Return a query as a row of the collection would be smoothed.

    Args:
        query: float32 (dim,), a unit row.
        nearest: float32 (rows, dim), the unit rows that are nearest to it. A row of the query's own
            content has no weight: it is the query itself.
        power: of the similarity, above 0.

    Returns:
        float32 (dim,), a unit row.

    Example:
        >>> import numpy as np
        >>> smoothed_query(np.float32([1, 0]), np.float32([[1, 0], [0.6, 0.8]]), 2)
        array([0.9730803, 0.2304664], dtype=float32)
    """
    near = nearest.astype(np.float64)
    weights = np.maximum(near @ query, 0) ** power
    weights[np.linalg.norm(near - query, axis=1) < SAME_CONTENT] = 0
    mean = query + weights @ near
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def smoothing_in_words(num_neighbours: int, power: float) -> str:
    """Return how rows are smoothed, such as "over 20 nearest, power 2"."""
    return f"over {num_neighbours} nearest, power {power:g}"
