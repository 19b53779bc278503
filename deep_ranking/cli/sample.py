"""`triplet_sampler.py`: folders or lists of images -> triplets.txt.

It needs only file names, except where relevance by features, a model's neighbours or a split that
keeps copies together read the images.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from deep_ranking.cli.arguments import (
    add_config_arguments,
    add_seed,
    check_files_exist,
    config_from,
    positive_int,
)
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.cli.sample_data import (
    add_data_arguments,
    check_data_arguments,
    parts_of,
    read_data,
    shares_of,
)
from deep_ranking.config import HARD, IN_CLASS, RELEVANCE, DrawnTripletsConfig, SamplingConfig
from deep_ranking.datasets import LabelledImages, relative_prefix, write_classes
from deep_ranking.files import InputError, make_folder
from deep_ranking.files.words import counted
from deep_ranking.sampling import Strategy, open_strategy
from deep_ranking.sampling.parts import write_drawn_triplets
from deep_ranking.sampling.relevance import needs_network
from deep_ranking.sampling.triplet_file import COMPRESSED, shard_path

DESCRIPTION = (
    "Draw triplets (query, positive, negative) from folders of images, one folder for each class, "
    "or from lists of images, and write them to triplets.txt."
)
PARTITION = "partition.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, among them the blog's four."""
    suppress = argparse.SUPPRESS
    add_data_arguments(parser)
    add_config_arguments(parser, SamplingConfig, "triplets")
    group = parser.add_argument_group("relevance and neighbours")
    relevance = DrawnTripletsConfig.__dataclass_fields__["relevance"]
    group.add_argument("--relevance", default=suppress, **relevance.metadata)
    group.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|PATH",
        help="weights of the backbone, with --relevance backbone",
    )
    for name, metavar, help_text in (
        ("model", "PATH", "hard: model file of train.py that finds the nearest images"),
        ("index", "DIR", "hard: folder of an index of these images, instead of --model"),
    ):
        group.add_argument(
            f"--{name}", type=Path, default=suppress, metavar=metavar, help=help_text
        )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output_directory",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for triplets.txt; made if missing",
    )
    group.add_argument(
        "--compress", action="store_true", help="write triplets.txt.gz, a fifth of the size or less"
    )
    group.add_argument(
        "--shards",
        type=positive_int,
        default=suppress,
        metavar="N",
        help="write N files instead, triplets-00000-of-0000N.txt.gz and so on; train.py reads all "
        "of them when given the name of one",
    )
    add_seed(parser, "the same seed gives the same file")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Sample and write the triplets, and print how many."""
    args = parser.parse_args(argv)
    try:
        config = config_from(args, SamplingConfig)
    except InputError as error:
        parser.error(str(error))
    _check(parser, args, config)
    start = time.monotonic()
    data = read_data(args, nested=config.has_nested_folders)
    output_dir = make_folder(args.output_directory)
    _print_data(data, config)
    parts, data = parts_of(args, data)
    relevance = getattr(args, "relevance", None)
    neighbours_of: Path | None = getattr(args, "model", getattr(args, "index", None))
    finds_by_model = neighbours_of is not None and neighbours_of.is_file()
    if finds_by_model or (relevance is not None and needs_network(relevance)):
        start_tensorflow()
    with ExitStack() as opened:
        # Make all strategies before writing: no file appears if a part cannot give triplets.
        strategies = {}
        for stem, part in parts.items():
            strategy = open_strategy(
                config,
                part,
                seed=args.seed,
                relevance=relevance,
                weights=None if args.weights == "none" else args.weights,
                neighbours_of=neighbours_of,
            )
            try:
                strategies[stem] = opened.enter_context(strategy)
            except InputError as error:
                raise InputError(f"{stem}: {error}" if len(parts) > 1 else str(error)) from None
        if shares_of(args) is not None:
            write_classes(output_dir / PARTITION, data, relative_prefix(data.root, output_dir))
            print(f"The part of each image is in {output_dir / PARTITION}.")
        for stem, part in parts.items():
            _write(output_dir / f"{stem}.txt", part, strategies[stem], args)
    print(f"Done in {time.monotonic() - start:.1f} seconds.")


def _check(
    parser: argparse.ArgumentParser, args: argparse.Namespace, config: SamplingConfig
) -> None:
    check_data_arguments(parser, args)
    if (config.strategy == RELEVANCE) != hasattr(args, "relevance"):
        parser.error("--strategy relevance and --relevance need each other")
    if (config.strategy == HARD) != (hasattr(args, "model") or hasattr(args, "index")):
        parser.error("--strategy hard needs --model or --index, and these need --strategy hard")
    if hasattr(args, "model") and hasattr(args, "index"):
        parser.error("give --model or --index, not both: each finds the nearest images")
    check_files_exist(args, *(name for name in ("model", "index") if hasattr(args, name)))


def _print_data(data: LabelledImages, config: SamplingConfig) -> None:
    images, num_items = counted(len(data), "image"), data.items.num_names
    if data.categories is None:
        print(f"{images} in {counted(num_items, 'class')}.")
    else:
        categories = counted(data.categories.num_names, "category")
        print(f"{images} of {counted(num_items, 'item')} in {categories}.")
    if data.pairs is not None:
        print(f"{counted(len(data.pairs), 'pair')} of query and positive.")
    elif singles := int((data.items.sizes() == 1).sum()):
        noun = "class" if data.categories is None else "item"
        verb = "has" if singles == 1 else "have"
        print(f"{counted(singles, noun)} {verb} one image only: it serves as a negative.")
    if data.categories is not None and config.strategy == IN_CLASS and data.pairs is None:
        both = np.unique(np.column_stack([data.categories.codes, data.items.codes]), axis=0)
        alone = int((np.bincount(both[:, 0]) == 1).sum())
        if alone:
            verb, whose = ("has", "its") if alone == 1 else ("have", "their")
            images = f"none of {whose} images is a query"
            print(f"{counted(alone, 'category')} {verb} one item only: {images}.")
    for note in data.notes:
        print(note)


def _write(path: Path, data: LabelledImages, strategy: Strategy, args: argparse.Namespace) -> None:
    """Write the triplets of a part, and print how many."""
    shards = getattr(args, "shards", None)
    if args.compress or shards is not None:
        path = path.with_name(path.name + COMPRESSED)
    count = write_drawn_triplets(path, data, strategy, args.seed, shards=shards)
    where = path if shards is None else f"{shards} files, from {shard_path(path, 0, shards)} on"
    print(f"{counted(count, 'triplet')} in {where}.")
    if getattr(args, "relevance", None) and count < strategy.num_triplets:
        print(
            f"{counted(strategy.num_triplets - count, 'triplet')} left out: no positive was found "
            "for the query, or no negative less relevant by --relevance_gap."
        )
