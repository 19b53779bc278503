"""Flags of `sample` -> labelled images, and the parts to draw triplets from."""

import argparse
from pathlib import Path

from deep_ranking.cli.arguments import positive_int
from deep_ranking.datasets import (
    LabelledImages,
    class_folders,
    limit_classes,
    nested_folders,
    read_classes,
    read_partition,
    read_positive_pairs,
    with_folder_categories,
)
from deep_ranking.files import InputError
from deep_ranking.sampling.parts import (
    PARTS,
    TRAIN,
    VALIDATION,
    hold_back_validation,
    split_by_shares,
    triplet_parts,
)

FILES = ("classes", "pairs", "partition")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the images and split them."""
    suppress = argparse.SUPPRESS
    group = parser.add_argument_group("images")
    group.add_argument(
        "--input_directory",
        type=Path,
        default=suppress,
        metavar="DIR",
        help="folder that holds a folder of images for each class; with a file of images, the "
        "folder that its paths start from (default: the file's own folder)",
    )
    given = group.add_mutually_exclusive_group()
    for name, help_text in (
        ("classes", "CSV file of images, path,label[,category[,split]], instead of folders"),
        ("pairs", "CSV file of given positives: query,positive,item[,category]"),
        (
            "partition",
            "list of each image's split: DeepFashion's list_eval_partition.txt, or a class file "
            "with a column split",
        ),
    ):
        given.add_argument(f"--{name}", type=Path, default=suppress, metavar="FILE", help=help_text)
    group.add_argument(
        "--level",
        type=positive_int,
        default=suppress,
        metavar="N",
        help="number of leading folders of a path that make the category (default: 1; in a "
        "partition list, all before the item's folder)",
    )
    for name, help_text in (
        ("max", "take at most this many images of each class (item)"),
        ("min", "leave out classes (items) with fewer images"),
    ):
        group.add_argument(
            f"--{name}_images_per_class",
            type=positive_int,
            default=suppress,
            metavar="N",
            help=help_text,
        )
    group = parser.add_argument_group("parts")
    group.add_argument(
        "--validation_share",
        type=float,
        default=suppress,
        metavar="SHARE",
        help="hold back this share of the classes, and write validation_triplets.txt from them",
    )
    group.add_argument(
        "--split",
        nargs="+",
        default=suppress,
        metavar="SHARE|NAME",
        help="shares of the images for train, validation and test, such as 0.8 0.1 0.1; or names "
        "of the splits to take from a --partition (default: all, each to its own file)",
    )
    group.add_argument(
        "--by",
        choices=("class", "item"),
        default="class",
        help="what a split keeps whole: classes (categories, where there are items), or items",
    )
    group.add_argument(
        "--keep_together",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with shares, keep copies and near-copies of an image in one part; reads all images",
    )


def check_data_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error if flags do not go together."""
    share = getattr(args, "validation_share", None)
    if share is not None and not 0 < share < 1:
        parser.error(f"argument --validation_share: must lie between 0 and 1. Received: {share}")
    if share is not None and hasattr(args, "split"):
        parser.error("--validation_share and --split both split; give one of them")
    if not any(hasattr(args, name) for name in ("input_directory", *FILES)):
        parser.error("give --input_directory, or one of --classes, --pairs and --partition")
    if shares_of(args) is not None and hasattr(args, "partition"):
        parser.error("--partition is split already; choose some of its splits by --split")


def shares_of(args: argparse.Namespace) -> list[float] | None:
    """Return the shares in `--split`; None if it holds names or was not given."""
    try:
        return [float(each) for each in args.split] if hasattr(args, "split") else None
    except ValueError:
        return None


def read_data(args: argparse.Namespace, *, nested: bool) -> LabelledImages:
    """Read the images that the flags name.

    Args:
        args: flags of `add_data_arguments`.
        nested: whether folders are category/.../item, not one folder for each class.

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
        assert root is not None  # `check_data_arguments` checks it
        data = nested_folders(root, level or 1) if nested else class_folders(root)
    if level is not None and data.categories is None:
        data = with_folder_categories(data, level)
    fewest = getattr(args, "min_images_per_class", None)
    return limit_classes(data, fewest=fewest, most=getattr(args, "max_images_per_class", None))


def parts_of(
    args: argparse.Namespace, data: LabelledImages
) -> tuple[dict[str, LabelledImages], LabelledImages]:
    """Split the images as the flags say.

    Returns:
        The parts, by the stem of their triplet file's name; and all images with their splits.

    Raises:
        InputError: there are too few classes, or no such split.
    """
    names = getattr(args, "split", None)
    if hasattr(args, "validation_share"):
        data = hold_back_validation(data, args.validation_share, args.seed, by=args.by)
        names = [VALIDATION, TRAIN]
    elif (shares := shares_of(args)) is not None:
        num_notes = len(data.notes)
        data = split_by_shares(
            data, shares, args.seed, by=args.by, keep_together=args.keep_together
        )
        for note in data.notes[num_notes:]:
            print(note)
        names = PARTS[: len(shares)]
    return triplet_parts(data, names), data
