"""Choose how to smooth a collection: what searches that leave the query out of it say."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float64Array, FloatArray, Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.stored_rows import Rows
from deep_ranking.metrics.distances import slices
from deep_ranking.metrics.retrieval import average_precision_at_r
from deep_ranking.search.collection.settings import DEFAULT_NEIGHBOURS, DEFAULT_POWER
from deep_ranking.search.index.base import batches, read_rows
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.smoothing import (
    ELEMENTS_AT_ONCE,
    ROWS_AT_ONCE,
    NearestRows,
    nearest_rows,
    smoothed,
)

COUNTS, POWERS = (5, 10, 20, 40), (1.0, 2.0, 3.0)
"""What `choose_smoothing` tries, besides no smoothing."""

FEWEST_TO_GUESS = 100
"""Images of a collection that is smoothed without classes that can tell."""

NUM_QUERIES, MOST_SAMPLED = 1_000, 20_000
"""Rows that search, and rows that are searched, for the choice."""


@dataclass(frozen=True)
class SmoothingChoice:
    """How to smooth a collection, and why.

    Attributes:
        num_neighbours: K, the row itself among them; 0 for no smoothing.
        power: of the similarity.
        reason: in words, such as "a guess, because the images have no classes".
    """

    num_neighbours: int
    power: float
    reason: str


def choose_smoothing(
    embeddings: Rows,
    labels: npt.NDArray[Any],
    *,
    rows: Int64Array | None = None,
    power: float | None = None,
    seed: int = 0,
) -> SmoothingChoice:
    """Choose K and the power by searches that leave the query out of the collection.

    At most 1,000 rows are queries, and at most 20,000 rows are searched, of whole classes where
    that is possible. Each query is smoothed, and searched in rows that are smoothed without it. The
    figure is the mean average precision at R. Of the choices that are within one standard error of
    the best one, over the same queries, the one that smooths least is taken; that may be none.

    Args:
        embeddings: float (all rows, dim), unit rows.
        labels: (rows,) their classes, "" for none.
        rows: int64 (rows,), rising, the rows of the collection; None for all.
        power: the power, if it is given; then only K is chosen.
        seed: of the sample.

    Returns:
        The choice. Where no classes can tell: 20 and 2 (or the power given), as a guess, and no
        smoothing of fewer than 100 rows.

    Example:
        >>> import numpy as np
        >>> rows = np.eye(100, dtype=np.float32)
        >>> choose_smoothing(rows, np.array([""] * 100)).num_neighbours
        20
    """
    rng = np.random.default_rng(seed)
    rows, labels = np.arange(len(labels)) if rows is None else rows, np.asarray(labels, str)
    taken = _sampled_classes(labels, rng)
    rows, labels = rows[taken], labels[taken]
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    counts = (sizes > 1) & (names != "")
    if counts.sum() < 2:
        reason = (
            "a guess, because fewer than two classes have two images (--smooth K and "
            "--smooth_power P say otherwise)"
        )
        # Of few images, the 20 nearest are most of them.
        count = DEFAULT_NEIGHBOURS if len(rows) >= FEWEST_TO_GUESS else 0
        return SmoothingChoice(count, power or DEFAULT_POWER, reason)
    queries = np.flatnonzero(counts[codes])
    queries = np.sort(rng.choice(queries, min(NUM_QUERIES, len(queries)), replace=False))
    sample = read_rows(embeddings, rows)
    every = np.arange(len(sample))
    index = ExactIndex(sample, every)
    found = [
        nearest_rows(sample, part, index, max(COUNTS) + 1) for part in batches(every, ROWS_AT_ONCE)
    ]
    nearest = NearestRows(*map(np.concatenate, zip(*found, strict=True)))
    powers = POWERS if power is None else (power,)
    # From the least smoothing to the most.
    tried = [(0, powers[-1])] + [(count, each) for count in COUNTS for each in reversed(powers)]
    scores = [
        leave_one_out_precision(sample, codes, queries, nearest, num_neighbours=count, power=each)
        for count, each in progress_bar(tried, title="choosing the smoothing", unit="choices")
    ]
    means = [float(each.mean()) for each in scores]
    best = scores[int(np.argmax(means))]
    chosen = next(i for i, each in enumerate(scores) if _is_as_good(each, best))
    reason = (
        f"MAP@R {means[chosen]:.3f} of {len(queries):,} images that were left out in turn, plain "
        f"{means[0]:.3f}"
    )
    return SmoothingChoice(*tried[chosen], f"chosen by their classes: {reason}")


def leave_one_out_precision(
    embeddings: FloatArray,
    codes: npt.NDArray[np.integer],
    queries: Int64Array,
    nearest: NearestRows,
    *,
    num_neighbours: int,
    power: float,
) -> Float64Array:
    """Return the average precision at R of searches in rows that are smoothed without the query.

    Args:
        embeddings: float (rows, dim), unit rows.
        codes: integers (rows,), their classes.
        queries: int64 (queries,), rising, of classes with two rows or more.
        nearest: the K + 1 nearest of each row, or more: where a query is left out of the
            nearest of a row, the next one takes its place.
        num_neighbours: K; 0 for no smoothing.
        power: of the similarity.

    Returns:
        float64 (queries,), 0 to 1.
    """
    gallery = np.asarray(embeddings, np.float32)
    line = column = np.empty(0, np.int64)
    neighbours = nearest.rows[:, : num_neighbours + 1]
    similarities = nearest.similarities[:, : num_neighbours + 1]
    if num_neighbours:
        gallery = smoothed(embeddings, neighbours[:, :-1], similarities[:, :-1], power)
        line, column = np.nonzero(np.isin(neighbours[:, :-1], queries))
        line, column = line[column > 0], column[column > 0]
    precisions = np.empty(len(queries))
    at_once = max(1, ELEMENTS_AT_ONCE // len(gallery))
    for part in slices(len(queries), at_once):
        asked = queries[part]
        cosines = gallery[asked] @ gallery.T  # (asked, rows)
        if len(line):
            here = np.isin(neighbours[line, column], asked)
            rows, columns = line[here], column[here]
            without = similarities[rows].copy()
            without[np.arange(len(rows)), columns] = 0
            left = smoothed(embeddings, neighbours[rows], without, power)
            query = neighbours[rows, columns]
            changed = np.einsum("ij,ij->i", left, gallery[query])
            cosines[np.searchsorted(asked, query), rows] = changed
        cosines[np.arange(len(asked)), asked] = -np.inf
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :-1]
        precisions[part] = average_precision_at_r(codes[order] == codes[asked, None])
    return precisions


def _is_as_good(scores: Float64Array, best: Float64Array) -> bool:
    """Return whether a mean is within one standard error of the best one's."""
    behind = best - scores
    return bool(behind.mean() <= behind.std() / np.sqrt(len(behind)))


def _sampled_classes(labels: npt.NDArray[Any], rng: np.random.Generator) -> Int64Array:
    """Return the places of at most 20,000 labels, of whole classes if two of them fit."""
    if len(labels) <= MOST_SAMPLED:
        return np.arange(len(labels))
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    taken: list[int] = []
    left = MOST_SAMPLED
    for code in rng.permutation(len(names)).tolist():
        if names[code] != "" and sizes[code] <= left:
            taken.append(code)
            left -= int(sizes[code])
    if len(taken) > 1:
        return np.flatnonzero(np.isin(codes, taken))
    return np.sort(rng.choice(len(labels), MOST_SAMPLED, replace=False))
