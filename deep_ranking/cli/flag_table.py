"""The table of which flag of which command acts when; a flag that is not in it always acts.

`conflicts` refuses a flag that is given where it cannot act. What settings refuse themselves, such
as --level without --strategy, is in `config`. `tests/test_flag_table.py` runs the commands, and
shows of every flag that it is read or refused.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from deep_ranking.cli.conflicts import Rule
from deep_ranking.config import HARD, HEAD, IN_CLASS, RELEVANCE, NetworkConfig
from deep_ranking.config.recipes import TAUGHT
from deep_ranking.datasets.splits import VAL, split_kind
from deep_ranking.sampling.parts import shares_in

Args = argparse.Namespace


class When(NamedTuple):
    """When a flag acts.

    Attributes:
        acts: whether it does, by the parsed flags.
        blame: why not, such as "without --decay plateau"; {name} stands for a flag's value.
    """

    acts: Callable[[Args], bool]
    blame: str


def _is(name: str, *values: object) -> Callable[[Args], bool]:
    return lambda args: getattr(args, name) in values


def _is_not(name: str, *values: object) -> Callable[[Args], bool]:
    return lambda args: getattr(args, name) not in values


def _by_shares(args: Args) -> bool:
    return shares_in(args.split) is not None


def _has_validation(args: Args) -> bool:
    """Return whether a run validates; a split of the data set named val counts."""
    given = ("triplets", "dataset", "share", "split")
    if any(getattr(args, f"validation_{name}") is not None for name in given):
        return True
    reads_folders = args.batches == "classes" or args.strategy is not None
    if not reads_folders or args.dataset is None or args.splits is False:
        return False
    with suppress(OSError):
        folders = (each.name for each in args.dataset.iterdir() if each.is_dir())
        return args.classes is not None or any(split_kind(name) == VAL for name in folders)
    return False


def _is_augmented(args: Args) -> bool:
    """Return whether views are changed at random; the first cached one never is."""
    return not args.cache_features or args.cached_views > 1


OF_FOLDERS = ("--label", "--splits", "--no-splits")
DRAWING = ("--num_pos_images", "--num_neg_images", "--balance")
AUGMENTING = (
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
NETWORK = tuple(f"--{name}" for name in NetworkConfig.__dataclass_fields__)
BUT_SIZE = tuple(flag for flag in NETWORK if flag != "--image_size")  # the doctor checks sizes
OF_AN_ESTIMATE = ("--precision", "--optimizer", "--epochs", "--train_from")

BY_RELEVANCE = When(_is("strategy", RELEVANCE), f"without --strategy {RELEVANCE}")
BY_NEIGHBOURS = When(_is("strategy", HARD), f"without --strategy {HARD}")
HIDDEN = When(_is_not("hidden_layers", 0), "with --hidden_layers 0")
BRANCHES = When(_is_not("multiscale", "none"), "with --multiscale none")
CLASSES = When(_is("batches", "classes"), "without --batches classes")
TRIPLETS = When(_is("batches", "triplets"), "with --batches {batches}")
FOLDERS = When(
    lambda args: args.batches == "classes" or args.strategy is not None,
    "without --batches classes or --strategy",
)
NO_PAIR_FILE = When(
    lambda args: args.pairs is None or not args.pairs.is_file(),
    "with a file in --pairs, which names each image's item",
)
TAUGHT_RECIPE = When(_is("recipe", TAUGHT.name), f"without --recipe {TAUGHT.name}")
CACHED = When(lambda args: args.cache_features, "without --cache_features")
NOT_CACHED = When(lambda args: not args.cache_features, "with --cache_features")
AUGMENTED = When(_is_augmented, "with --cache_features and --cached_views 1")
AUGMENT = When(lambda args: args.augment, "with --no-augment")
RANKING = When(_is("loss", "ranking"), "with --loss {loss}")
# Validation on triplets measures the hinge, whatever the loss is.
HINGE = When(
    lambda args: args.loss == "ranking" or args.validation_triplets is not None,
    "with --loss {loss}",
)
NOT_ALL_HEAD = When(
    lambda args: args.head_epochs < args.epochs or args.head_learning_rate is None,
    "with --head_learning_rate in all of --epochs",
)
PLATEAU = When(_is("decay", "plateau"), "without --decay plateau")
NO_CLASS_FILE = When(_is("classes", None), "with --classes, which names each image's class")
# --validation_dataset is read without the class file.
NO_CLASS_FILE_ALONE = When(
    lambda args: args.classes is None or args.validation_dataset is not None,
    NO_CLASS_FILE.blame,
)
ESTIMATE = When(lambda args: args.estimate, "with --no-estimate")
NO_TRIPLETS = When(_is("triplets", None), "with --triplets, which know no classes")
LISTED = When(
    lambda args: not (args.classes or args.pairs or args.partition), "with a file of images"
)
CLUSTERS = When(_is("kind", "clusters", "hierarchy"), "with --index {kind}, which has no clusters")
NOT_EXACT = When(
    _is_not("kind", "exact"),
    "with an exact index, which compares all images; --index chooses another kind",
)
WHOLE_INDEX = When(
    lambda args: (args.label is None and args.folder is None) or args.kind == "milvus",
    "with --class or --folder, whose images are compared one by one",
)
SHARDS = When(lambda args: args.num_shards, "with one index")
NOT_SHARDS = When(
    lambda args: not args.num_shards, "with several shards, which are ranked by their plain rows"
)
FOR_PEOPLE = When(
    lambda args: not (args.json or args.csv), "with --json and --csv, which have the distance"
)
TABLE_OF_PATHS = When(_is("source", "table"), "without a Parquet file in --images")
NO_TABLE_OF_PATHS = When(
    _is_not("source", "table"), "with a Parquet file in --images, which names them itself"
)
NO_ADDRESS = When(_is_not("source", "address"), "with an address in --images")
SHARES = When(_by_shares, "without shares in --split")

# Each row: some flags, and when they act; of several reasons, the first is blamed.
Table = Sequence[tuple[tuple[str, ...], tuple[When, ...]]]

NETWORK_ROWS: Table = [(("--hidden_size",), (HIDDEN,))]
STRATEGY_ROWS: Table = [
    (("--relevance_cap", "--relevance_gap", "--buffer"), (BY_RELEVANCE,)),
    (("--num_neighbours",), (BY_NEIGHBOURS,)),
]
DATA_ROWS: Table = [
    *STRATEGY_ROWS,
    *NETWORK_ROWS,
    (("--images_per_class",), (CLASSES,)),
    (("--cached_views", "--cache_dir"), (CACHED,)),
    (OF_FOLDERS, (NO_CLASS_FILE_ALONE,)),
]

TABLE: Mapping[str, Table] = {
    "train": [
        *DATA_ROWS,
        (("--ratings", "--images"), (TAUGHT_RECIPE,)),
        (("--triplets", "--no-shuffle"), (TRIPLETS,)),
        (("--label", "--by_content"), (NO_PAIR_FILE,)),
        (DRAWING, (When(_is_not("strategy", None), "without --strategy"),)),
        (("--mining",), (RANKING,)),
        (("--branch_start", "--train_branches", "--no-train_branches"), (BRANCHES,)),
        (("--hinge", "--clip"), (HINGE,)),
        (("--temperature",), (When(_is_not("loss", "ranking"), "with --loss ranking"),)),
        (
            ("--head_learning_rate",),
            (When(_is_not("head_epochs", 0), "without --head_epochs"),),
        ),
        (
            ("--backbone_rate",),
            (When(_is_not("train_from", HEAD), f"with --train_from {HEAD}"),),
        ),
        (("--learning_rate",), (NOT_ALL_HEAD,)),
        (("--plateau_patience", "--plateau_factor"), (PLATEAU,)),
        (
            ("--validate_every",),
            (When(_has_validation, "without validation data, as --validation_share"),),
        ),
        ((*AUGMENTING, "--cached_views"), (AUGMENT,)),
        ((*AUGMENTING, "--augment"), (AUGMENTED,)),
        (("--save_augmented",), (NOT_CACHED,)),
    ],
    # Without a strategy, it counts the triplets of a file too.
    "doctor": [
        *DATA_ROWS,
        (DRAWING, (TRIPLETS,)),
        ((*BUT_SIZE, *OF_AN_ESTIMATE), (ESTIMATE,)),
        (("--split",), (FOLDERS,)),
    ],
    "sample": [
        *STRATEGY_ROWS,
        (
            ("--level",),
            (
                When(
                    lambda args: (
                        args.strategy in (IN_CLASS, RELEVANCE)
                        or bool(args.pairs or args.partition)
                        or args.validation_share is not None
                        or _by_shares(args)
                    ),
                    f"without --strategy {IN_CLASS} or {RELEVANCE}",
                ),
            ),
        ),
        (
            ("--weights",),
            (When(_is("relevance", "backbone"), "without --relevance backbone"),),
        ),
        (
            ("--by",),
            (
                When(
                    lambda args: _by_shares(args) or args.validation_share is not None,
                    "without --validation_share or shares in --split",
                ),
            ),
        ),
        (("--keep_together",), (SHARES,)),
        ((*OF_FOLDERS, "--by_content"), (LISTED,)),
    ],
    "compare": [
        (  # of folders, broken images are always left out
            ("--skip_broken",),
            (
                When(
                    lambda args: (
                        args.pairs is not None or args.image1.is_dir() or args.image2.is_dir()
                    ),
                    "without --pairs",
                ),
            ),
        ),
    ],
    "evaluate": [
        (("--weights",), (When(lambda args: args.baselines, "without --baselines"),)),
        (
            (*OF_FOLDERS, "--corrections", "--split", "--by_content", "--smooth", "--rerank"),
            (NO_TRIPLETS,),
        ),
        (("--smooth_power",), (When(_is_not("smooth", None, 0), "without --smooth"),)),
        (("--classes", "--atlas"), (When(_is_not("dataset", None), "without --dataset"),)),
        (("--before",), (When(_is_not("atlas", None), "without --atlas"),)),
        (OF_FOLDERS, (NO_CLASS_FILE,)),
    ],
    "calibrate": [(OF_FOLDERS, (NO_CLASS_FILE,))],
    "report": [(OF_FOLDERS, (NO_CLASS_FILE,))],
    # `kind` is that of the index; Milvus has a remedy of its own for --target_recall.
    "index": [
        (("--clusters",), (CLUSTERS,)),
        (("--milvus_index",), (When(_is("kind", "milvus"), "without an --index in Milvus"),)),
        (("--probes", "--target_recall"), (NOT_EXACT,)),
        (("--smooth_power",), (When(_is_not("smooth", None, 0), "without --smooth"),)),
        (OF_FOLDERS, (NO_CLASS_FILE,)),
        (
            ("--shard", "--precision"),
            (When(_is("from_parquet", None), "with --from_parquet"),),
        ),
    ],
    # `source` is what --images names: "folder", "address" or "table".
    "embed": [
        (("--root",), (TABLE_OF_PATHS,)),
        (OF_FOLDERS, (NO_TABLE_OF_PATHS, NO_CLASS_FILE)),
        (("--classes", "--corrections", "--by_content"), (NO_TABLE_OF_PATHS, NO_ADDRESS)),
        (("--address", "--workers"), (When(_is("engine", "ray"), "without --engine ray"),)),
    ],
    "search": [
        (("--skip_unavailable",), (SHARDS,)),
        (("--smooth", "--no-smooth"), (NOT_SHARDS,)),
        (("--probes",), (NOT_EXACT,)),
        (("--explain_cost", "--probes"), (WHOLE_INDEX,)),
        (
            ("--explain_cost",),
            (When(_is("min_probability", None), "with --min_probability, which leaves hits out"),),
        ),
        (("--metric",), (FOR_PEOPLE,)),
        (
            ("--no-smooth",),
            (When(lambda args: args.smoothed, "with an index that is not smoothed"),),
        ),
    ],
    "duplicates": [
        (
            ("--threshold", "--json", "--html", "--move"),
            (When(_is("undo", None), "with --undo"),),
        ),
    ],
    "ratings": [
        (("--rater",), (When(_is_not("import", None), "without --import"),)),
        (
            ("--dataset",),
            (
                When(
                    lambda args: any((args.model, args.export, getattr(args, "import"))),
                    "without --model, --export or --import",
                ),
            ),
        ),
    ],
    "serve": [
        (("--rater",), (When(_is_not("teach", None), "without --teach"),)),
        (("--skip_unavailable",), (When(lambda args: args.lists, "without a list of shards"),)),
    ],
    "summary": [
        (NETWORK, (When(_is("model", None), "with --model, which fixes the network"),)),
        *NETWORK_ROWS,
    ],
    "dataset": [
        (  # an archive that was given is never removed
            ("--keep_archive",),
            (When(lambda args: getattr(args, "archive", None) is None, "with --archive"),),
        ),
        (
            OF_FOLDERS,
            (When(lambda args: getattr(args, "classes", None) is None, NO_CLASS_FILE.blame),),
        ),
    ],
}


def rules_of(command: str, args: Args) -> list[Rule]:
    """Return the rules of a command for its parsed flags, after recipes have set their values."""
    return [
        Rule(flags, bool(when.acts(args)), when.blame.format(**vars(args)))
        for flags, conditions in TABLE.get(command, ())
        for when in conditions
    ]
