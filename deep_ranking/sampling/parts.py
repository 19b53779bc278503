"""Parts of a data set, such as train and validation, each with a triplet file of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deep_ranking.datasets import (
    LabelledImages,
    Labels,
    hold_back_classes,
    relative_prefix,
    split_classes,
)
from deep_ranking.datasets.splits import split_kind
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int32Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.words import counted
from deep_ranking.sampling.strategy import Strategy
from deep_ranking.sampling.triplet_file import write_triplets

TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
STEMS = {"train": "triplets", "val": "validation_triplets"}  # of kinds of splits


def hold_back_validation(
    data: LabelledImages, share: float, seed: int, *, by: str = "class"
) -> LabelledImages:
    """Return the images with `splits` train and validation, whole classes in each.

    Args:
        data: the images.
        share: share of the classes for validation, between 0 and 1; at least two classes.
        seed: the same seed gives the same parts.
        by: "class" keeps classes whole (categories, where there are items), "item" items.

    Raises:
        InputError: there are too few classes, or the share is out of range.
    """
    held = hold_back_classes(_classes(data, by).codes, share, seed)
    return replace(data, splits=np.where(held, VALIDATION, TRAIN))


def split_by_shares(
    data: LabelledImages,
    shares: Sequence[float],
    seed: int,
    *,
    by: str = "class",
    keep_together: bool = True,
) -> LabelledImages:
    """Return the images with `splits` train, validation and test, whole classes in each.

    Args:
        data: the images.
        shares: share of the images in each part, with a sum of 1; two shares leave out test.
        seed: the same seed gives the same parts.
        by: as for `hold_back_validation`.
        keep_together: keep copies and near-copies of an image in one part. This reads all images,
            and adds to `notes` how many there are.

    Raises:
        InputError: there are too few classes, or the shares are out of range.
    """
    if not 1 < len(shares) <= len(PARTS):
        raise InputError(
            "split: expected two or three shares, for train, validation and test. "
            f"Received: {len(shares)}"
        )
    together, notes = None, data.notes
    if keep_together:
        from deep_ranking.images.near_copies import near_copy_groups

        together, num_unreadable = near_copy_groups(data.files())
        copies = len(data) - len(np.unique(together))
        notes += (f"{counted(copies, 'image')} like another, kept in the same part.",)
        if num_unreadable:
            notes += (f"{counted(num_unreadable, 'image')} not compared: cannot be read.",)
    part = split_classes(_classes(data, by).codes, shares, seed, together=together)
    return replace(data, splits=np.array(PARTS)[part], notes=notes)


def _classes(data: LabelledImages, by: str) -> Labels:
    return data.items if by == "item" or data.categories is None else data.categories


def triplet_parts(
    data: LabelledImages, names: Sequence[str] | None = None
) -> dict[str, LabelledImages]:
    """Return the parts of images, each by the stem of its triplet file's name.

    Args:
        data: the images; without `splits`, all are one part.
        names: the splits to take, in order; None for all, in order of appearance.

    Raises:
        InputError: there is no split of such a name, or a name cannot be part of a file's name.
    """
    if data.splits is None:
        if names is not None:
            raise InputError(
                "split: the images have no splits; give shares, such as 0.8 0.1 0.1, or a "
                "--partition"
            )
        return {STEMS["train"]: data}
    there = [name for name in dict.fromkeys(data.splits.tolist()) if name]
    for name in there if names is None else names:
        if name not in there:
            raise InputError(f"split: there is no split {name}; there are {', '.join(there)}")
        if "/" in name:
            raise InputError(f"split {name}: a slash cannot be part of a file's name")
    by_stem: dict[str, str] = {}
    for name in there if names is None else names:
        kind = split_kind(name) or ""
        alone = sum(split_kind(other) == kind for other in there) == 1
        stem = STEMS.get(kind if alone else name, f"{name}_triplets")
        if by_stem.setdefault(stem, name) != name:
            raise InputError(
                f"split: {by_stem[stem]} and {name} would both be written to {stem}.txt; rename "
                "one, or take one of them"
            )
    return {stem: data.select(data.splits == name) for stem, name in by_stem.items()}


def split_parts(
    data: LabelledImages,
    split: Sequence[float] | Sequence[str] | None = None,
    *,
    validation_share: float | None = None,
    seed: int = 0,
    by: str = "class",
    keep_together: bool = True,
) -> tuple[dict[str, LabelledImages], LabelledImages]:
    """Return the parts by the stem of their triplet file, and all images with their splits.

    Args:
        data: the images.
        split: shares of the images for train, validation and test, as for `split_by_shares`; or
            names of the splits that the images have; None for all of these.
        validation_share: instead, the share of the classes to hold back for validation.
        seed: the same seed gives the same parts.
        by: "class" keeps classes whole (categories, where there are items), "item" items.
        keep_together: with shares, keep copies and near-copies of an image in one part.

    Raises:
        InputError: the images cannot be split in this way.
    """
    shares = shares_in(split)
    if data.splits is not None and (validation_share or shares is not None):
        there = ", ".join(name for name in dict.fromkeys(data.splits.tolist()) if name)
        raise InputError(
            f"the images are split already: {there}; take some of these by --split NAME, or read "
            "the folders as classes by --no-splits"
        )
    if validation_share:
        data = hold_back_validation(data, validation_share, seed, by=by)
        return triplet_parts(data, [VALIDATION, TRAIN]), data
    if shares is not None:
        data = split_by_shares(data, shares, seed, by=by, keep_together=keep_together)
        return triplet_parts(data, PARTS[: len(shares)]), data
    return triplet_parts(data, None if split is None else [str(each) for each in split]), data


def shares_in(split: Sequence[float] | Sequence[str] | None) -> list[float] | None:
    """Return the shares of a split; None if it has names."""
    try:
        return [float(each) for each in split] if split else None
    except ValueError:
        return None


def write_drawn_triplets(
    path: Path, data: LabelledImages, strategy: Strategy, seed: int, *, shards: int | None = None
) -> int:
    """Write the triplets that a strategy draws, with paths relative to the file's folder.

    Args:
        path: file to write, as for `write_triplets`.
        data: the images, as the strategy numbers them.
        strategy: draws the triplets.
        seed: the same seed gives the same file.
        shards: as for `write_triplets`.

    Returns:
        The number of triplets written.

    Raises:
        InputError: the file cannot be written, or there is no triplet to draw.
    """
    prefix = relative_prefix(data.root, path.parent)
    with progress_bar(total=strategy.num_triplets, title="triplets", unit="triplets") as bar:

        def blocks() -> Iterator[Int32Array]:
            for block in strategy.triplets(seed):
                yield block
                bar.update(len(block))

        paths = [prefix + name for name in data.paths]
        return write_triplets(path, paths, blocks(), shards=shards)
