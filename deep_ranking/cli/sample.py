"""`triplet_sampler.py`: folders or lists of images -> triplets.txt, by file names alone.

Only relevance of features, a model's neighbours and a split that keeps copies together read images.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
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
from deep_ranking.config import HARD, IN_CLASS, RELEVANCE, SamplingConfig
from deep_ranking.datasets import LabelledImages, relative_prefix, write_classes
from deep_ranking.files import InputError, make_folder
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.words import counted
from deep_ranking.sampling import Strategy, make_strategy
from deep_ranking.sampling.triplet_file import COMPRESSED, shard_path, write_triplets

DESCRIPTION = (
    "Draw triplets (query, positive, negative) from folders of images, one folder a class, or from "
    "lists of images, and write them to triplets.txt."
)
PARTITION = "partition.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, among them the blog's four."""
    suppress = argparse.SUPPRESS
    add_data_arguments(parser)
    add_config_arguments(parser, SamplingConfig, "triplets")
    group = parser.add_argument_group("what strategies go by")
    group.add_argument(
        "--relevance",
        default=suppress,
        metavar="HOW",
        help="relevance of two images: PATH.csv of path,path,score; the cosine of the embeddings "
        "of a model, PATH.h5, of the untrained backbone, `backbone`, or of colour and texture, "
        "`features`; `tree`, the share of their folders that two images have in common",
    )
    group.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|PATH",
        help="weights of the backbone, with --relevance backbone",
    )
    for name, metavar, help_text in (
        ("model", "PATH", "model file of train.py that says which images are near, with hard"),
        ("index", "DIR", "folder that `index` wrote of these images, in the place of --model"),
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
        "by the name of one",
    )
    add_seed(parser, "the same seed gives the same file")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Sample and write the triplets, and say how many."""
    args = parser.parse_args(argv)
    try:
        config = config_from(args, SamplingConfig)
    except InputError as error:
        parser.error(str(error))
    _check(parser, args, config)
    start = time.monotonic()
    data = read_data(args, nested=config.strategy in (IN_CLASS, RELEVANCE))
    output_dir = make_folder(args.output_directory)
    _print_data(data, config)
    parts, data = parts_of(args, data)
    with ExitStack() as opened:
        # All strategies before any file: what is wrong with the data is said before one is written.
        strategies = []
        for stem, part in parts:
            try:
                strategies.append(_strategy(args, config, part, opened))
            except InputError as error:
                raise InputError(f"{stem}: {error}" if len(parts) > 1 else str(error)) from None
        if shares_of(args) is not None:
            write_classes(output_dir / PARTITION, data, relative_prefix(data.root, output_dir))
            print(f"Which image is where is in {output_dir / PARTITION}.")
        for (stem, part), strategy in zip(parts, strategies, strict=True):
            _write(output_dir / f"{stem}.txt", part, strategy, args)
    print(f"Done in {time.monotonic() - start:.1f} seconds.")


def _check(
    parser: argparse.ArgumentParser, args: argparse.Namespace, config: SamplingConfig
) -> None:
    check_data_arguments(parser, args)
    if (config.strategy == RELEVANCE) != hasattr(args, "relevance"):
        parser.error("--strategy relevance and --relevance need each other")
    if (config.strategy == HARD) != (hasattr(args, "model") or hasattr(args, "index")):
        parser.error("--strategy hard needs --model or --index, and they need it")
    if hasattr(args, "model") and hasattr(args, "index"):
        parser.error("--model and --index both say which images are near; give one of them")
    if hasattr(args, "model"):
        check_files_exist(args, "model")


def _strategy(
    args: argparse.Namespace, config: SamplingConfig, data: LabelledImages, opened: ExitStack
) -> Strategy:
    """Make the strategy, with the relevance or the neighbours that it goes by."""
    items = data.items.codes
    categories = None if data.categories is None else data.categories.codes
    relevance = neighbours = None
    if config.strategy == RELEVANCE:
        from deep_ranking.sampling.relevance import WITHOUT_NETWORK, open_relevance

        if not args.relevance.lower().endswith(WITHOUT_NETWORK):
            start_tensorflow()
        weights = None if args.weights == "none" else args.weights
        scored = opened.enter_context(open_relevance(args.relevance, data, weights=weights))
        relevance = (scored, scored.totals(items if categories is None else categories, args.seed))
    if config.strategy == HARD:
        if hasattr(args, "model"):
            start_tensorflow()
        from deep_ranking.search.neighbours import find_neighbours

        model, index = getattr(args, "model", None), getattr(args, "index", None)
        neighbours = find_neighbours(data, config.num_neighbours, model=model, index=index)
    return make_strategy(
        config,
        items,
        categories=categories,
        pairs=data.pairs,
        relevance=relevance,
        neighbours=neighbours,
    )


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
            verb = "has" if alone == 1 else "have"
            print(f"{counted(alone, 'category')} {verb} one item only: no query of it.")
    for note in data.notes:
        print(note)


def _write(path: Path, data: LabelledImages, strategy: Strategy, args: argparse.Namespace) -> None:
    """Write the triplets of a part, their paths as seen from the file."""
    shards = getattr(args, "shards", None)
    if args.compress or shards is not None:
        path = path.with_name(path.name + COMPRESSED)
    prefix = relative_prefix(data.root, path.parent)
    paths = [prefix + name for name in data.paths]
    count = write_triplets(path, paths, _with_progress(strategy, args.seed), shards=shards)
    where = path if shards is None else f"{shards} files, {shard_path(path, 0, shards)} and on"
    print(f"{counted(count, 'triplet')} in {where}.")
    if getattr(args, "relevance", None) and count < strategy.num_triplets:
        print(
            f"{counted(strategy.num_triplets - count, 'triplet')} left out: no positive, or no "
            "negative that is by --relevance_gap less relevant, was found for the query."
        )


def _with_progress(strategy: Strategy, seed: int) -> Iterator[np.ndarray]:
    total = strategy.num_triplets
    with progress_bar(total=total, title="triplets", unit="triplets") as bar:
        for block in strategy.triplets(seed):
            yield block
            bar.update(len(block))
