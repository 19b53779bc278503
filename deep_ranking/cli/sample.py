"""`triplet_sampler.py`: folders or lists of images -> triplets.txt.

It needs only file names, except where relevance by features, a model's neighbours or a split that
keeps copies together read the images.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from deep_ranking.cli.arguments import (
    add_config_arguments,
    add_path,
    add_seed,
    check_files_exist,
    checked_number,
    config_from,
    positive_int,
    share,
)
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.config import HARD, RELEVANCE, DrawnTripletsConfig, FolderConfig, SamplingConfig
from deep_ranking.datasets import (
    LabelledImages,
    corrected,
    limit_classes,
    read_classes,
    read_partition,
    read_positive_pairs,
    with_folder_categories,
)
from deep_ranking.files import InputError
from deep_ranking.sampling.parts import shares_in
from deep_ranking.sampling.sample import sample

DESCRIPTION = (
    "Draw triplets (query, positive, negative) from folders of images, one folder for each class, "
    "or from lists of images, and write them to triplets.txt."
)
EXAMPLES = (
    (
        "Draw triplets from folders of classes",
        "python triplet_sampler.py --input_directory photos",
    ),
    (
        "The same, and hold back a fifth of the classes to validate on",
        "python triplet_sampler.py --input_directory photos --validation_share 0.2",
    ),
)
BASIC_FLAGS = (
    "input_directory",
    "classes",
    "pairs",
    "partition",
    "corrections",
    "validation_share",
    "split",
    "max_images_per_class",
    "num_pos_images",
    "num_neg_images",
    "balance",
    "output_directory",
    "compress",
    "seed",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, among them the blog's four."""
    add_data_arguments(parser)
    add_config_arguments(parser, SamplingConfig, "triplets")
    group = parser.add_argument_group("relevance and neighbours of a strategy")
    relevance = DrawnTripletsConfig.__dataclass_fields__["relevance"]
    group.add_argument("--relevance", **relevance.metadata)
    group.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|PATH",
        help="weights of the backbone, with --relevance backbone",
    )
    for name, metavar, help_text in (
        ("model", "FILE.h5", "hard: model file of train.py that finds the nearest images"),
        ("index", "INDEX", "hard: folder of an index of these images, instead of --model"),
    ):
        add_path(group, f"--{name}", metavar=metavar, help_text=help_text)
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
        type=checked_number(int, lambda value: 1 <= value <= 99_999, "be 1 to 99,999"),
        metavar="N",
        help="write N files instead, triplets-00000-of-0000N.txt.gz and so on; train.py reads all "
        "of them when given the name of one",
    )
    add_seed(group, "the same seed gives the same file")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the images and split them."""
    group = parser.add_argument_group("images")
    add_path(
        group,
        "--input_directory",
        metavar="DIR",
        help_text="folder that holds a folder of images for each class; with a file of images, the "
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
        add_path(given, f"--{name}", metavar="FILE", help_text=help_text)
    group.add_argument(
        "--level",
        type=positive_int,
        metavar="N",
        help="number of leading folders of a path that make the category (default: 1; in a "
        "partition list, all before the item's folder)",
    )
    for name, help_text in (
        ("max", "take at most this many images of each class (item)"),
        ("min", "leave out classes (items) with fewer images"),
    ):
        flag = f"--{name}_images_per_class"
        group.add_argument(flag, type=positive_int, metavar="N", help=help_text)
    names = ("label", "corrections", "splits", "by_content")
    add_config_arguments(parser, FolderConfig, "classes of the images", only=names)
    group = parser.add_argument_group("parts")
    group.add_argument(
        "--validation_share",
        type=share,
        metavar="SHARE",
        help="hold back this share of the classes, and write validation_triplets.txt from them",
    )
    group.add_argument(
        "--split",
        nargs="+",
        metavar="SHARE|NAME",
        help="shares of the images for train, validation and test, such as 0.8 0.1 0.1; or names "
        "of splits to take, of folders or of a --partition (default: all, each to its own file)",
    )
    group.add_argument(
        "--by",
        choices=("class", "item"),
        default="class",
        help="what --validation_share or the shares of --split keep whole: classes (categories, "
        "where there are items), or items",
    )
    group.add_argument(
        "--keep_together",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with shares in --split, keep copies and near-copies of an image in one part; reads "
        "all images",
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Sample and write the triplets, and print how many."""
    args = parser.parse_args(argv)
    try:
        config = config_from(args, SamplingConfig)
    except InputError as error:
        parser.error(str(error))
    _check(parser, args, config)
    refuse_flags_without_effect(parser, argv, rules_of("sample", args))
    start = time.monotonic()
    data = read_data(args, config)
    quieten_tensorflow()
    sample(
        data,
        args.output_directory,
        config,
        split=args.split,
        validation_share=args.validation_share,
        by=args.by,
        keep_together=args.keep_together,
        relevance=args.relevance,
        weights=None if args.weights == "none" else args.weights,
        neighbours_of=args.model or args.index,
        compress=args.compress,
        shards=args.shards,
        seed=args.seed,
        progress=print,
    )
    print(f"Done in {time.monotonic() - start:.1f} seconds.")


def _check(
    parser: argparse.ArgumentParser, args: argparse.Namespace, config: SamplingConfig
) -> None:
    if args.validation_share and args.split:
        parser.error("--validation_share and --split both split; give one of them")
    if not any((args.input_directory, args.classes, args.pairs, args.partition)):
        parser.error("give --input_directory, or one of --classes, --pairs and --partition")
    if shares_in(args.split) is not None and args.partition:
        parser.error("--partition is split already; choose some of its splits by --split")
    if (config.strategy == RELEVANCE) != (args.relevance is not None):
        parser.error("--strategy relevance and --relevance need each other")
    if (config.strategy == HARD) != bool(args.model or args.index):
        parser.error("--strategy hard needs --model or --index, and these need --strategy hard")
    if args.model and args.index:
        parser.error("give --model or --index, not both: each finds the nearest images")
    check_files_exist(args, "model", "index")
    if args.model and not args.model.is_file():
        raise InputError(f"{args.model}: not a regular file; --model expects an .h5 file")
    if args.index and not args.index.is_dir():
        raise InputError(f"{args.index}: not a folder; --index expects the folder of an index")


def read_data(args: argparse.Namespace, config: SamplingConfig) -> LabelledImages:
    """Read the images that the flags name."""
    root: Path | None = args.input_directory
    if root is not None and not root.is_dir():
        raise InputError(f"{root}: no such folder; check --input_directory")
    if args.partition:
        data = read_partition(args.partition, root, level=args.level)
    elif args.pairs:
        data = read_positive_pairs(args.pairs, root)
    elif root is None:
        data = read_classes(args.classes)
    else:
        level = args.level if args.classes else config.category_level(args.level)
        data = config_from(args, FolderConfig, split=None).read(root, level=level)
    if args.level is not None and data.categories is None:
        data = with_folder_categories(data, args.level)
    if args.corrections and (args.partition or args.pairs or root is None):  # the folders have them
        data = corrected(data, args.corrections)
    return limit_classes(data, fewest=args.min_images_per_class, most=args.max_images_per_class)
