"""Relevance feedback: move queries towards images that are like what is wanted, and from others.

A query and its plus examples count alike, and a share of the minus examples is taken off:

    q' = mean(q, like) - 0.4 mean(unlike), scaled to unit length

The form is Rocchio's (J. J. Rocchio, Relevance feedback in information retrieval, in The SMART
Retrieval System, 1971). The weights that are usual for words, q + 0.75 mean(like) - 0.15
mean(unlike), found less: benchmarks/examples.py compares them.
"""

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array

UNLIKE_SHARE = 0.4


def moved_queries(
    queries: Float32Array,
    like: Float32Array | None = None,
    unlike: Float32Array | None = None,
    *,
    unlike_share: float = UNLIKE_SHARE,
) -> Float32Array:
    """Return queries moved towards some images and away from others.

    Args:
        queries: float32 (queries, dim), unit rows.
        like: float32 (images, dim), unit rows; None or empty for none.
        unlike: likewise, the images to move away from.
        unlike_share: of the mean of `unlike`, that is taken off.

    Returns:
        float32 (queries, dim), unit rows; `queries` itself if there is nothing to move by.

    Example:
        >>> moved_queries(np.float32([[1, 0]]), np.float32([[0, 1]]))
        array([[0.70710677, 0.70710677]], dtype=float32)

    Raises:
        InputError: a query is moved to the origin, where no direction is left.
    """
    if not any(rows is not None and len(rows) for rows in (like, unlike)):
        return queries
    moved = queries.astype(np.float64)
    if like is not None and len(like):
        moved = (moved + np.sum(like, axis=0, dtype=np.float64)) / (1 + len(like))
    if unlike is not None and len(unlike):
        moved -= unlike_share * np.mean(unlike, axis=0, dtype=np.float64)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    if (lengths < 1e-6).any():
        raise InputError("the images to be unlike cancel the query; leave some out of --unlike")
    return np.asarray(moved / lengths, np.float32)
