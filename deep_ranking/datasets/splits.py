"""Splits of a data set, which are its first folders: train, val, test, unseen and such.

The first folders are splits if two or more of them have such names and hold folders, or if all of
them have: then folders of other names beside them are splits too. One class may be called Train.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from deep_ranking.datasets.labelled import LabelledImages
from deep_ranking.files import InputError
from deep_ranking.files.words import counted

TRAIN, VAL, TEST, UNSEEN, HELD_BACK = "train", "val", "test", "unseen", "held_back"
QUERY, GALLERY, FOLD = "query", "gallery", "fold"
KINDS = {
    "train": TRAIN,
    "training": TRAIN,
    "trainval": TRAIN,
    "seen": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "eval": VAL,
    "evaluation": VAL,
    "test": TEST,
    "testing": TEST,
    "unseen": UNSEEN,
    "heldout": HELD_BACK,
    "held": HELD_BACK,  # held_back, held-out
    "holdout": HELD_BACK,
    "query": QUERY,
    "queries": QUERY,
    "gallery": GALLERY,
    "fold": FOLD,
}
# Words that may follow after a blank: "Training Set" is a split, "train station" a class.
NOUNS = frozenset(("set", "data", "images", "photos", "split"))
# What to take of a data set with splits: the first kind that it has.
TO_TRAIN = (TRAIN,)
TO_VALIDATE = (VAL, UNSEEN, HELD_BACK, TEST)
TO_JUDGE = (UNSEEN, TEST, VAL, HELD_BACK)
TO_CALIBRATE = (VAL, HELD_BACK, UNSEEN, TEST)


def split_kind(name: str) -> str | None:
    """Return the kind of split that a folder's name says by its first or last word; None for none.

    Example:
        >>> split_kind("Validation"), split_kind("test_seen"), split_kind("train2017")
        ('val', 'test', 'train')
        >>> split_kind("Training Set"), split_kind("01_trainset"), split_kind("train station")
        ('train', 'train', None)
    """
    first, *others = name.strip().lower().split() or [""]
    if not NOUNS.issuperset(others):
        return None
    words = [word.removesuffix("set") for word in re.split(r"[_\-.+\d]+", first) if word]
    return next((KINDS[word] for word in (*words[:1], *words[-1:]) if word in KINDS), None)


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
    if not named or (len(named) < 2 and not all(map(split_kind, has_folders))):
        return []
    return ordered_splits(has_folders)


def ordered_splits(names: Iterable[str]) -> list[str]:
    """Return splits in the usual order, those of other names last."""
    kinds = [TRAIN, VAL, HELD_BACK, TEST, UNSEEN, QUERY, GALLERY, FOLD, None]
    return sorted(names, key=lambda name: (kinds.index(split_kind(name)), name))


def split_to_take(
    data: LabelledImages, kinds: Sequence[str], name: str | None = None
) -> str | None:
    """Return the name of the split that `take_split` takes; None if there are no splits.

    Raises:
        InputError: there is no such split.
    """
    if data.splits is None:
        if name is not None:
            raise InputError(f"{data.root}: has no splits to take {name} of")
        return None
    there = ordered_splits(set(data.splits.tolist()) - {""})
    fitting = (each for kind in kinds for each in there if split_kind(each) == kind)
    taken = next(fitting, None) if name is None else name if name in there else None
    if taken is not None:
        return taken
    wanted = "none to take here" if name is None else f"none named {name}"
    by_kind = {split_kind(each): data.root / each for each in reversed(there)}
    both = ""
    if QUERY in by_kind and GALLERY in by_kind:
        both = f", or give --queries {by_kind[QUERY]} --gallery {by_kind[GALLERY]}"
    raise InputError(
        f"{data.root}: {wanted} among the splits {', '.join(there)}; choose one by --split{both}"
    )


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
    taken = split_to_take(data, kinds, name)
    if taken is None or data.splits is None:
        return data
    there = ordered_splits(set(data.splits.tolist()) - {""})
    part = data.select(data.splits == taken)
    if len(there) == 1:
        return part
    note = (
        f"Taken: split {taken} of {', '.join(there)}, {counted(len(part), 'image')} "
        "(--split takes another)."
    )
    return replace(part, notes=(*part.notes, note))
