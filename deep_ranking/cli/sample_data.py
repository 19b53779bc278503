"""Flags of `sample` -> labelled images, and the parts that triplets are drawn from."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from deep_ranking.cli.arguments import positive_int
from deep_ranking.datasets import (
    LabelledImages,
    Labels,
    class_folders,
    hold_back_classes,
    limit_classes,
    nested_folders,
    read_classes,
    read_partition,
    read_positive_pairs,
    split_classes,
    with_folder_categories,
)
from deep_ranking.files import InputError
from deep_ranking.files.words import counted

FILES = ("classes", "pairs", "partition")
TRAIN, VALIDATION, TEST = "train", "validation", "test"
STEMS = {TRAIN: "triplets", "val": "validation_triplets"}

Parts = list[tuple[str, LabelledImages]]


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which images."""
    suppress = argparse.SUPPRESS
    group = parser.add_argument_group("images")
    group.add_argument(
        "--input_directory",
        type=Path,
        default=suppress,
        metavar="DIR",
        help="folder with one folder of images a class; with a file of images, the folder that "
        "its paths start from (default: the file's own)",
    )
    given = group.add_mutually_exclusive_group()
    for name, help_text in (
        ("classes", "CSV file of images, path,label[,category[,split]], in the place of folders"),
        ("pairs", "CSV file of given positives: query,positive,item[,category]"),
        (
            "partition",
            "list of the split of each image: DeepFashion's list_eval_partition.txt, or a class "
            "file with a column split",
        ),
    ):
        given.add_argument(f"--{name}", type=Path, default=suppress, metavar="FILE", help=help_text)
    group.add_argument(
        "--level",
        type=positive_int,
        default=suppress,
        metavar="N",
        help="leading folders of a path that make the category (default: 1; in a partition list, "
        "those before the item's)",
    )
    for name, what in (("max", "take at most so many images of"), ("min", "leave out")):
        rest = "each class (item)" if name == "max" else "classes (items) of fewer images"
        group.add_argument(
            f"--{name}_images_per_class",
            type=positive_int,
            default=suppress,
            metavar="N",
            help=f"{what} {rest}",
        )
    group = parser.add_argument_group("parts")
    group.add_argument(
        "--validation_share",
        type=float,
        default=suppress,
        metavar="SHARE",
        help="hold this share of the classes back, and write validation_triplets.txt from them",
    )
    group.add_argument(
        "--split",
        nargs="+",
        default=suppress,
        metavar="SHARE|NAME",
        help="shares of the images to train, validate and test with, as 0.8 0.1 0.1; or names of "
        "the splits to take from a --partition (default: each, to a file of its own)",
    )
    group.add_argument(
        "--by",
        choices=("class", "item"),
        default="class",
        help="what a split by shares keeps whole: classes (categories, where there are items), or "
        "items",
    )
    group.add_argument(
        "--keep_together",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with shares, keep copies and near-copies of an image in one part; reads all images",
    )


def check_data_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where flags do not go together."""
    share = getattr(args, "validation_share", None)
    if share is not None and not 0 < share < 1:
        parser.error(f"argument --validation_share: must lie between 0 and 1. Received: {share}")
    if share is not None and hasattr(args, "split"):
        parser.error("--validation_share and --split both split; give one of them")
    if not any(hasattr(args, name) for name in ("input_directory", *FILES)):
        parser.error("give --input_directory, or one of --classes, --pairs and --partition")
    if shares_of(args) is not None and hasattr(args, "partition"):
        parser.error("--partition is split already; name splits of it by --split")


def shares_of(args: argparse.Namespace) -> list[float] | None:
    """Give what `--split` says if it is shares."""
    try:
        return [float(each) for each in args.split] if hasattr(args, "split") else None
    except ValueError:
        return None


def read_data(args: argparse.Namespace, *, nested: bool) -> LabelledImages:
    """Read the images that the flags name.

    Args:
        args: flags of `add_data_arguments`.
        nested: whether folders are category/.../item, or one a class.

    Raises:
        InputError: they cannot be read.
    """
    root: Path | None = getattr(args, "input_directory", None)
    level = getattr(args, "level", None)
    if root is not None and not root.is_dir():
        raise InputError(f"{root}: no such folder; check --input_directory")
    if hasattr(args, "partition"):
        data = read_partition(args.partition, root, level=level)
    elif hasattr(args, "classes"):
        data = read_classes(args.classes, root)
    elif hasattr(args, "pairs"):
        data = read_positive_pairs(args.pairs, root)
    else:
        assert root is not None  # as `check_data_arguments` sees to
        data = nested_folders(root, level or 1) if nested else class_folders(root)
    if level is not None and data.categories is None:
        data = with_folder_categories(data, level)
    fewest = getattr(args, "min_images_per_class", None)
    return limit_classes(data, fewest=fewest, most=getattr(args, "max_images_per_class", None))


def parts_of(args: argparse.Namespace, data: LabelledImages) -> tuple[Parts, LabelledImages]:
    """Give the parts that triplets are drawn from, by the stem of their file's name.

    Returns:
        The parts; and the images with the split that each is in, if there are any.

    Raises:
        InputError: there are too few classes, or no such split.
    """
    if hasattr(args, "validation_share"):
        held = hold_back_classes(_classes(data, args.by).codes, args.validation_share, args.seed)
        data = replace(data, splits=np.where(held, VALIDATION, TRAIN))
        names = [VALIDATION, TRAIN]
    elif (shares := shares_of(args)) is not None:
        data = replace(data, splits=_split(args, data, shares))
        names = [TRAIN, VALIDATION, TEST][: len(shares)]
    elif data.splits is None:
        if hasattr(args, "split"):
            raise InputError(
                "split: the images are in no splits; give shares, such as 0.8 0.1 0.1, or a "
                "--partition"
            )
        return [(STEMS[TRAIN], data)], data
    else:
        there = [name for name in dict.fromkeys(data.splits.tolist()) if name]
        names = getattr(args, "split", there)
        for name in names:
            if name not in there:
                raise InputError(f"split: there is no split {name}; there are {', '.join(there)}")
            if "/" in name:
                raise InputError(f"split {name}: has a slash in its name; no file can be named so")
    assert data.splits is not None
    return [
        (STEMS.get(name, f"{name}_triplets"), data.select(data.splits == name)) for name in names
    ], data


def _classes(data: LabelledImages, by: str) -> Labels:
    return data.items if by == "item" or data.categories is None else data.categories


def _split(
    args: argparse.Namespace, data: LabelledImages, shares: list[float]
) -> "np.ndarray[tuple[int], np.dtype[np.str_]]":
    if not 1 < len(shares) <= 3:
        raise InputError(
            f"split: expected two or three shares, to train, validate and test with. "
            f"Received: {len(shares)}"
        )
    together = None
    if args.keep_together:
        from deep_ranking.images.near_copies import near_copy_groups

        together, num_unreadable = near_copy_groups(data.files())
        copies = len(data) - len(np.unique(together))
        print(f"{counted(copies, 'image')} like another, kept in the part of that.")
        if num_unreadable:
            print(f"{counted(num_unreadable, 'image')} not compared: cannot be read.")
    codes = _classes(data, args.by).codes
    part = split_classes(codes, shares, args.seed, together=together)
    return np.array([TRAIN, VALIDATION, TEST])[part]
