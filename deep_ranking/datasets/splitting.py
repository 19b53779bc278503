"""Split whole classes into parts for training, validation and tests, without leakage."""

from collections.abc import Sequence

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Int64Array, IntArray

FEWEST_CLASSES = 2  # in a part: one class alone has no negatives


def split_classes(
    classes: IntArray, shares: Sequence[float], seed: int, *, together: IntArray | None = None
) -> Int64Array:
    """Return a part for each image; a class is never split.

    Args:
        classes: integers (images,), class, category or item of each image.
        shares: share of the images for each part, above 0, with a sum of 1.
        seed: the same seed gives the same parts.
        together: integers (images,); images of one number, such as copies, go into one part, and
            so do their classes. None to keep only classes together.

    Returns:
        int64 (images,), index of the part. The parts have nearly the given shares, as far as whole
        classes in random order allow; each has at least two classes.

    Raises:
        InputError: the shares are out of range, or there are too few classes.
    """
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        given = " ".join(f"{share:g}" for share in shares)
        raise InputError(f"split: expected shares above 0 with a sum of 1. Received: {given}")
    _, class_of = np.unique(classes, return_inverse=True)
    num_classes = int(class_of.max(initial=-1)) + 1
    unit_of_class = _joined(class_of, num_classes, together)
    unit_of = unit_of_class[class_of]
    num_units = int(unit_of_class.max(initial=-1)) + 1
    sizes = np.bincount(unit_of, minlength=num_units)
    widths = np.bincount(unit_of_class, minlength=num_units)  # classes in each unit
    part_of = np.empty(num_units, np.int64)
    images = np.zeros(len(shares))
    width = np.zeros(len(shares), np.int64)
    order = np.random.default_rng([seed, 4]).permutation(num_units)
    wanted = np.array(shares) * len(class_of)
    for unit in order.tolist():
        lacking = width < FEWEST_CLASSES
        behind = (wanted - images) / wanted
        part = int(np.argmax(np.where(lacking, 2 + behind, behind)))
        part_of[unit] = part
        images[part] += sizes[unit]
        width[part] += widths[unit]
    if (width < FEWEST_CLASSES).any():
        joined = ""
        if num_units < num_classes:
            joined = f" ({num_units} when copies stay together; see --no-keep_together)"
        raise InputError(
            f"{num_classes} classes{joined} are too few for {len(shares)} parts of two or more; "
            "add classes, or give fewer shares"
        )
    return part_of[unit_of]


def _joined(class_of: IntArray, num_classes: int, together: IntArray | None) -> Int64Array:
    """Return the unit of each class; classes that share a group share a unit: int64 (classes,).

    SciPy's `connected_components` numbers units in another order, which would give other parts for
    the same seed than earlier versions.
    """
    parent = list(range(num_classes))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    if together is not None:
        order = np.argsort(together, kind="stable")
        groups, members = together[order], class_of[order]
        next_to = (groups[1:] == groups[:-1]) & (members[1:] != members[:-1])
        for place in np.flatnonzero(next_to).tolist():
            parent[root(int(members[place]))] = root(int(members[place + 1]))
    roots = [root(number) for number in range(num_classes)]
    return np.asarray(np.unique(roots, return_inverse=True)[1], np.int64)


def hold_back_classes(labels: IntArray, share: float, seed: int) -> BoolArray:
    """Choose whole classes to validate on, so that training never sees their images.

    Args:
        labels: integers (images,).
        share: share of the classes to hold back, above 0 and below 1; at least two classes are.
        seed: the same seed holds the same classes back.

    Returns:
        bool (images,): True where the image's class is held back.

    Raises:
        InputError: fewer than two classes would be left, or the share is out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"validation_share must lie between 0 and 1. Received: {share}")
    classes = np.unique(labels)
    count = max(FEWEST_CLASSES, round(share * len(classes)))
    if len(classes) - count < FEWEST_CLASSES:
        raise InputError(
            f"{len(classes)} classes are too few to hold {count} back and train on the rest; "
            "lower --validation_share or add classes"
        )
    held = np.random.default_rng([seed, 1]).choice(classes, count, replace=False)
    return np.isin(labels, held)
