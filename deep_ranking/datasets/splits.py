"""Splits of a data set, which are its first folders: train, val, test, unseen and such.

The first folders are splits if two or more of them have such names and hold folders, or if all of
them have: then folders of other names beside them are splits too. One class may be called Train.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from deep_ranking.datasets.labelled import LabelledImages
from deep_ranking.files import InputError

TRAIN, VAL, TEST, UNSEEN, HELD_BACK = "train", "val", "test", "unseen", "held_back"
KINDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "test": TEST,
    "testing": TEST,
    "unseen": UNSEEN,
    "heldout": HELD_BACK,
    "held": HELD_BACK,  # held_back, held-out
    "holdout": HELD_BACK,
    "query": TEST,
    "queries": TEST,
    "gallery": TEST,
}
# What to take of a data set with splits: the first kind that it has.
TO_TRAIN = (TRAIN,)
TO_VALIDATE = (VAL, UNSEEN, HELD_BACK, TEST)
TO_JUDGE = (UNSEEN, TEST, VAL, HELD_BACK)
TO_CALIBRATE = (VAL, HELD_BACK, UNSEEN, TEST)


def split_kind(name: str) -> str | None:
    """Return the kind of split that a folder's name says; None for none.

    Example:
        >>> split_kind("Validation"), split_kind("test_seen"), split_kind("train2017")
        ('val', 'test', 'train')
    """
    return KINDS.get(re.split(r"[_\-.\d]", name.strip().lower(), maxsplit=1)[0])


def find_splits(paths: Sequence[str]) -> list[str]:
    """Return the splits among the first folders of some images, training first; [] for none.

    Args:
        paths: of the images, with "/" between folders.
    """
    has_folders: dict[str, bool] = {}
    for path in paths:
        first, slash, rest = path.partition("/")
        if slash:
            has_folders[first] = has_folders.get(first, False) or "/" in rest
    named = [name for name, deep in has_folders.items() if deep and split_kind(name)]
    if len(named) < 2 and len(named) < len(has_folders):
        return []
    return ordered_splits(has_folders) if named else []


def ordered_splits(names: Iterable[str]) -> list[str]:
    """Return splits in the usual order, those of other names last."""
    kinds = [TRAIN, VAL, HELD_BACK, TEST, UNSEEN, None]
    return sorted(names, key=lambda name: (kinds.index(split_kind(name)), name))


def take_split(
    data: LabelledImages, kinds: Sequence[str], name: str | None = None
) -> LabelledImages:
    """Return the images of one split; all images if there are no splits.

    Args:
        data: the images.
        kinds: kinds of splits to take, the first that is there.
        name: take the split of this name instead.

    Returns:
        The images; if there was a choice, a note says which split was taken.

    Raises:
        InputError: there is no such split.
    """
    if data.splits is None:
        if name is not None:
            raise InputError(f"{data.root}: has no splits; leave out --split {name}")
        return data
    there = ordered_splits(sorted(set(data.splits.tolist()) - {""}))
    fitting = (each for kind in kinds for each in there if split_kind(each) == kind)
    taken = next(fitting, None) if name is None else name if name in there else None
    if taken is None:
        wanted = "none to take here" if name is None else f"none named {name}"
        raise InputError(
            f"{data.root}: {wanted} among the splits {', '.join(there)}; choose one by --split"
        )
    part = data.select(data.splits == taken)
    if len(there) == 1:
        return part
    note = f"Taken: split {taken} of {', '.join(there)} (--split takes another)."
    return replace(part, notes=(*part.notes, note))
