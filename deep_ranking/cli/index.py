"""`index`: a model and a folder of images -> a collection to search, up to date."""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import (
    add_folder_arguments,
    add_index_kind,
    add_model,
    add_output,
    add_path,
    check_files_exist,
    checked_number,
    config_from,
    non_negative_int,
    positive_int,
)
from deep_ranking.cli.conflicts import (
    given_flags,
    refuse_flags_without_effect,
)
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.cli.signals import resume_hint
from deep_ranking.cli.smoothing import add_smoothing
from deep_ranking.config import FolderConfig
from deep_ranking.files.words import byte_size, counted
from deep_ranking.search.collection import DTYPES, Collection
from deep_ranking.search.collection.own_files import SETTINGS
from deep_ranking.search.collection.precision import AUTO, CHOICES
from deep_ranking.search.index.kinds import MILVUS, MILVUS_TYPES, with_milvus_type

if TYPE_CHECKING:
    from deep_ranking.search.indexing import IndexReport

DESCRIPTION = (
    "Embed the images of a folder once, to search them. Run the same command again to embed only "
    "new and changed images, or to resume after it was stopped."
)
HEADINGS = ("probes", "recall@1", "recall@10", "recall@100", "p50 ms", "p99 ms", "compared")
BASIC_FLAGS = (
    "output",
    "model",
    "images",
    "checksum",
    "label",
    "classes",
    "corrections",
    "index",
    "target_recall",
    "measure",
)
FOLDER_NAMES = ("label", "classes", "corrections", "splits", "by_content")
EXAMPLES = (
    (
        "Embed a folder of images, to search them",
        "python -m deep_ranking index -m m.h5 --images photos -o photos.index",
    ),
    (
        "Embed only what is new, and visit only some clusters in a search",
        "python -m deep_ranking index -o photos.index --index clusters --measure",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("model and images")
    add_output(group, "INDEX", "folder of the index; made if missing")
    add_model(group, "model file from train.py; needed only the first time", required=False)
    help_text = "folder of images, with or without subfolders; needed only the first time"
    add_path(group, "--images", metavar="DIR", help_text=help_text)
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="embed only part I of N of the images, divided by content; `merge` joins the parts",
    )
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        help="type of the embeddings on disk; float16 takes half the space (default: float32)",
    )
    group.add_argument(
        "--precision",
        choices=CHOICES,
        default=None,
        help="what to compute in: float32; int8, which is faster and less exact; auto: int8 if, as "
        "measured on these images, it finds 95%% of the nearest ones, and they are many (default: "
        "auto for a new index)",
    )
    group.add_argument(
        "--checksum",
        action="store_true",
        help="read every file again instead of trusting its size and modification time (with "
        "--from_parquet: every part)",
    )
    add_folder_arguments(parser)
    group = parser.add_argument_group("tables of other programs")
    add_path(
        group,
        "--export",
        metavar="FILE.parquet",
        help_text="also write path, class, distance to the class mean with its probability, and "
        'vector of each image as a table (pip install "deep-ranking[parquet]")',
    )
    add_path(
        group,
        "--from_parquet",
        metavar="FILE.parquet|DIR.parquet",
        help_text="take in such a table, or a folder of its parts, instead of embedding: columns "
        "path, vector, and perhaps class and content (with which no image is read); again, only "
        "what is new; needs --model at first, and --images if the table names no folder",
    )
    group = parser.add_argument_group("kind of index, and how thoroughly a search looks")
    add_index_kind(group)
    group.add_argument(
        "--milvus_index",
        choices=MILVUS_TYPES,
        help="type of the index in Milvus: hnsw finds nearly all and stays in memory; ivf_pq takes "
        "the least; diskann keeps most on the disk (default: hnsw, or what it has)",
    )
    group.add_argument(
        "--clusters",
        type=non_negative_int,
        metavar="N",
        help="clusters to make, for clusters and hierarchy; 0 to choose by the number of images",
    )
    choice = group.add_mutually_exclusive_group()
    help_text = "clusters that a search visits; for Milvus, its effort (exact: not allowed)"
    choice.add_argument("--probes", type=positive_int, metavar="N", help=help_text)
    choice.add_argument(
        "--target_recall",
        type=checked_number(float, lambda value: 0 < value <= 1, "be above 0 and at most 1"),
        metavar="SHARE",
        help="share of the 20 nearest images that a search must find, instead of --probes; the "
        "smallest sufficient number of clusters is measured and stored (clusters and hierarchy; "
        "default: 0.95)",
    )
    add_smoothing(
        group,
        const="choose",
        help_text="search rows that are smoothed: each is the weighted mean of its K nearest, "
        "itself among them; without K, it is chosen by the classes of the images; 0 for the plain "
        "rows again; kept up to date by later runs",
    )
    group.add_argument(
        "--measure",
        action="store_true",
        help="measure and print the recall and the time of searches for each number of probes",
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Sync the collection, update its index, and print a report."""
    args = parser.parse_args(argv)
    is_new = not (args.output / SETTINGS).exists()
    if args.export is not None or args.from_parquet is not None:
        _check_tables(parser, args, is_new=is_new)
    if is_new and args.from_parquet is None and not (args.model and args.images):
        parser.error(f"{args.output} is no index yet: give --model and --images to make one")
    wanted = args.index
    if wanted is None and not is_new:
        wanted = Collection.open(args.output).settings.index
    args.kind = wanted["kind"] if wanted else "exact"
    refuse_flags_without_effect(parser, argv, rules_of("index", args))
    if args.milvus_index is not None:
        args.index = with_milvus_type(wanted, args.milvus_index)
    folders = _folders(args, given_flags(parser, argv), is_new=is_new)
    quieten_tensorflow()
    from deep_ranking.search.indexing import IndexReport, index_images

    make: Callable[..., IndexReport] = partial(
        index_images,
        shard=args.shard,
        precision=args.precision or (AUTO if is_new else None),
    )
    if args.from_parquet is not None:
        from deep_ranking.search.table import index_table

        make = partial(index_table, args.from_parquet)
    with resume_hint("run the same command again to resume"):
        done = make(
            args.output,
            model=args.model,
            images=args.images,
            index=args.index,
            clusters=args.clusters,
            probes=args.probes,
            target_recall=args.target_recall,
            dtype=args.dtype,
            folders=folders,
            checksum=args.checksum,
            smooth=args.smooth,
            smooth_power=args.smooth_power,
            when_synced=print,
        )
        if args.measure:
            _print_measurements(done)
    print(
        f"{done.conclusion} "
        f"Search: python -m deep_ranking search --index {done.collection.folder} --image QUERY"
    )
    if done.smoothing is not None:
        print(done.smoothing)
    if args.export is not None:
        from deep_ranking.search.table import export_table

        print(export_table(done.collection, args.export))


def _check_tables(
    parser: argparse.ArgumentParser, args: argparse.Namespace, *, is_new: bool
) -> None:
    """Refuse tables that cannot be written or taken in, before the long work."""
    from deep_ranking.search.table import check_table_name

    if args.export is not None:
        check_table_name(args.export)
    if args.from_parquet is None:
        return
    if is_new and args.model is None:
        parser.error("--from_parquet needs --model, the model that its vectors were made by")
    check_files_exist(args, "from_parquet", "model", "images")


def _folders(args: argparse.Namespace, given: set[str], *, is_new: bool) -> FolderConfig | None:
    """Return what the classes are by the flags that are given; None for what they were.

    Of an index that there is, what no flag says stays; a class file and --label replace each other.
    """
    names = [name for name in FOLDER_NAMES if {f"--{name}", f"--no-{name}"} & given]
    if not names:
        return None
    if is_new:
        return config_from(args, FolderConfig)
    before = Collection.open(args.output).settings.folder_config()
    changes = {name: getattr(args, name) for name in names}
    if "classes" in names:
        changes |= {"label": None, "splits": None}
    elif {"label", "splits"} & set(names):
        changes["classes"] = None
    return replace(before, **changes)


def _print_measurements(done: "IndexReport") -> None:
    from deep_ranking.search.index.exact import ExactIndex
    from deep_ranking.search.index.tuning import GroundTruth, measure_search

    collection, index = done.collection, done.index
    if index.kind == MILVUS:
        from deep_ranking.search.index.milvus import MilvusIndex
        from deep_ranking.search.index.milvus_filling import wait_until_built

        if isinstance(index, MilvusIndex):
            wait_until_built(index)
    embeddings, rows, which = collection.embeddings(), collection.rows(), ""
    truth = GroundTruth(embeddings, rows)
    smoothing = done.smoothing
    if smoothing is not None and smoothing.rows is not None and smoothing.index is not None:
        which = " in the smoothed rows"
        embeddings, index = smoothing.rows.rows, smoothing.index
        truth = GroundTruth(embeddings, rows, queries=collection.embeddings())
    queries = counted(len(truth.queries), "query")
    print(f"\nOf {queries}{which}, one at a time, against exact search:")
    print("  ".join(f"{name:>10}" for name in HEADINGS))
    measured = [("exact", measure_search(ExactIndex(embeddings, rows), truth)[0])]
    if index.kind != "exact":
        measured += [(str(each.probes or "-"), each) for each in measure_search(index, truth)]
    for name, measurement in measured:
        numbers = [f"{recall:.3f}" for recall in measurement.recall]
        numbers += [f"{measurement.p50:.2f}", f"{measurement.p99:.2f}"]
        numbers.append("-" if math.isnan(measurement.share) else f"{measurement.share:.1%}")
        print("  ".join(f"{cell:>10}" for cell in (name, *numbers)))
    sizes = {each.name: each.stat().st_size for each in sorted(collection.folder.iterdir())}
    print("\n" + ", ".join(f"{name} {byte_size(size)}" for name, size in sizes.items() if size))


def _shard(text: str) -> tuple[int, int]:
    """Parse I/N."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(
            f"must be I/N with I from 1 to N, as 2/8. Received: {text}"
        )
    return int(match[1]), int(match[2])
