"""Which labels are likely wrong, from embeddings alone: each image is judged by all others.

A ridge regression from embeddings to classes is fitted once, and its prediction for an image by
all images but that one follows exactly, without fitting again (Cook 1977; Rifkin & Lippert 2007,
"Notes on Regularized Least Squares"):

    f_without_i(x_i) = (f(x_i) - h_i y_i) / (1 - h_i),   h_i = w_i x_i^T G^-1 x_i

So an image's own label does not speak for itself, as it does in a model's confidence after training
on that label: this is the out-of-sample score that confident learning asks for (Northcutt et al.
2021, "Confident Learning"), at the price of one fit. The score of an image is how far the best
other class fits better than its own. Unlike a vote of the nearest images it uses how classes differ
from each other, which tells labels that were swapped between like classes
(`benchmarks/label_errors.py` has both).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deep_ranking.files.array_types import BoolArray, Float64Array, FloatArray, Int64Array, IntArray
from deep_ranking.metrics.distances import row_chunks

# Chosen on planted errors of some seeds in `benchmarks/label_errors.py`; others judged them.
RIDGE = 0.3  # in units of a row's squared length
BALANCE = 0.5  # an image weighs (images of its class) to the power of minus this


class LabelFit(NamedTuple):
    """How well the label of each image fits, judged by all other images.

    Attributes:
        margin: float64 (images,): score of the best other class minus that of its own, -1 to 1 but
            for outliers; above 0 the other fits better. NaN for the only image of a class.
        proposed: int64 (images,), that other class.
    """

    margin: Float64Array
    proposed: Int64Array


def label_fit(embeddings: FloatArray, codes: IntArray) -> LabelFit:
    """Judge the label of each image by all other images.

    Args:
        embeddings: float array (images, dim), rows of unit length.
        codes: integer array (images,), the class of each; classes without images are allowed.

    Example:
        >>> rows = np.repeat(np.eye(2), 4, axis=0)
        >>> label_fit(rows, np.array([0, 0, 0, 1, 1, 1, 1, 1])).margin.round(1)[[0, 3]]
        array([-0.4,  0.9])

    Raises:
        ValueError: there are fewer than two classes.
    """
    sizes = np.bincount(codes)
    if np.count_nonzero(sizes) < 2:
        raise ValueError("Labels of one class cannot be judged: expected two classes or more.")
    weights = 1 / sizes[codes].astype(np.float64) ** BALANCE
    weights *= len(codes) / weights.sum()
    inverse, means = _fitted(embeddings, codes, weights, len(sizes))
    margin = np.empty(len(codes))
    proposed = np.empty(len(codes), np.int64)
    for chunk in row_chunks(len(codes), max(embeddings.shape[1], len(sizes))):
        rows = _with_constant(embeddings[chunk])
        own = codes[chunk]
        at = np.arange(len(rows))
        scores = rows @ means  # (rows, classes)
        leverage = weights[chunk] * np.einsum("rd,rd->r", rows @ inverse, rows)
        left = 1 / np.maximum(1 - leverage, 1e-9)
        scores *= left[:, None]
        fit_of_own = scores[at, own] - leverage * left
        scores[at, own] = -np.inf
        scores[:, sizes == 0] = -np.inf
        proposed[chunk] = scores.argmax(axis=1)
        margin[chunk] = scores[at, proposed[chunk]] - fit_of_own
    margin[sizes[codes] == 1] = np.nan
    return LabelFit(margin, proposed)


def _fitted(
    embeddings: FloatArray, codes: IntArray, weights: Float64Array, num_classes: int
) -> tuple[Float64Array, Float64Array]:
    """Return G^-1 (dim + 1, dim + 1) and the fitted regression (dim + 1, classes)."""
    dim = embeddings.shape[1] + 1
    gram, sums = np.zeros((dim, dim)), np.zeros((num_classes, dim))
    for chunk in row_chunks(len(codes), dim):
        rows = _with_constant(embeddings[chunk])
        weighted = rows * weights[chunk, None]
        gram += weighted.T @ rows
        np.add.at(sums, codes[chunk], weighted)
    # The constant is not held small; a little keeps the matrix regular.
    gram[np.diag_indices(dim)] += np.append(np.full(dim - 1, RIDGE), 1e-6)
    inverse = np.linalg.inv(gram)
    return inverse, inverse @ sums.T


def _with_constant(rows: FloatArray) -> Float64Array:
    return np.column_stack([rows.astype(np.float64), np.ones(len(rows))])


class OwnNeighbours(NamedTuple):
    """The nearest images of each image that is asked about, and the nearest of its own class.

    Attributes:
        nearest: int64 (images, most), the nearest others, nearest first.
        distances: float64 (images, most), theirs.
        own: int64 (images,), the nearest of its class; -1 for the only image of a class.
        own_rank: int64 (images,), its rank among all others, from 1; 0 for none.
        own_distance: float64 (images,), its distance; NaN for none.
        proposed: int64 (images,), the nearest image of the class that was proposed.
        to_class: float64 (images,), cosine with the mean of the others of its class; NaN for none.
    """

    nearest: Int64Array
    distances: Float64Array
    own: Int64Array
    own_rank: Int64Array
    own_distance: Float64Array
    proposed: Int64Array
    to_class: Float64Array


def own_neighbours(
    embeddings: FloatArray,
    codes: IntArray,
    proposed: IntArray,
    *,
    most: int = 10,
    queries: IntArray | None = None,
    progress: Callable[[int], None] | None = None,
) -> OwnNeighbours:
    """Find the nearest images of each image, of any class, of its own and of another one.

    Images whose distances differ by rounding alone come in either order.

    Args:
        embeddings: float array (images, dim), rows of unit length.
        codes: integer array (images,), the class of each.
        proposed: integer array (images,), another class for each, which has an image.
        most: nearest images to return, less than the number of images.
        queries: rows to look at, of which the result has an entry each; None for all.
        progress: called with the number of images after each part of them.
    """
    asked = np.arange(len(codes)) if queries is None else queries
    count = len(asked)
    sums = np.zeros((int(codes.max()) + 1, embeddings.shape[1]))
    np.add.at(sums, codes, embeddings)
    found = OwnNeighbours(
        np.empty((count, min(most, len(codes) - 1)), np.int64),
        np.empty((count, min(most, len(codes) - 1))),
        np.full(count, -1, np.int64),
        np.zeros(count, np.int64),
        np.full(count, np.nan),
        np.empty(count, np.int64),
        np.full(count, np.nan),
    )
    rows = np.asarray(embeddings, np.float32)
    for chunk in row_chunks(count, len(codes)):
        own_row = asked[chunk]
        cosines = rows[own_row] @ rows.T  # (rows, images)
        at = np.arange(len(cosines))
        cosines[at, own_row] = -np.inf
        order = _first(cosines, found.nearest.shape[1])
        found.nearest[chunk] = order
        found.distances[chunk] = _distances(np.take_along_axis(cosines, order, axis=1))
        same = codes[None, :] == codes[own_row, None]
        same[at, own_row] = False
        best, cosine = _best(cosines, same)
        has = same.any(axis=1)
        ahead = (cosines > cosine[:, None]).sum(axis=1) + [
            np.count_nonzero(each[:first] == value)
            for each, first, value in zip(cosines, best, cosine, strict=True)
        ]
        found.own[chunk] = np.where(has, best, -1)
        found.own_rank[chunk] = np.where(has, ahead + 1, 0)
        found.own_distance[chunk] = np.where(has, _distances(cosine), np.nan)
        found.proposed[chunk], _ = _best(cosines, codes[None, :] == proposed[own_row, None])
        others = sums[codes[own_row]] - embeddings[own_row]
        lengths = np.linalg.norm(others, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.einsum("rd,rd->r", others, embeddings[own_row]) / lengths
        found.to_class[chunk] = np.where(has, means, np.nan)
        if progress is not None:
            progress(len(cosines))
    return found


def _first(cosines: FloatArray, most: int) -> Int64Array:
    """Return the columns of the largest cosines of each row, falling."""
    some = np.sort(np.argpartition(-cosines, most - 1, axis=1)[:, :most], axis=1)
    order = np.argsort(-np.take_along_axis(cosines, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def _best(cosines: FloatArray, allowed: BoolArray) -> tuple[Int64Array, FloatArray]:
    """Return the column with the largest allowed cosine of each row, and that cosine."""
    values = np.where(allowed, cosines, -np.inf)
    best = values.argmax(axis=1)
    return best, values[np.arange(len(best)), best]


def _distances(cosines: FloatArray) -> Float64Array:
    return np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), 0))
