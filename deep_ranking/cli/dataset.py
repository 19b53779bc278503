"""`dataset`: get a public data set as class folders, or describe a data set."""

import argparse
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import (
    add_folder_arguments,
    add_output,
    add_path,
    add_seed,
    config_from,
    positive_int,
    share,
)
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.config import FolderConfig
from deep_ranking.datasets.public import CATALOGUE, Dataset
from deep_ranking.files.words import broken_lines, byte_size, counted

if TYPE_CHECKING:
    from deep_ranking.datasets.public import Contents
    from deep_ranking.datasets.statistics import Statistics

DESCRIPTION = (
    "Get a public data set as folders of classes, or describe a data set. A stopped download "
    "resumes where it was; existing files are kept."
)
OUTPUT_HELP = "folder to write, with SPLIT/CLASS/IMAGE"
EXAMPLES = (
    (
        "Download a data set, and hold back a fifth of its classes",
        "python -m deep_ranking dataset caltech101 --output caltech101",
    ),
    (
        "Count and describe the images of any folder",
        "python -m deep_ranking dataset stats photos",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands: one for each data set, and `stats`."""
    commands = parser.add_subparsers(
        title="data sets", dest="dataset", metavar="NAME", required=True
    )
    for dataset in CATALOGUE.values():
        text = f"download and unpack {dataset.title}"
        _add_dataset_arguments(_command(commands, dataset.name, text), dataset)
    digits = _command(commands, "digits", "write scikit-learn's handwritten digits, offline")
    group = digits.add_argument_group("output")
    add_output(group, "DIR", OUTPUT_HELP)
    add_seed(group, "seed of the draw of the quarter of digits 0 to 6 that is held back")
    stats = _command(commands, "stats", "count the images of a data set, and describe them")
    group = stats.add_argument_group("data set and statistics")
    group.add_argument(
        "root",
        type=Path,
        metavar="DIR",
        help="folder with one folder for each class, or with train, val, unseen ... of such "
        "folders",
    )
    group.add_argument(
        "--image_size",
        type=positive_int,
        metavar="PIXELS",
        help="compute mean and std over images scaled to squares of this side, as a network sees "
        "them, instead of over all pixels",
    )
    group.add_argument("--json", action="store_true", help="print everything as JSON")
    add_folder_arguments(stats)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Write a data set, or describe one."""
    args = parser.parse_args(argv)
    refuse_flags_without_effect(parser, argv, rules_of("dataset", args))
    if args.dataset == "stats":
        _run_stats(args)
    elif args.dataset == "digits":
        from deep_ranking.datasets.public import prepare_digits

        _print_contents(args.output, prepare_digits(args.output, seed=args.seed), None)
    else:
        dataset = CATALOGUE[args.dataset]
        _print_contents(args.output, _prepare(dataset, args), dataset)


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def _add_dataset_arguments(parser: argparse.ArgumentParser, dataset: Dataset) -> None:
    group = parser.add_argument_group("output")
    add_output(group, "DIR", OUTPUT_HELP)
    group.add_argument(
        "--unseen_share",
        type=share,
        default=0.2,
        metavar="SHARE",
        help="share of the classes to hold back as unseen, if the archive has no split of its own",
    )
    add_seed(group, "seed of the draw of unseen classes")
    group = parser.add_argument_group("archive")
    source = group.add_mutually_exclusive_group()
    add_path(
        source,
        "--archive",
        metavar="FILE",
        help_text="a zip, tar or tar.gz file that you have: the original, or one with SPLIT/CLASS "
        "or CLASS folders",
    )
    help_text = f"another address of the same archive (default: {dataset.url})"
    source.add_argument("--url", metavar="URL", help=help_text)
    group.add_argument(
        "--sha256",
        type=_digest,
        metavar="HEX",
        help="SHA-256 of the archive, if it is not the original",
    )
    group.add_argument(
        "--keep_archive",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep the downloaded archive, beside the folder",
    )


def _prepare(dataset: Dataset, args: argparse.Namespace) -> "Contents":
    from deep_ranking.datasets.public import prepare
    from deep_ranking.datasets.public.download import partial_path
    from deep_ranking.datasets.public.folder import archive_path

    try:
        return prepare(
            dataset,
            args.output,
            archive=args.archive,
            url=args.url,
            sha256=args.sha256,
            keep_archive=args.keep_archive,
            unseen_share=args.unseen_share,
            seed=args.seed,
            progress=True,
        )
    except KeyboardInterrupt:
        path = archive_path(args.output)
        for kept in (path, partial_path(path)):
            if kept.exists():
                raise KeyboardInterrupt(
                    f"{kept} keeps {kept.stat().st_size:,} bytes, the same command goes on from "
                    "there"
                ) from None
        raise


def _print_contents(folder: Path, contents: "Contents", dataset: Dataset | None) -> None:
    for name, count in contents.splits.items():
        images = counted(count.num_images, "image")
        print(f"{name}: {images} in {counted(count.num_classes, 'class')}")
    num_images = sum(count.num_images for count in contents.splits.values())
    if dataset is not None:
        if contents.unseen_share is not None:
            print(f"The unseen classes were drawn with seed {contents.seed}.")
        if contents.sha256 == dataset.sha256:
            print("The archive is the original, by its SHA-256.")
        else:
            print(
                f"The archive is not the original, which has {dataset.num_images:,} labelled "
                f"images in {dataset.num_classes} classes; its SHA-256 is {contents.sha256}."
            )
    how = "all there already" if contents.was_there else "listed in split.csv"
    print(
        f"{folder}: {counted(num_images, 'image')}, {how}. To describe them: python -m "
        f"deep_ranking dataset stats {shlex.quote(str(folder))}"
    )


def _run_stats(args: argparse.Namespace) -> None:
    from deep_ranking.datasets.statistics import dataset_statistics
    from deep_ranking.files import InputError

    image_size = args.image_size
    data = config_from(args, FolderConfig).read(args.root)
    splits = dataset_statistics(data, image_size=image_size, progress=True)
    if args.json:
        report = {
            "root": str(args.root),
            "image_size": image_size,
            "labelled_by": data.labelled_by,
            "notes": data.notes,
            "splits": [each.as_json() for each in splits],
        }
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        print("\n".join(data.describe()))
        for each in splits:
            _print_statistics(args.root, each)
    num_images = sum(each.num_images for each in splits)
    num_broken = sum(len(each.broken) for each in splits)
    if num_broken == num_images:
        raise InputError(f"{args.root}: no image can be read, of {num_images:,}")
    if not args.json:
        broken = counted(num_broken, "broken image")
        print(f"{args.root}: {counted(num_images, 'image')}, {broken}")


def _print_statistics(root: Path, found: "Statistics") -> None:
    from deep_ranking.datasets.statistics import spread

    name = str(root / found.split) if found.split else str(root)
    images, classes = found.num_images, len(found.images_per_class)
    print(f"{name}: {counted(images, 'image')} in {counted(classes, 'class')}")
    rows = [("images a class", _spread(spread(list(found.images_per_class.values()))))]
    if found.mean and found.std:
        rows += [
            ("width", _spread(spread(found.widths)) + " pixels"),
            ("height", _spread(spread(found.heights)) + " pixels"),
            ("files", byte_size(found.num_bytes)),
            ("formats", _tally(found.formats)),
            ("colour modes", _tally(found.modes)),
            ("mean, RGB", "  ".join(f"{value:.4f}" for value in found.mean)),
            ("std, RGB", "  ".join(f"{value:.4f}" for value in found.std)),
        ]
    for title, text in rows:
        print(f"  {title:16}{text}")
    if found.broken:
        print(f"  {counted(len(found.broken), 'image')} cannot be read:")
        print(*broken_lines(found.broken, indent="    ", more=", which --json lists"), sep="\n")
    print()


def _spread(found: "dict[str, float] | None") -> str:
    if found is None:
        return "-"
    median = f"{found['median']:,.1f}".removesuffix(".0")
    return f"{found['min']:,} to {found['max']:,}, median {median}"


def _tally(counts: "dict[str, int]") -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {number:,}" for name, number in ordered)


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"must be 64 hexadecimal digits. Received: {text}")
    return text.lower()
