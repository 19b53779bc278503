"""Mining: which triplets of a batch of classes count, and with what weight.

Each row of a batch is a query. Its references are the rows of the batch, followed by those of the
memory. A positive is another row with the query's label, a negative a row with another label. The
result is a tensor of weights (queries, positives, negatives); its last two axes both run over the
references. The loss is the mean of the hinges by these weights.

References:
    Schroff et al. 2015, "FaceNet", section 3.2 (semi-hard).
    Hermans et al. 2017, "In Defense of the Triplet Loss", eq. 5 (hard: batch hard).
    Wu et al. 2017, "Sampling Matters in Deep Embedding Learning", section 4 (distance-weighted).
"""

from typing import Any

from keras import ops

from deep_ranking.config import MININGS
from deep_ranking.files import InputError
from deep_ranking.losses.distances import ROUNDING

EMPTY = -1  # label of a row of the memory that holds nothing yet
NEVER = -1e30  # in place of -inf, as inf - inf is NaN
NEAREST_DRAWN = 0.5
FURTHEST_DRAWN = 1.4


def label_masks(labels: Any, reference_labels: Any) -> tuple[Any, Any]:
    """Return which references are positives and which are negatives of each query.

    Args:
        labels: int tensor (batch,), 0 or more.
        reference_labels: int tensor (references,) that begins with `labels`; `EMPTY` marks a row
            that is neither positive nor negative.

    Returns:
        Two bool tensors (batch, references): whether the label is the same, without the query
        itself; and whether it is another.
    """
    queries = ops.reshape(labels, (-1, 1))  # (batch, 1)
    references = ops.reshape(reference_labels, (1, -1))  # (1, references)
    kept = ops.not_equal(references, EMPTY)
    rows = ops.arange(ops.shape(queries)[0])[:, None]  # (batch, 1)
    columns = ops.arange(ops.shape(references)[1])[None]  # (1, references)
    equal = ops.equal(queries, references)  # (batch, references)
    same = ops.logical_and(ops.logical_and(equal, kept), ops.not_equal(rows, columns))
    return same, ops.logical_and(ops.logical_not(equal), kept)


def mined_weights(distances: Any, same: Any, different: Any, mining: str, *, dim: int) -> Any:
    """Return the weights of the triplets of a batch.

    "all": 1 for each triplet. "semi-hard": for each query and positive, 1 for the nearest negative
    that is further away than the positive; if there is none, for the furthest negative. "hard": for
    each query, 1 for its furthest positive with its nearest negative. Of equal distances, the first
    reference counts. "distance-weighted": for each query and positive, a total of 1 shared among
    the negatives.

    Args:
        distances: float tensor (queries, references), Euclidean.
        same: bool tensor (queries, references), the positives.
        different: bool tensor (queries, references), the negatives.
        mining: one of `MININGS`.
        dim: length of an embedding ("distance-weighted").

    Returns:
        Float tensor (queries, positives, negatives), 0 or more; 0 where there is no triplet. It has
        no gradient.

    Raises:
        InputError: `mining` is not one of `MININGS`.
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
    """Return 1 at the negative of each query and positive: (queries, positives, negatives)."""
    beyond = ops.logical_and(
        different[:, None, :], distances[:, None, :] > distances[:, :, None]
    )  # (queries, positives, negatives)
    nearest = ops.argmin(ops.where(beyond, distances[:, None, :], float("inf")), axis=-1)
    furthest = ops.argmax(ops.where(different, distances, NEVER), axis=-1)  # (queries,)
    chosen = ops.where(ops.any(beyond, axis=-1), nearest, furthest[:, None])  # (queries, positives)
    return ops.one_hot(chosen, ops.shape(distances)[1], dtype=distances.dtype)


def _hard(distances: Any, same: Any, different: Any) -> Any:
    """Return 1 at the hardest triplet of each query: (queries, positives, negatives)."""
    references = ops.shape(distances)[1]
    furthest = ops.argmax(ops.where(same, distances, NEVER), axis=-1)  # (queries,)
    nearest = ops.argmin(ops.where(different, distances, -NEVER), axis=-1)  # (queries,)
    positives = ops.one_hot(furthest, references, dtype=distances.dtype)  # (queries, references)
    negatives = ops.one_hot(nearest, references, dtype=distances.dtype)
    return positives[:, :, None] * negatives[:, None, :]


def _draw_probabilities(distances: Any, different: Any, dim: int) -> Any:
    """Return the probability that each query draws each negative: (queries, references).

    The paper draws one negative for each query and positive. These weights are the expected value
    of that draw, so the same batch always has the same loss.
    """
    near = ops.logical_and(different, distances <= FURTHEST_DRAWN)
    drawable = ops.where(ops.any(near, axis=-1, keepdims=True), near, different)
    # Distances of random points on the unit sphere have density d^(dim-2) (1 - d^2/4)^((dim-3)/2)
    # (section 4). It overflows a float when dim is in the thousands, hence the logarithms. The
    # floor serves opposite points, and embeddings that are not of unit length.
    drawn = ops.maximum(distances, NEAREST_DRAWN)
    height = ops.maximum(1.0 - ops.square(drawn) / 4.0, ROUNDING)
    density = (dim - 2.0) * ops.log(drawn) + (dim - 3.0) / 2.0 * ops.log(height)
    logarithms = ops.where(drawable, -density, NEVER)
    chances = ops.exp(logarithms - ops.max(logarithms, axis=-1, keepdims=True))
    chances = chances / ops.sum(chances, axis=-1, keepdims=True)
    return chances * ops.cast(drawable, distances.dtype)
