"""Relevance feedback: move queries towards images that are like what is wanted, and from others.

Rocchio's method (J. J. Rocchio, Relevance feedback in information retrieval, in The SMART Retrieval
System, 1971), with the weights that Manning, Raghavan and Schuetze recommend (Introduction to
Information Retrieval, 2008, section 9.1.1):

    q' = q + 0.75 mean(like) - 0.15 mean(unlike), scaled to unit length
"""

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array

LIKE_WEIGHT, UNLIKE_WEIGHT = 0.75, 0.15


def moved_queries(
    queries: Float32Array,
    like: Float32Array | None = None,
    unlike: Float32Array | None = None,
    *,
    like_weight: float = LIKE_WEIGHT,
    unlike_weight: float = UNLIKE_WEIGHT,
) -> Float32Array:
    """Return queries moved towards some images and away from others.

    Args:
        queries: float32 (queries, dim), unit rows.
        like: float32 (images, dim), unit rows; None or empty for none.
        unlike: likewise, the images to move away from.
        like_weight: of the mean of `like`, beta.
        unlike_weight: of the mean of `unlike`, gamma.

    Returns:
        float32 (queries, dim), unit rows; `queries` itself if there is nothing to move by.

    Example:
        >>> moved_queries(np.float32([[1, 0]]), np.float32([[0, 1]]))
        array([[0.8, 0.6]], dtype=float32)

    Raises:
        InputError: a query is moved to the origin, where no direction is left.
    """
    moved = queries.astype(np.float64)
    for rows, weight in ((like, like_weight), (unlike, -unlike_weight)):
        if rows is not None and len(rows):
            moved = moved + weight * np.mean(rows, axis=0, dtype=np.float64)
    if not any(rows is not None and len(rows) for rows in (like, unlike)):
        return queries
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    if (lengths < 1e-6).any():
        raise InputError("the images to be unlike cancel the query; leave some out of --unlike")
    return np.asarray(moved / lengths, np.float32)
