"""Join embeddings that are near each other, without a matrix of all pairs.

Every embedding asks the index for those nearer than a threshold, some thousand at a time, and what
is found is joined at once: memory grows with the number of rows, never with that of their pairs.
"""

import numpy as np
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

from deep_ranking.files.array_types import FloatArray, Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.metrics import pair_distances
from deep_ranking.search.index.base import Index, read_rows

QUERIES_AT_ONCE = 4096
FIRST_QUERIES = 64  # until it is known how many neighbours there are
PAIRS_AT_ONCE = 1 << 22
PAIRS_DECIDED_AT_ONCE = 1 << 18

# What float32 may do to the squared distance of two rows of unit length that an index gives.
ROUNDING = 1e-4


def group_near_rows(
    embeddings: FloatArray,
    rows: Int64Array,
    index: Index,
    threshold: float,
    *,
    progress: bool = False,
) -> Int64Array:
    """Join rows that are nearer than a threshold, and rows that are joined to one row.

    Args:
        embeddings: float (all rows, dim), unit rows, memory-mapped.
        rows: int64 (rows,) that count, rising.
        index: finds them; what it finds besides does not count.
        threshold: Euclidean distance, above 0.
        progress: whether to show it.

    Returns:
        int64 (rows,): rows that are joined have the same number.
    """
    labels = np.arange(len(rows))
    # What the index computes in float32 is not exact, least of all near 0: it is asked for more.
    radius = float(np.sqrt(threshold**2 + ROUNDING))
    begin, step = 0, min(FIRST_QUERIES, QUERIES_AT_ONCE)
    with progress_bar(total=len(rows), title="comparing", unit="images", shown=progress) as bar:
        while begin < len(rows):
            part = rows[begin : begin + step]
            found = index.within(read_rows(embeddings, part), radius)
            first = begin + np.repeat(np.arange(len(part)), np.diff(found.limits))
            second = np.minimum(np.searchsorted(rows, found.rows), len(rows) - 1)
            known = rows[second] == found.rows
            labels = _join(embeddings, rows, labels, (first[known], second[known]), threshold)
            begin += len(part)
            bar.update(len(part))
            fitting = PAIRS_AT_ONCE * len(part) // max(1, len(first))
            step = max(1, min(QUERIES_AT_ONCE, 4 * step, fitting))
    return labels


def _join(
    embeddings: FloatArray,
    rows: Int64Array,
    labels: Int64Array,
    pairs: tuple[Int64Array, Int64Array],
    threshold: float,
) -> Int64Array:
    """Join the pairs that are nearer than the threshold; those joined already cost nothing."""
    for begin in range(0, len(pairs[0]), PAIRS_DECIDED_AT_ONCE):
        first, second = (each[begin : begin + PAIRS_DECIDED_AT_ONCE] for each in pairs)
        apart = labels[first] != labels[second]
        first, second = first[apart], second[apart]
        distances = pair_distances(embeddings, embeddings, rows[first], rows[second])
        near = distances < threshold
        if near.any():
            ends = labels[first[near]], labels[second[near]]
            graph = coo_array((np.ones(near.sum(), np.int8), ends), shape=(len(rows), len(rows)))
            labels = connected_components(graph, directed=False)[1].astype(np.int64)[labels]
    return labels
