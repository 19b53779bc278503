"""`train --recipe taught`: a model and what people answered -> a model that learned from them."""

import argparse
import time
from collections.abc import Collection
from pathlib import Path

from deep_ranking.cli.arguments import add_path, check_files_exist, read_dataset
from deep_ranking.cli.compile import compile_trained
from deep_ranking.cli.conflicts import Rule
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.cli.output import check_output_file
from deep_ranking.config import FolderConfig, TrainConfig
from deep_ranking.config.recipes import TAUGHT
from deep_ranking.datasets.splits import TO_TRAIN
from deep_ranking.files import InputError

FLAGS = {
    "--recipe",
    "--ratings",
    "--images",
    "--dataset",
    "--weights",
    "--output",
    "--overwrite",
    "--cache_dir",
    "--seed",
    "--compile",
    "--no-compile",
    "--max_megapixels",
    "--quiet",
    "--verbose",
}
OF_FOLDERS = {f"--{name}" for name in FolderConfig.__dataclass_fields__} | {"--no-splits"}
PLACEHOLDERS = (None, "imagenet", "none")  # of --weights, which name no model


def add_taught_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the recipe that other recipes do not have."""
    group = parser.add_argument_group(f"answers of people, for --recipe {TAUGHT.name}")
    group.add_argument(
        "--ratings",
        action="append",
        type=Path,
        metavar="FILE",
        help="ratings file to learn from; may be given several times",
    )
    add_path(
        group,
        "--images",
        metavar="DIR",
        help_text="folder that the paths in the ratings start from (default: --dataset)",
    )


def taught_rules(given: Collection[str], args: argparse.Namespace) -> list[Rule]:
    """Return the rules that refuse all flags of training in epochs.

    Args:
        given: the flags of the command line.
        args: its parsed flags.
    """
    others = tuple(sorted(set(given) - FLAGS - OF_FOLDERS))
    return [
        Rule(others, False, f"with --recipe {TAUGHT.name}"),
        Rule(tuple(sorted(OF_FOLDERS)), args.dataset is not None, "without --dataset"),
    ]


def run_taught(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Teach the model of --weights, and print what it learned."""
    if not args.ratings:
        parser.error(f"--recipe {TAUGHT.name} needs --ratings, the file of what people answered")
    if args.weights in PLACEHOLDERS:
        parser.error(f"--recipe {TAUGHT.name} needs --weights, the model file to go on from")
    images = args.images or args.dataset
    if images is None:
        parser.error(
            "give --images, the folder that the ratings' paths start from, or --dataset, folders "
            "of classes that they start from"
        )
    run = TrainConfig(output=args.output, cache_dir=args.cache_dir, seed=args.seed)
    check_files_exist(args, "images", "dataset")
    if args.output.exists() and not args.overwrite:
        raise InputError(f"{args.output}: exists; give --overwrite to replace it")
    check_output_file(args.output, "--output")
    if args.images is None:
        print(f"The ratings' paths start from {images}; --images names another folder.")
    labelled = read_dataset(args, args.dataset, TO_TRAIN) if args.dataset else None
    start_tensorflow()
    from deep_ranking.training.taught.teaching import TaughtConfig, teach

    start = time.monotonic()
    report = teach(
        TaughtConfig(
            model=Path(args.weights),
            output=args.output,
            ratings=tuple(args.ratings),
            images=images,
            labelled=labelled,
            cache_dir=run.feature_dir,
            seed=run.seed,
        )
    )
    print(report)
    if args.compile:
        compile_trained(args.output)
    print(f"Model in {args.output}, {time.monotonic() - start:.0f} seconds.")
