"""Read the labelled images of a folder: their classes, categories and splits.

Every command reads folders by `read_folder`, so that the same flags mean the same classes
everywhere.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from deep_ranking.datasets.labelled import LabelledImages, Labels
from deep_ranking.datasets.labels import (
    FIRST,
    PARENT,
    checked_label,
    folder_label,
    label_in_words,
    leading_folders,
    near_equal_labels,
)
from deep_ranking.datasets.splits import find_splits, ordered_splits, split_kind
from deep_ranking.datasets.tables import read_classes
from deep_ranking.files import InputError
from deep_ranking.files.words import counted, listed
from deep_ranking.images import ImageListing, find_images


def read_folder(
    root: str | os.PathLike[str],
    *,
    label: str | int | None = None,
    classes: str | os.PathLike[str] | None = None,
    splits: bool | None = None,
    level: int | None = None,
    by_content: bool = False,
    keep_outside: bool = False,
) -> LabelledImages:
    """Read the labelled images of a folder.

    Args:
        root: the folder.
        label: what makes an image's class. "first": the first folder of its path; "parent": the
            folder that holds it; a number: so many leading folders; None: first or, with `level`,
            parent.
        classes: class file that names the images and their classes instead; its paths start from
            `root`.
        splits: whether the first folders are splits, which are no part of a class's name; None
            decides by their names, as `find_splits` does.
        level: number of leading folders that make an image's category; None for no categories.
        by_content: list files of any name whose first bytes are an image's.
        keep_outside: keep images in no class, with the label "".

    Returns:
        The images. Their `notes` say what was left out, and what was guessed.

    Example:
        >>> data = read_folder("photos", label="parent")
        >>> len(data), data.items.names
        (12, ['cat', 'dog', 'owl'])

    Raises:
        InputError: as `find_images` and `read_classes`; no image is in a folder; or `label` or
            `level` is out of range.
    """
    if level is not None and level < 1:
        raise InputError(f"level must be 1 or more. Received: {level}")
    if label is None:
        label = FIRST if level is None else PARENT
    label = checked_label(label)
    root = Path(root)
    if classes is not None:
        data = _read_class_file(
            Path(classes), root, by_content=by_content, keep_outside=keep_outside
        )
        if level is None or data.categories is not None:
            return data
        return with_folder_categories(data, level)
    listing = find_images(root, by_content=by_content)
    return label_listing(
        listing, label=label, splits=splits, level=level, keep_outside=keep_outside
    )


def label_listing(
    listing: ImageListing,
    *,
    label: str = FIRST,
    splits: bool | None = None,
    level: int | None = None,
    keep_outside: bool = False,
) -> LabelledImages:
    """Return the images of a listing with their classes, by their folders.

    Args:
        listing: the images.
        label: what makes the class, in words of `checked_label`.
        splits: as for `read_folder`.
        level: as for `read_folder`.
        keep_outside: as for `read_folder`.

    Raises:
        InputError: no image is in a folder.
    """
    names = _split_names(listing.paths, splits)
    label_of = cache(folder_label(label))
    paths, folders, split_of = [], [], []
    for path in listing.paths:
        folder = path.rpartition("/")[0]
        first, _, rest = folder.partition("/")
        if names:
            folder = rest
        if label_of(folder) or keep_outside:
            paths.append(path)
            folders.append(folder)
            split_of.append(first)
    num_outside = len(listing.paths) - len(paths)
    if not paths:
        where = "folder of a class" if names else "folder"
        raise InputError(
            f"{listing.root}: no classes: expected folders of images, found "
            f"{counted(num_outside, 'image')} in no {where}"
        )
    left_out = replace(listing.left_out, num_outside=num_outside)
    data = LabelledImages(
        listing.root,
        paths,
        Labels.of([label_of(folder) for folder in folders]),
        splits=np.array(split_of) if names else None,
        labelled_by=label_in_words(label),
        left_out=left_out,
    )
    if level is not None:
        categories = Labels.of([leading_folders(folder, level) for folder in folders])
        data = replace(data, categories=categories)
    notes = (*_split_notes(data), *_depth_notes(data, folders, label), *near_equal_notes(data))
    return replace(data, notes=(*notes, *left_out.notes()))


def with_folder_categories(data: LabelledImages, level: int) -> LabelledImages:
    """Return the images with categories from their folders.

    An item's category is that of its first image or, if there are pairs, of its first positive.

    Args:
        data: the images.
        level: number of leading folders of a path that make the category.
    """
    first = np.full(len(data.items.names), len(data))
    numbers = np.arange(len(data)) if data.pairs is None else data.pairs[:, 1]
    np.minimum.at(first, data.items.codes[numbers], numbers)
    of_images = data.folders()
    folders = [of_images[number] for number in first[data.items.codes]]
    return replace(data, categories=Labels.of([leading_folders(each, level) for each in folders]))


def near_equal_notes(data: LabelledImages) -> Iterator[str]:
    """Yield a note about classes whose names differ only in case, blanks, - and _."""
    if groups := near_equal_labels(data.items.names):
        named = listed([" and ".join(map(repr, each)) for each in groups])
        yield f"Nearly equal names of classes, taken as different classes: {named}."


def _read_class_file(
    classes: Path, root: Path, *, by_content: bool, keep_outside: bool
) -> LabelledImages:
    data = read_classes(classes, root)
    notes = (*data.notes, *_file_split_notes(data), *near_equal_notes(data))
    data = replace(data, notes=notes)
    listing = find_images(root, by_content=by_content)
    others = sorted(set(listing.paths) - set(data.paths))
    if others and keep_outside:
        labels = data.items.of_images() + [""] * len(others)
        data = replace(data, paths=data.paths + others, items=Labels.of(labels), splits=None)
        notes = (*data.notes, f"{counted(len(others), 'image')} without a class in {classes}.")
        return replace(data, categories=None, notes=notes)
    if others:
        left_out = f"{counted(len(others), 'image')} of {root} left out: not in {classes}."
        return replace(data, notes=(*data.notes, left_out))
    return data


def _split_names(paths: Sequence[str], splits: bool | None) -> list[str]:
    """Return the names of the first folders that are splits; [] if they are classes."""
    if splits is None:
        return find_splits(paths)
    if not splits:
        return []
    return ordered_splits({path.partition("/")[0] for path in paths if "/" in path})


def _split_notes(data: LabelledImages) -> Iterator[str]:
    if data.splits is not None:
        names, counts = np.unique(data.splits, return_counts=True)
        sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
        named = ", ".join(f"{name} {sizes[name]:,}" for name in ordered_splits(sizes))
        yield f"Splits, by the names of the first folders: {named} (--no-splits: they are classes)."
        return
    outer, *others = {path.partition("/")[0] for path in data.paths}
    if not others and (inner := find_splits([path.partition("/")[2] for path in data.paths])):
        yield (
            f"The folders {', '.join(inner)} in {outer} are named as splits; if they are, give "
            f"{data.root / outer}."
        )
    first = {path.partition("/")[0] for path in data.paths if path.count("/") > 1}
    if named_so := sorted(name for name in first if split_kind(name)):
        yield (
            f"{', '.join(named_so)}: taken as a class, but named as a split; if it is one, give "
            "its folder, or --splits."
        )


def _file_split_notes(data: LabelledImages) -> Iterator[str]:
    if data.splits is not None:
        names, counts = np.unique(data.splits, return_counts=True)
        sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
        without = sizes.pop("", 0)
        named = ", ".join(f"{name} {sizes[name]:,}" for name in ordered_splits(sizes))
        more = f"; {counted(without, 'image')} in no split" if without else ""
        yield f"Splits, by the file: {named}{more}."


def _depth_notes(data: LabelledImages, folders: list[str], label: str) -> Iterator[str]:
    """Yield a note if folders that are deeper than the classes would make more of them."""
    if label == PARENT:
        return
    num_deep = len(set(map(folder_label(PARENT), dict.fromkeys(folders))) - {""})
    num_classes = data.num_classes
    if num_deep > num_classes:
        yield (
            f"Folders lie deeper than these {counted(num_classes, 'class')}: --label parent takes "
            f"the folder that holds each image ({num_deep:,} classes)."
        )
