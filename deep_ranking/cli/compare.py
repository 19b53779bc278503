"""`compare`: a model and two images, or many pairs -> their distances."""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from deep_ranking.cli.arguments import add_metric, add_model, add_path, check_files_exist
from deep_ranking.cli.compile import say_if_not_compiled
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.cli.output import csv_output
from deep_ranking.files import atomic_path

if TYPE_CHECKING:
    from deep_ranking.reports.comparing import PairComparison

DESCRIPTION = (
    "Print the Euclidean distance of two images under a model: 0 for equal images, 2 at most. For "
    "the pairs of a file, or for every image of one folder with every image of another, print CSV, "
    "one line for each pair."
)

EXAMPLES = (
    (
        "Print the distance of two images",
        "python compare.py --model m.h5 --image1 a.jpg --image2 b.jpg",
    ),
    (
        "Compare many pairs, and write a line for each",
        "python compare.py --model m.h5 --pairs pairs.csv --output distances.csv",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags; the blog has the same ones for model and images."""
    group = parser.add_argument_group("model and images")
    add_model(group)
    for number, which in (("1", "an image"), ("2", "another image")):
        add_path(
            group,
            f"--image{number}",
            f"-i{number}",
            metavar="IMAGE|DIR",
            help_text=f"{which}, or a folder of them",
        )
    add_path(
        group,
        "--pairs",
        metavar="FILE",
        help_text="instead of two images, a CSV file (or .csv.gz) with two paths in each line "
        "and, if known, whether their class is the same: 1 or same, 0 or different",
    )
    group.add_argument(
        "--skip_broken",
        action="store_true",
        help="leave out the pairs of --pairs with a missing or broken image (of folders, broken "
        "images are always left out)",
    )
    group = parser.add_argument_group("output")
    add_metric(group)
    help_text = "file to write the lines to (default: standard output)"
    add_path(group, "--output", "-o", metavar="FILE", help_text=help_text)
    group.add_argument("--json", action="store_true", help="print JSON, including the settings")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Print the distance of two images and what it means, or the distances of many pairs."""
    args = parser.parse_args(argv)
    images = {"image1": args.image1, "image2": args.image2}
    given = [name for name, path in images.items() if path]
    missing = [f"--{name}" for name, path in images.items() if not path]
    if args.pairs and given:
        parser.error(f"--pairs and --{given[0]} exclude each other; give one of them")
    if not args.pairs and missing:
        parser.error(f"the following arguments are required: {', '.join(missing)} (or --pairs)")
    refuse_flags_without_effect(parser, argv, rules_of("compare", args))
    check_files_exist(args, "model", *images)
    if args.pairs or args.output or args.image1.is_dir() or args.image2.is_dir():
        _compare_many(args)
    else:
        _compare_two(args)


def _compare_two(args: argparse.Namespace) -> None:
    quieten_tensorflow()
    from deep_ranking.embedding.embedder import Embedder
    from deep_ranking.reports.comparison import compare

    model = Embedder(args.model)
    found = compare(model, args.image1, args.image2)
    if not args.json:
        print(found.text(metric=args.metric))
        say_if_not_compiled(args.model)
        return
    calibration = found.calibration
    settings = {
        "distance": found.distance,
        **({"cosine": found.cosine} if args.metric == "cosine" else {}),
        "metric": args.metric,
        "probability_of_same": found.probability,
        "threshold": calibration and calibration.threshold,
        "model": str(args.model),
        "image1": str(args.image1),
        "image2": str(args.image2),
        "network": json.loads(model.network_config.to_json()),
    }
    print(json.dumps(settings, indent=2))


def _compare_many(args: argparse.Namespace) -> None:
    """Write one line for each pair, and print a summary."""
    quieten_tensorflow()
    from deep_ranking.reports.comparison import compare_all, compare_pairs

    with _output(args) as handle:  # first, so that an unwritable file fails before the long work
        if args.pairs:
            comparison = compare_pairs(
                args.model, args.pairs, metric=args.metric, skip_broken=args.skip_broken
            )
        else:
            comparison = compare_all(args.model, args.image1, args.image2, metric=args.metric)
        for path in comparison.left_out:
            print(f"{path}: left out, cannot be read", file=sys.stderr)
        if args.json:
            _write_json(handle, comparison, args.model)
        else:
            writer = csv.DictWriter(handle, comparison.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(comparison.rows())
        text = comparison.text()
    print(text, file=None if args.output else sys.stderr)


@contextmanager
def _output(args: argparse.Namespace) -> Iterator[TextIO]:
    """Yield standard output, or the file to write, which appears when it is complete."""
    if not args.output:
        with csv_output() as handle:
            yield handle
        return
    with (
        atomic_path(args.output) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as handle,
    ):
        yield handle


def _write_json(handle: TextIO, comparison: "PairComparison", model: Path) -> None:
    """Write one JSON object: settings, one pair in each line as soon as it is compared, summary."""
    calibration = comparison.calibration
    settings = {
        "model": str(model),
        "metric": comparison.metric,
        "threshold": calibration and calibration.threshold,
    }
    handle.write(f'{json.dumps(settings)[:-1]}, "pairs": [')
    separator = "\n"
    for row in comparison.rows():
        handle.write(separator + json.dumps(row))
        separator = ",\n"
    handle.write(f'\n], "summary": {json.dumps(comparison.summary())}}}\n')
