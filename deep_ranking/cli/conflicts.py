"""Refuse a flag that was given and cannot act beside the other flags.

Only what the command line gives counts, not what a recipe sets or an earlier run had. A rule says
when some flags act, and what to blame where they do not.
"""

import argparse
import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deep_ranking.config import HARD, HEAD, RELEVANCE, NetworkConfig


class Rule(NamedTuple):
    """When flags act.

    Attributes:
        flags: as they are typed, such as --no-shuffle.
        act: whether they act.
        blame: why they do not, such as "without --decay plateau".
    """

    flags: tuple[str, ...]
    act: bool
    blame: str


def refuse_flags_without_effect(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, rules: Sequence[Rule]
) -> None:
    """End with a usage error if the command line gives a flag that cannot act.

    Args:
        parser: the command's parser.
        argv: its arguments; None for the program's own.
        rules: made from the parsed flags, after recipes and earlier runs have set their values.
    """
    given = given_flags(parser, argv)
    for rule in rules:
        idle = [] if rule.act else [flag for flag in rule.flags if flag in given]
        if idle:
            parser.error(f"{idle[0]} has no effect {rule.blame}")


def given_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> list[str]:
    """Return the flags that the command line itself gives, in their long form, --no- included."""
    bare = copy.deepcopy(parser)
    for each in _with_subparsers(bare):
        each._defaults.clear()
        for action in each._actions:
            action.default = argparse.SUPPRESS
    given = vars(bare.parse_args(argv))
    return [f"--no-{name}" if value is False else f"--{name}" for name, value in given.items()]


def _with_subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _with_subparsers(subparser)


def _strategy_rules(strategy: str | None) -> list[Rule]:
    relevance = ("--relevance_cap", "--relevance_gap", "--buffer")
    return [
        Rule(relevance, strategy == RELEVANCE, f"without --strategy {RELEVANCE}"),
        Rule(("--num_neighbours",), strategy == HARD, f"without --strategy {HARD}"),
    ]


def _network_rules(args: argparse.Namespace) -> list[Rule]:
    return [Rule(("--hidden_size",), args.hidden_layers != 0, "with --hidden_layers 0")]


def _data_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of flags that `train` and `doctor` have."""
    cached = ("--cached_views", "--cache_dir")
    return [
        *_strategy_rules(args.strategy),
        *_network_rules(args),
        Rule(("--images_per_class",), args.batches == "classes", "without --batches classes"),
        Rule(cached, args.cache_features, "without --cache_features"),
    ]


DRAWING = ("--num_pos_images", "--num_neg_images", "--balance")
# Flags that make augmentation stronger.
CHANGES = (
    "--horizontal_flip",
    "--vertical_flip",
    "--rotation",
    "--zoom",
    "--shear",
    "--shift",
    "--random_crop",
    "--resized_crop",
    "--grayscale",
)


def train_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `train`."""
    classes, ranking = args.batches == "classes", args.loss == "ranking"
    validation = (
        args.validation_triplets,
        args.validation_dataset,
        args.validation_share,
        args.validation_split,
    )
    validates = any(each is not None for each in validation)
    by_hinge = ranking or args.validation_triplets is not None  # validation measures the hinge too
    plateau = ("--plateau_patience", "--plateau_factor")
    plain = args.cache_features and args.cached_views == 1  # the first view is never augmented
    return [
        *_data_rules(args),
        Rule(("--triplets", "--no-shuffle"), not classes, "with --batches classes"),
        Rule(DRAWING, args.strategy is not None, "without --strategy"),
        Rule(("--mining",), ranking, f"with --loss {args.loss}"),
        Rule(("--hinge", "--clip"), by_hinge, f"with --loss {args.loss}"),
        Rule(("--temperature",), not ranking, "with --loss ranking"),
        Rule(("--head_learning_rate",), args.head_epochs > 0, "without --head_epochs"),
        Rule(("--backbone_rate",), args.train_from != HEAD, f"with --train_from {HEAD}"),
        Rule(plateau, args.decay == "plateau", "without --decay plateau"),
        Rule(("--validate_every",), validates, "without validation data, as --validation_share"),
        Rule((*CHANGES, "--cached_views"), args.augment, "with --no-augment"),
        Rule((*CHANGES, "--augment"), not plain, "with --cache_features and --cached_views 1"),
        Rule(("--save_augmented",), not args.cache_features, "with --cache_features"),
    ]


def doctor_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `doctor`, which counts triplets for a file without a strategy too."""
    triplets = args.batches == "triplets"
    return [*_data_rules(args), Rule(DRAWING, triplets, f"with --batches {args.batches}")]


def sample_rules(args: argparse.Namespace, *, by_shares: bool) -> list[Rule]:
    """Return the rules of `sample`; `by_shares`: whether --split holds shares, not names."""
    splits = by_shares or args.validation_share is not None
    listed = args.classes or args.pairs or args.partition
    return [
        *_strategy_rules(args.strategy),
        Rule(("--weights",), args.relevance == "backbone", "without --relevance backbone"),
        Rule(("--by",), splits, "without --validation_share or shares in --split"),
        Rule(("--keep_together",), by_shares, "without shares in --split"),
        Rule(
            ("--label", "--splits", "--no-splits", "--by_content"),
            listed is None,
            "with a file of images",
        ),
    ]


def compare_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `compare`; of folders, broken images are always left out."""
    many = args.pairs is not None or args.image1.is_dir() or args.image2.is_dir()
    return [Rule(("--skip_broken",), many, "without --pairs")]


def evaluate_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `evaluate`."""
    folders = ("--label", "--splits", "--no-splits", "--split", "--by_content")
    return [
        Rule(("--weights",), args.baselines, "without --baselines"),
        Rule(folders, args.triplets is None, "with --triplets, which know no classes"),
        Rule(("--classes",), args.dataset is not None, "without --dataset"),
    ]


def index_rules(kind: str) -> list[Rule]:
    """Return the rules of `index` and `search`, by the kind of the index."""
    has_clusters = kind in ("clusters", "hierarchy")
    return [
        Rule(("--clusters",), has_clusters, f"with --index {kind}, which has no clusters"),
        # Milvus has a remedy of its own for --target_recall.
        Rule(
            ("--probes", "--target_recall"),
            kind != "exact",
            "with an exact index, which compares all images; --index chooses another kind",
        ),
    ]


def folder_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of the flags that say what the classes of an index are."""
    flags = ("--label", "--splits", "--no-splits")
    return [Rule(flags, args.classes is None, "with --classes, which names the classes")]


def search_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `search`, beside those of the kind of the index."""
    whole = args.label is None and args.folder is None
    limited = "with --class or --folder, whose images are compared one by one"
    return [Rule(("--explain_cost", "--probes"), whole, limited)]


def duplicates_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `duplicates`."""
    flags = ("--threshold", "--json", "--html", "--move")
    return [Rule(flags, args.undo is None, "with --undo")]


def summary_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `summary`."""
    network = tuple(f"--{name}" for name in NetworkConfig.__dataclass_fields__)
    return [
        Rule(network, args.model is None, "with --model, which fixes the network"),
        *_network_rules(args),
    ]


def dataset_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `dataset`; an archive that was given is never removed."""
    return [
        Rule(("--keep_archive",), getattr(args, "archive", None) is None, "with --archive"),
    ]
