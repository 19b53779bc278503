"""What the ranking losses share, whether a batch holds triplets or classes."""

from typing import Any

import keras
from keras import ops

from deep_ranking.config import DISTANCES, HINGES
from deep_ranking.files import InputError


def check_hinge(gap: float, distance: str, hinge: str, norm: float) -> None:
    """Check the arguments of a ranking loss.

    Raises:
        InputError: one is out of its range.
    """
    if not 0 < gap < float("inf"):
        raise InputError(f"gap must be above 0. Received: gap={gap}")
    if distance not in DISTANCES:
        raise InputError(f"distance must be one of {DISTANCES}. Received: {distance}")
    if hinge not in HINGES:
        raise InputError(f"hinge must be one of {HINGES}. Received: {hinge}")
    if not 1 <= norm < float("inf"):
        raise InputError(f"norm must be 1 or more, and finite. Received: norm={norm}")
    if distance == "squared" and norm != 2:
        raise InputError(f"squared distances are of norm 2. Received: norm={norm}")


def lengths(differences: Any, *, squared: bool = False, norm: float = 2.0) -> Any:
    """Length of vectors: the root of degree `norm` of the sum of |x| to the power `norm`.

    Args:
        differences: float tensor (..., dim).
        squared: whether to give squared Euclidean lengths, which `norm` 2 belongs to.
        norm: degree, 1 or more; 2 is Euclidean.

    Returns:
        Float tensor (...). Where a vector is 0, length and gradient are 0.
    """
    if norm == 2:
        powers = ops.sum(ops.square(differences), axis=-1)
        return powers if squared else root(powers, ops.equal(powers, 0.0))
    sizes = ops.abs(differences)
    # Of the largest coordinate, as high powers of small numbers are 0 in float32.
    largest = ops.stop_gradient(ops.max(sizes, axis=-1, keepdims=True))
    zero = ops.equal(largest, 0.0)
    shares = sizes / ops.where(zero, 1.0, largest)
    powers = ops.sum(ops.power(shares, norm), axis=-1)
    zero, largest = zero[..., 0], largest[..., 0]
    return largest * root(powers, zero, norm)


def root(powers: Any, zero: Any, degree: float = 2.0) -> Any:
    """Root of numbers of 0 or more, 0 and without gradient where `zero` says so.

    The root has an infinite slope at 0, and 0 * inf is NaN: 0 is kept away from the root. Whoever
    asks "equals 0" rather than "above 0" lets a NaN stay one, so that it is noticed.
    """
    kept = ops.where(zero, 1.0, powers)
    return ops.where(zero, 0.0, ops.sqrt(kept) if degree == 2 else ops.power(kept, 1 / degree))


def clip_coordinates(embeddings: Any) -> Any:
    """Clip embeddings to [eps, 1 - eps], as the blog's code: negative coordinates are zeroed."""
    epsilon = keras.config.epsilon()
    return ops.clip(embeddings, epsilon, 1.0 - epsilon)
