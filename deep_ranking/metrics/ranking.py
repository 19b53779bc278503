"""Rankings: the complete gallery by distance from each query, in chunks of bounded memory.

Ties: gallery rows at equal distance keep the order of the gallery. `GalleryDistances` states the
precision of the distances.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float64Array, FloatArray, Int64Array, IntArray
from deep_ranking.metrics.distances import (
    MEMORY_LIMIT,
    GalleryDistances,
    check_embeddings,
    pair_distances,
)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The gallery in order of distance, for a chunk of the queries.

    Attributes:
        queries: slice of the queries in this chunk.
        order: uint32 array (chunk, ranked) of gallery rows, nearest first; ranked is the largest of
            `num_ranked`. A query that ranks fewer rows has excluded ones in its last columns.
        distances: float64 array (chunk, nearest), Euclidean distances of the first columns of
            `order`; infinite for an excluded row.
        num_ranked: int64 array (chunk,), for each query the gallery rows less its excluded ones:
            so many columns of `order` are its ranking.
    """

    queries: slice
    order: npt.NDArray[np.uint32]
    distances: Float64Array
    num_ranked: Int64Array


def rank_gallery(
    queries: FloatArray,
    gallery: FloatArray,
    *,
    exclude: IntArray | None = None,
    nearest: int = 30,
    memory_limit: int = MEMORY_LIMIT,
) -> Iterator[Ranking]:
    """Rank all gallery rows by Euclidean distance to each query, a chunk of queries at a time.

    Args:
        queries: float array (queries, dim).
        gallery: float array (gallery, dim); may be the same array.
        exclude: integer array (queries,) or (queries, most), for each query the gallery rows that
            are left out of its ranking, such as the query itself, each row once; -1 for none.
            Without `exclude`, every gallery row is ranked.
        nearest: how many neighbours get an exact distance; at most all that are ranked.
        memory_limit: bytes that a chunk may take, besides the embeddings.

    Yields:
        A `Ranking` for each chunk, in the order of the queries. All rows are sorted by squared
        distance in float32. The nearest are then sorted again, after small distances among them
        have been recomputed from differences. Ties keep the order of the gallery.

    Raises:
        ValueError: queries or gallery are not a matrix, are empty or not finite; their dimensions
            differ; `exclude` does not name gallery rows, or -1, for each query; or nothing is left
            to rank for any query.
    """
    check_embeddings(queries, "queries")
    distances = GalleryDistances(gallery, memory_limit=memory_limit)
    num_ranked = np.full(len(queries), len(gallery), np.int64)
    if exclude is not None:
        exclude = _checked_exclude(exclude, len(queries), len(gallery))
        num_ranked -= (exclude >= 0).sum(axis=1)
    ranked = int(num_ranked.max())
    if ranked == 0:
        raise ValueError("Nothing to rank: the only row of the gallery is the query itself.")
    nearest = min(nearest, ranked)
    for chunk in distances.query_chunks(len(queries)):
        squared = distances.squared(queries[chunk], None if exclude is None else exclude[chunk])
        order = _order(squared)[:, :ranked]
        nearest_rows = order[:, :nearest]
        nearest_squared = np.take_along_axis(squared, nearest_rows.astype(np.int64), axis=1)
        exact = np.sqrt(nearest_squared, dtype=np.float64)
        close_queries, close = np.nonzero(nearest_squared < distances.exact_below)
        exact[close_queries, close] = pair_distances(
            queries, gallery, chunk.start + close_queries, nearest_rows[close_queries, close]
        )
        resorted = np.lexsort((nearest_rows, exact), axis=1)
        order[:, :nearest] = np.take_along_axis(nearest_rows, resorted, axis=1)
        yield Ranking(chunk, order, np.take_along_axis(exact, resorted, axis=1), num_ranked[chunk])


def _checked_exclude(exclude: IntArray, num_queries: int, num_gallery: int) -> IntArray:
    """Return `exclude` as (queries, most); raise ValueError unless it names gallery rows."""
    if np.ndim(exclude) not in (1, 2) or len(exclude) != num_queries or exclude.size == 0:
        raise ValueError(
            f"exclude must name gallery rows for each of {num_queries} queries. "
            f"Received: shape {np.shape(exclude)}."
        )
    if exclude.min() < -1 or exclude.max() >= num_gallery:
        raise ValueError(
            f"exclude must name rows 0 to {num_gallery - 1} of the gallery, or -1 for none. "
            f"Received: {exclude.min()} to {exclude.max()}."
        )
    exclude = exclude.reshape(num_queries, -1)
    rising = np.sort(exclude, axis=1)
    twice = ((rising[:, 1:] == rising[:, :-1]) & (rising[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        query = int(np.argmax(twice))
        raise ValueError(
            "exclude must name a gallery row once for each query. "
            f"Received: {exclude[query].tolist()} (query {query})."
        )
    return exclude


def _order(squared: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return the stable order of each row, over twice as fast as a stable argsort.

    It sorts 64-bit keys once: the distance in the upper half, the gallery row in the lower half.
    The bits of non-negative floats sort as the floats do.
    """
    num_gallery = squared.shape[1]
    gallery_rows = np.arange(num_gallery, dtype=np.uint64)
    keys = np.empty(num_gallery, np.uint64)
    order = np.empty(squared.shape, np.uint32)
    for query, bits in enumerate(squared.view(np.uint32)):
        np.left_shift(bits, 32, out=keys, dtype=np.uint64)
        keys |= gallery_rows
        keys.sort()
        order[query] = keys.astype(np.uint32)  # keeps the lower half
    return order
