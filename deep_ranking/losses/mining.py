"""Which triplets of a batch of classes count, and how much.

Each row of a batch is a query. Its references are the rows of the batch and, behind them, those
of a memory: a positive is another one with the query's label, a negative one with another label.
A mining is a tensor of weights (queries, positives, negatives), whose last two axes both run over
the references; the loss is the mean of the hinges by these weights.

References:
    Schroff et al. 2015, "FaceNet", section 3.2 (semi-hard).
    Hermans et al. 2017, "In Defense of the Triplet Loss", eq. 5 (hard: batch hard).
    Wu et al. 2017, "Sampling Matters in Deep Embedding Learning", section 4 (distance-weighted).
"""

from typing import Any

from keras import ops

from deep_ranking.config import MININGS
from deep_ranking.files import InputError
from deep_ranking.losses.hinge import lengths, root
from deep_ranking.losses.memory import EMPTY

# Share of the rows' squared lengths: what float32 may lose when a squared distance is their sum
# less twice the dot product.
ROUNDING = 1e-6
NEVER = -1e30  # in place of -inf, as inf - inf is NaN
NEAREST_DRAWN = 0.5
FURTHEST_DRAWN = 1.4


def label_masks(labels: Any, reference_labels: Any) -> tuple[Any, Any]:
    """Tell the positives and the negatives of each query.

    Args:
        labels: int tensor (batch,), 0 or more.
        reference_labels: int tensor (references,) that begins with `labels`; `EMPTY` marks what is
            neither positive nor negative.

    Returns:
        Two bool tensors (batch, references): whether the label is the same, the query itself left
        out, and whether it is another.
    """
    queries = ops.reshape(labels, (-1, 1))  # (batch, 1)
    references = ops.reshape(reference_labels, (1, -1))  # (1, references)
    kept = ops.not_equal(references, EMPTY)
    rows = ops.arange(ops.shape(queries)[0])[:, None]  # (batch, 1)
    columns = ops.arange(ops.shape(references)[1])[None]  # (1, references)
    equal = ops.equal(queries, references)  # (batch, references)
    same = ops.logical_and(ops.logical_and(equal, kept), ops.not_equal(rows, columns))
    return same, ops.logical_and(ops.logical_not(equal), kept)


def pairwise_distances(
    embeddings: Any, references: Any, *, squared: bool = False, norm: float = 2.0
) -> Any:
    """Distances of each row to each reference.

    Args:
        embeddings: float tensor (batch, dim).
        references: float tensor (references, dim).
        squared: whether to give squared Euclidean distances rather than Euclidean ones.
        norm: degree of the distance, 1 or more; 2 is Euclidean.

    Returns:
        Float tensor (batch, references). Where two rows are equal, or nearer than can be told by
        their dot product (about 0.001 between unit rows), distance and gradient are 0.
    """
    if norm != 2:
        return lengths(embeddings[:, None] - references[None], norm=norm)
    # By dot products, as all differences of rows would be dim times as many numbers.
    sizes = (
        ops.sum(ops.square(embeddings), axis=-1)[:, None]
        + ops.sum(ops.square(references), axis=-1)[None]
    )  # (batch, references)
    distances = sizes - 2.0 * ops.matmul(embeddings, ops.transpose(references))
    # What is left of equal rows is noise of either sign; the root would give it a steep slope, and
    # 0 an infinite one. (Asked as "at most", so that a NaN stays one and is noticed.)
    equal = ops.less_equal(distances, ROUNDING * sizes)
    if squared:
        return ops.where(equal, 0.0, distances)
    return root(distances, equal)


def mined_weights(distances: Any, same: Any, different: Any, mining: str, *, dim: int) -> Any:
    """Weigh the triplets of a batch.

    "all" gives each triplet 1. "semi-hard" gives 1, for each query and positive, to the nearest
    negative that is further than the positive, or if there is none to the furthest negative.
    "hard" gives 1, for each query, to its furthest positive and nearest negative. Of equal
    distances the first counts. "distance-weighted" shares 1, for each query and positive, among
    the negatives.

    Args:
        distances: float tensor (queries, references), Euclidean.
        same: bool tensor (queries, references), the positives.
        different: bool tensor (queries, references), the negatives.
        mining: one of `MININGS`.
        dim: length of an embedding ("distance-weighted").

    Returns:
        Float tensor (queries, positives, negatives), 0 or more, and 0 where there is no triplet.
        It has no gradient.

    Raises:
        InputError: there is no such mining.
    """
    if mining not in MININGS:
        raise InputError(f"mining must be one of {MININGS}. Received: {mining}")
    distances = ops.stop_gradient(distances)
    dtype = distances.dtype
    triplets = ops.cast(ops.logical_and(same[:, :, None], different[:, None, :]), dtype)
    if mining == "semi-hard":
        return triplets * _semi_hard(distances, different)
    if mining == "hard":
        return triplets * _hard(distances, same, different)
    if mining == "distance-weighted":
        return triplets * _draw_probabilities(distances, different, dim)[:, None, :]
    return triplets


def _semi_hard(distances: Any, different: Any) -> Any:
    """Mark the chosen negative of each query and positive, (queries, positives, negatives)."""
    beyond = ops.logical_and(
        different[:, None, :], distances[:, None, :] > distances[:, :, None]
    )  # (queries, positives, negatives)
    nearest = ops.argmin(ops.where(beyond, distances[:, None, :], float("inf")), axis=-1)
    furthest = ops.argmax(ops.where(different, distances, NEVER), axis=-1)  # (queries,)
    chosen = ops.where(ops.any(beyond, axis=-1), nearest, furthest[:, None])  # (queries, positives)
    return ops.one_hot(chosen, ops.shape(distances)[1], dtype=distances.dtype)


def _hard(distances: Any, same: Any, different: Any) -> Any:
    """Mark the one triplet of each query, (queries, positives, negatives)."""
    references = ops.shape(distances)[1]
    furthest = ops.argmax(ops.where(same, distances, NEVER), axis=-1)  # (queries,)
    nearest = ops.argmin(ops.where(different, distances, -NEVER), axis=-1)  # (queries,)
    positives = ops.one_hot(furthest, references, dtype=distances.dtype)  # (queries, references)
    negatives = ops.one_hot(nearest, references, dtype=distances.dtype)
    return positives[:, :, None] * negatives[:, None, :]


def _draw_probabilities(distances: Any, different: Any, dim: int) -> Any:
    """Give the probability with which each query draws each negative, (queries, references).

    The paper draws one negative for each query and positive. These weights are the expectation of
    the draw, so that the same batch gives the same loss.
    """
    near = ops.logical_and(different, distances <= FURTHEST_DRAWN)
    drawable = ops.where(ops.any(near, axis=-1, keepdims=True), near, different)
    # Distances of random points on the unit sphere have density d^(dim-2) (1 - d^2/4)^((dim-3)/2)
    # (section 4), far beyond a float when dim is in the thousands: hence logarithms. The floor
    # is for opposite points, and for embeddings that are not of unit length.
    drawn = ops.maximum(distances, NEAREST_DRAWN)
    height = ops.maximum(1.0 - ops.square(drawn) / 4.0, ROUNDING)
    density = (dim - 2.0) * ops.log(drawn) + (dim - 3.0) / 2.0 * ops.log(height)
    logarithms = ops.where(drawable, -density, NEVER)
    chances = ops.exp(logarithms - ops.max(logarithms, axis=-1, keepdims=True))
    chances = chances / ops.sum(chances, axis=-1, keepdims=True)
    return chances * ops.cast(drawable, distances.dtype)
