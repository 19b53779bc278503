"""Whole classes that are held back to judge on."""

import numpy as np
import numpy.typing as npt

from deep_ranking.errors import InputError


def hold_back_classes(
    labels: npt.NDArray[np.integer], share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Choose whole classes to judge on, so that training never sees an image of theirs.

    Args:
        labels: integers (images,).
        share: share of the classes to hold back, above 0 and below 1; two classes at least.
        seed: the same seed holds the same classes back.

    Returns:
        bool (images,): True where the image's class is held back.

    Raises:
        InputError: fewer than two classes would be left, or the share is out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"validation_share must lie between 0 and 1. Received: {share}")
    classes = np.unique(labels)
    count = max(2, round(share * len(classes)))
    if len(classes) - count < 2:
        raise InputError(
            f"{len(classes)} classes are too few to hold {count} back and train on the rest; "
            "lower --validation_share or add classes"
        )
    held = np.random.default_rng([seed, 1]).choice(classes, count, replace=False)
    return np.isin(labels, held)
