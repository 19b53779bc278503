"""`index`: a model and a folder of images -> a collection to search, brought up to date."""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import (
    add_index_kind,
    add_required_path,
    non_negative_int,
    positive_int,
)
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.cli.output import print_broken
from deep_ranking.cli.signals import resume_hint
from deep_ranking.files import InputError
from deep_ranking.files.words import byte_size, counted
from deep_ranking.model.header import ModelHeader, read_header
from deep_ranking.search.collection import (
    DTYPES,
    Collection,
    Settings,
    SyncReport,
    fitting_batch_size,
    locked,
    sync,
)
from deep_ranking.search.collection.folder import SETTINGS

if TYPE_CHECKING:
    import keras

    from deep_ranking.search.index.updating import Upkeep

DESCRIPTION = (
    "Embed the images of a folder once, to search them. The same command again embeds only what is "
    "new or changed; stopped at any instant, it goes on where it was."
)
HEADINGS = ("probes", "recall@1", "recall@10", "recall@100", "p50 ms", "p99 ms", "compared")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    suppress = argparse.SUPPRESS
    add_required_path(
        parser, "--output", "-o", metavar="INDEX", help_text="folder of the index; made if missing"
    )
    parser.add_argument(
        "--model",
        "-m",
        type=Path,
        default=suppress,
        metavar="PATH",
        help="model file of train.py; needed the first time",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=suppress,
        metavar="DIR",
        help="folder of images, in folders or not; needed the first time",
    )
    add_index_kind(parser)
    parser.add_argument(
        "--clusters",
        type=non_negative_int,
        default=suppress,
        metavar="N",
        help="clusters to make, for clusters and hierarchy; 0 goes by the number of images",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--probes",
        type=positive_int,
        default=suppress,
        metavar="N",
        help="clusters that a search visits",
    )
    choice.add_argument(
        "--target_recall",
        type=_share,
        default=suppress,
        metavar="SHARE",
        help="or share of the 20 nearest images that it is to find: the fewest clusters that do "
        "are measured and kept (default: 0.95)",
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        default=suppress,
        metavar="I/N",
        help="embed only the I-th of N parts of the images, by content; `merge` joins them",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default=suppress,
        help="type of the embeddings on disk; float16 takes half (default: float32)",
    )
    parser.add_argument(
        "--checksum",
        action="store_true",
        help="read every file again, rather than trust its size and time of change",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure recall and time for each number of probes, and print them",
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Sync, index, print."""
    args = parser.parse_args(argv)
    is_new = not (args.output / SETTINGS).exists()
    if is_new and not (hasattr(args, "model") and hasattr(args, "images")):
        parser.error(f"{args.output} is no index yet: give --model and --images to make one")
    if hasattr(args, "images") and not args.images.is_dir():
        raise InputError(f"{args.images}: no such folder; check --images")
    header = read_header(args.model) if hasattr(args, "model") else None
    with resume_hint("the same command goes on from there"), locked(args.output):
        collection = _make(args, header) if is_new and header else _open(args, header)
        settings = getattr(args, "index", collection.settings.index)
        if settings["kind"] == collection.settings.index["kind"]:
            settings = collection.settings.index | settings
        if hasattr(args, "clusters"):
            settings = settings | {"clusters": args.clusters}

        def load() -> "keras.Model":
            start_tensorflow()
            from deep_ranking.model.file import load_model

            return load_model(collection.model)

        report = sync(collection, load, checksum=args.checksum)
        _print_report(report)
        if not report.num_images:
            raise InputError(f"{collection.settings.root}: none of its images can be searched")
        from deep_ranking.search.index.updating import update_index

        done = update_index(
            collection,
            settings,
            probes=getattr(args, "probes", None),
            target_recall=getattr(args, "target_recall", None),
        )
        if args.measure:
            _print_measures(collection, done)
    _print_end(collection, report, done)


def _make(args: argparse.Namespace, header: ModelHeader) -> Collection:
    settings = Settings(
        fingerprint=header.fingerprint,
        dimension=header.network.embedding_size,
        image_size=header.network.image_size,
        dtype=getattr(args, "dtype", DTYPES[0]),
        batch_size=fitting_batch_size(header.network.seen_size),
        root=str(args.images.absolute()),
        shard=getattr(args, "shard", None),
    )
    return Collection.make(args.output, settings, args.model)


def _open(args: argparse.Namespace, header: ModelHeader | None) -> Collection:
    """Open the collection, which must be what the flags say."""
    collection = Collection.open(args.output)
    settings = collection.settings
    for name in ("shard", "dtype"):
        wanted, found = getattr(args, name, None), getattr(settings, name)
        if wanted is not None and wanted != found:
            found = "/".join(map(str, found)) if isinstance(found, tuple) else found
            raise InputError(
                f"{args.output}: made with --{name} {found}, which cannot change; choose another "
                "--output"
            )
    if header is not None:
        collection.check_model(header.fingerprint)
        collection.take_calibration(args.model)
    if hasattr(args, "images"):
        root = str(args.images.absolute())
        if root != settings.root:
            collection.change(root=root)
    return collection


def _print_report(report: SyncReport) -> None:
    print(
        f"{counted(report.num_images, 'image')}: {report.num_embedded:,} embedded now, "
        f"{report.num_known:,} new or changed files with content known before, "
        f"{report.num_removed:,} gone."
    )
    if report.num_unlistable:
        print(f"{counted(report.num_unlistable, 'file')} left out: a line break in their path.")
    if report.broken:
        print(f"{counted(len(report.broken), 'image')} left out that cannot be read:")
        print_broken(report.broken, indent="  ")


def _print_measures(collection: Collection, done: "Upkeep") -> None:
    from deep_ranking.search.index.exact import ExactIndex
    from deep_ranking.search.index.tuning import Yardstick, measure

    embeddings, rows = collection.embeddings(), collection.rows()
    yardstick = Yardstick(embeddings, rows)
    print(f"\nOf {counted(len(yardstick.queries), 'query')}, one at a time, against exact search:")
    print("  ".join(f"{name:>10}" for name in HEADINGS))
    measured = [("exact", measure(ExactIndex(embeddings, rows), yardstick)[0])]
    if done.index.kind != "exact":
        measured += [(str(each.probes or "-"), each) for each in measure(done.index, yardstick)]
    for name, trade in measured:
        numbers = [f"{recall:.3f}" for recall in trade.recall]
        numbers += [f"{trade.p50:.2f}", f"{trade.p99:.2f}"]
        numbers.append("-" if math.isnan(trade.share) else f"{trade.share:.1%}")
        print("  ".join(f"{cell:>10}" for cell in (name, *numbers)))
    sizes = {each.name: each.stat().st_size for each in sorted(collection.folder.iterdir())}
    print("\n" + ", ".join(f"{name} {byte_size(size)}" for name, size in sizes.items() if size))


def _print_end(collection: Collection, report: SyncReport, done: "Upkeep") -> None:
    settings, index = collection.settings, done.index
    kind = settings.index.get("uri", index.kind)
    if index.num_clusters:
        kind += (
            f", {counted(index.num_clusters, 'cluster')} of which a search visits {index.probes}"
        )
    if done.recall is not None:
        kind += f" (finds {done.recall:.1%} of the 20 nearest, as measured)"
    part = "" if settings.shard is None else f" (shard {settings.shard[0]} of {settings.shard[1]})"
    print(
        f"{collection.folder}: {counted(report.num_images, 'image')}{part} in index {kind}. "
        f"Search: python -m deep_ranking search --index {collection.folder} --image QUERY"
    )


def _share(text: str) -> float:
    """Parse a share above 0, up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0, and 1 at most. Received: {text}")
    return value


def _shard(text: str) -> tuple[int, int]:
    """Parse I/N."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(
            f"must be I/N with I from 1 to N, as 2/8. Received: {text}"
        )
    return int(match[1]), int(match[2])
