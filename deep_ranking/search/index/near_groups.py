"""Group embeddings that are near each other, without a matrix of all pairs.

Each block of up to 4,096 embeddings asks the index for its neighbours within a threshold, and the
groups of the pairs found are merged before the next block. So memory grows with the number of
embeddings, never with the number of pairs.
"""

import numpy as np

from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.stored_rows import Rows
from deep_ranking.images.connected_groups import join_pairs
from deep_ranking.metrics import pair_distances
from deep_ranking.search.index.base import Index, read_rows

QUERIES_AT_ONCE = 4096
FIRST_QUERIES = 64  # until the usual number of neighbours is known
PAIRS_AT_ONCE = 1 << 22
PAIRS_MEASURED_AT_ONCE = 1 << 18

# Largest error of the squared distance of two unit rows that an index computes in float32.
ROUNDING = 1e-4


def group_near_rows(
    embeddings: Rows,
    rows: Int64Array,
    index: Index,
    threshold: float,
    *,
    progress: bool = False,
) -> Int64Array:
    """Number the groups of rows that a chain of near pairs connects.

    Args:
        embeddings: float (all rows, dim), unit rows, memory-mapped.
        rows: int64 (rows,) to group, rising.
        index: finds the neighbours; other rows in it are ignored.
        threshold: Euclidean distance below which a pair is near, above 0.
        progress: whether to show a progress bar.

    Returns:
        int64 (rows,), the same number for all rows of a group.
    """
    groups = np.arange(len(rows))
    # The index errs by rounding, most of all near 0: ask for a little more, then measure exactly.
    radius = float(np.sqrt(threshold**2 + ROUNDING))
    begin, step = 0, min(FIRST_QUERIES, QUERIES_AT_ONCE)
    with progress_bar(total=len(rows), title="comparing", unit="images", shown=progress) as bar:
        while begin < len(rows):
            part = rows[begin : begin + step]
            found = index.within(read_rows(embeddings, part), radius)
            first = begin + np.repeat(np.arange(len(part)), np.diff(found.limits))
            second = np.minimum(np.searchsorted(rows, found.rows), len(rows) - 1)
            known = rows[second] == found.rows
            pairs = first[known], second[known]
            groups = _merge_near_pairs(embeddings, rows, groups, pairs, threshold)
            begin += len(part)
            bar.update(len(part))
            fitting = PAIRS_AT_ONCE * len(part) // max(1, len(first))
            step = max(1, min(QUERIES_AT_ONCE, 4 * step, fitting))
    return groups


def _merge_near_pairs(
    embeddings: Rows,
    rows: Int64Array,
    groups: Int64Array,
    pairs: tuple[Int64Array, Int64Array],
    threshold: float,
) -> Int64Array:
    """Return the groups after merging those of near pairs; measure only pairs not in one group."""
    for begin in range(0, len(pairs[0]), PAIRS_MEASURED_AT_ONCE):
        first, second = (each[begin : begin + PAIRS_MEASURED_AT_ONCE] for each in pairs)
        apart = groups[first] != groups[second]
        first, second = first[apart], second[apart]
        distances = pair_distances(embeddings, embeddings, rows[first], rows[second])
        near = distances < threshold
        if near.any():
            groups = join_pairs(groups, first[near], second[near])
    return groups
