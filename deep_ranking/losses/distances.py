"""Distances between rows of embeddings, as tensors with gradients that stay finite at 0."""

from typing import Any

import keras
from keras import ops

# Share of the rows' squared lengths: the most that float32 loses where a squared distance is the
# sum of squared lengths less twice the dot product.
ROUNDING = 1e-6


def row_triplet_distances(
    embeddings: Any, *, squared: bool = False, norm: float = 2.0
) -> tuple[Any, Any]:
    """Return the distances of each query to its positive and to its negative.

    Args:
        embeddings: float tensor (3 * triplets, dim), rows query, positive, negative in turn.
        squared: whether to return squared Euclidean distances instead of Euclidean ones.
        norm: degree of the distance, 1 or more; 2 is Euclidean.

    Returns:
        Two float tensors (triplets,): to the positive, to the negative. Where two rows are equal,
        distance and gradient are 0.

    Raises:
        ValueError: the number of rows is known and is not a multiple of 3.
    """
    rows, dim = embeddings.shape
    if rows is not None and rows % 3:
        raise ValueError(
            "embeddings must have rows query, positive, negative in turn: a multiple of 3. "
            f"Received: {rows} rows"
        )
    triplets = ops.reshape(embeddings, (-1, 3, dim))  # (triplets, 3, dim)
    difference = triplets[:, :1] - triplets[:, 1:]  # (triplets, 2, dim)
    distances = vector_lengths(difference, squared=squared, norm=norm)  # (triplets, 2)
    return distances[:, 0], distances[:, 1]


def pairwise_distances(
    embeddings: Any, references: Any, *, squared: bool = False, norm: float = 2.0
) -> Any:
    """Return the distance of each row to each reference.

    Args:
        embeddings: float tensor (batch, dim).
        references: float tensor (references, dim).
        squared: whether to return squared Euclidean distances instead of Euclidean ones.
        norm: degree of the distance, 1 or more; 2 is Euclidean.

    Returns:
        Float tensor (batch, references). Where two rows are equal, or too near for the dot product
        to tell them apart (about 0.001 between unit rows), distance and gradient are 0.
    """
    if norm != 2:
        return vector_lengths(embeddings[:, None] - references[None], norm=norm)
    # By dot products: the differences of all rows would take dim times as much memory.
    sizes = (
        ops.sum(ops.square(embeddings), axis=-1)[:, None]
        + ops.sum(ops.square(references), axis=-1)[None]
    )  # (batch, references)
    distances = sizes - 2.0 * ops.matmul(embeddings, ops.transpose(references))
    # Equal rows leave noise of either sign. Its root has a steep slope, and the root of 0 an
    # infinite one. The test is "at most" so that a NaN stays NaN and is noticed.
    equal = ops.less_equal(distances, ROUNDING * sizes)
    if squared:
        return ops.where(equal, 0.0, distances)
    return safe_root(distances, equal)


def vector_lengths(differences: Any, *, squared: bool = False, norm: float = 2.0) -> Any:
    """Return the length of vectors: the root of degree `norm` of the sum of |x|^norm.

    Args:
        differences: float tensor (..., dim).
        squared: whether to return squared Euclidean lengths; only with `norm` 2.
        norm: degree, 1 or more; 2 is Euclidean.

    Returns:
        Float tensor (...). Where a vector is 0, length and gradient are 0.
    """
    if norm == 2:
        powers = ops.sum(ops.square(differences), axis=-1)
        return powers if squared else safe_root(powers, ops.equal(powers, 0.0))
    sizes = ops.abs(differences)
    # Divide by the largest coordinate: high powers of small numbers are 0 in float32.
    largest = ops.stop_gradient(ops.max(sizes, axis=-1, keepdims=True))
    zero = ops.equal(largest, 0.0)
    shares = sizes / ops.where(zero, 1.0, largest)
    powers = ops.sum(ops.power(shares, norm), axis=-1)
    zero, largest = zero[..., 0], largest[..., 0]
    return largest * safe_root(powers, zero, norm)


def safe_root(powers: Any, zero: Any, degree: float = 2.0) -> Any:
    """Return the root of numbers of 0 or more; 0 with gradient 0 where `zero` is true.

    The root has an infinite slope at 0, and 0 * inf is NaN, so 0 must not reach it. Callers test
    "equals 0" instead of "not above 0", so that a NaN stays NaN and is noticed.
    """
    kept = ops.where(zero, 1.0, powers)
    return ops.where(zero, 0.0, ops.sqrt(kept) if degree == 2 else ops.power(kept, 1 / degree))


def clip_embeddings(embeddings: Any) -> Any:
    """Clip to [eps, 1 - eps], as the blog's code does: negative coordinates become 0."""
    epsilon = keras.config.epsilon()
    return ops.clip(embeddings, epsilon, 1.0 - epsilon)
