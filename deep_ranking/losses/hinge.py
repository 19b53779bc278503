"""What the ranking losses share, whether a batch holds triplets or classes."""

from typing import Any

import keras
from keras import ops

from deep_ranking.config import DISTANCES, HINGES
from deep_ranking.errors import InputError


def check_hinge(gap: float, distance: str, hinge: str) -> None:
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


def clip_coordinates(embeddings: Any) -> Any:
    """Clip embeddings to [eps, 1 - eps], as the blog's code: negative coordinates are zeroed."""
    epsilon = keras.config.epsilon()
    return ops.clip(embeddings, epsilon, 1.0 - epsilon)
