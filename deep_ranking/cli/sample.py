"""`triplet_sampler.py`: folders of images -> triplets.txt, by file names alone."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deep_ranking.cli.arguments import add_required_path, add_seed, counted, positive_int
from deep_ranking.files import make_folder
from deep_ranking.images import ImageListing, find_images
from deep_ranking.sampling import hold_back_classes, sample_triplets
from deep_ranking.triplets import write_triplets

DESCRIPTION = (
    "Draw triplets (query, positive, negative) from folders of images, one folder a class, and "
    "write them to triplets.txt."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags; the first four are the blog's."""
    add_required_path(
        parser,
        "--input_directory",
        metavar="DIR",
        help_text="folder with one folder of images a class",
    )
    parser.add_argument(
        "--output_directory",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for triplets.txt; made if missing",
    )
    parser.add_argument(
        "--num_pos_images",
        type=positive_int,
        default=10,
        metavar="N",
        help="positives for each image, at most",
    )
    parser.add_argument(
        "--num_neg_images",
        type=positive_int,
        default=50,
        metavar="N",
        help="negatives for each pair of an image and a positive, at most",
    )
    parser.add_argument(
        "--validation_share",
        type=float,
        default=argparse.SUPPRESS,
        metavar="SHARE",
        help="hold this share of the classes back, and write validation_triplets.txt from them",
    )
    add_seed(parser, "the same seed gives the same file")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Sample and write the triplets, and say how many."""
    args = parser.parse_args(argv)
    share = getattr(args, "validation_share", None)
    if share is not None and not 0 < share < 1:
        parser.error(f"argument --validation_share: must lie between 0 and 1. Received: {share}")
    start = time.monotonic()
    listing = find_images(args.input_directory)
    output_dir = make_folder(args.output_directory)
    _print_listing(listing)
    training = np.ones(len(listing.paths), bool)
    if share is not None:
        training = ~hold_back_classes(listing.labels, share, args.seed)
        _write(output_dir / "validation_triplets.txt", listing, ~training, args)
    _write(output_dir / "triplets.txt", listing, training, args)
    print(f"Done in {time.monotonic() - start:.1f} seconds.")


def _print_listing(listing: ImageListing) -> None:
    images, classes = counted(len(listing.paths), "image"), counted(len(listing.classes), "class")
    print(f"{images} in {classes}.")
    if singles := int((np.bincount(listing.labels) == 1).sum()):
        verb = "has" if singles == 1 else "have"
        print(f"{counted(singles, 'class')} {verb} one image only: it serves as a negative.")
    if listing.num_unlistable:
        print(f"{counted(listing.num_unlistable, 'image')} left out: a line break in the name.")
    if listing.num_outside:
        print(f"{counted(listing.num_outside, 'image')} left out: in no folder of a class.")


def _write(
    path: Path, listing: ImageListing, chosen: npt.NDArray[np.bool_], args: argparse.Namespace
) -> None:
    """Write the triplets of the chosen images, their paths as seen from the file."""
    folder = os.path.relpath(os.path.realpath(listing.root), os.path.realpath(path.parent))
    prefix = "" if folder == os.curdir else folder.replace(os.sep, "/") + "/"
    numbers = np.flatnonzero(chosen)
    blocks = sample_triplets(
        listing.labels[numbers],
        num_positives=args.num_pos_images,
        num_negatives=args.num_neg_images,
        seed=args.seed,
    )
    count = write_triplets(path, [prefix + listing.paths[number] for number in numbers], blocks)
    print(f"{counted(count, 'triplet')} in {path}.")
