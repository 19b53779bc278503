"""`search`: query images and an index -> the nearest images."""

import argparse
import csv
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import add_metric, add_path, checked_number, positive_int
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.cli.output import PICTURE_SUFFIXES, csv_output, picture_format
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.csv_lines import BYTE_ORDER_MARK
from deep_ranking.files.words import counted
from deep_ranking.images import read_image
from deep_ranking.search.shards import open_searchable

if TYPE_CHECKING:
    from deep_ranking.files.array_types import UInt8Array
    from deep_ranking.search.results import Result, SearchResults
    from deep_ranking.search.searcher import Searcher

DESCRIPTION = (
    "Find the images of an index that are most similar to the query images, and print the rank, "
    "distance and path of each, nearest first."
)
STANDARD_INPUT = "-"
EXAMPLES = (
    (
        "Find the images most like one, and draw them",
        "python -m deep_ranking search --index photos.index -i a.jpg --picture a.png",
    ),
    (
        "Search for every image of a folder, and write CSV",
        "python -m deep_ranking search --index photos.index -i queries --csv",
    ),
)
BASIC_FLAGS = (
    "index",
    "image",
    "top",
    "rerank",
    "label",
    "folder",
    "min_probability",
    "metric",
    "picture",
    "json",
    "csv",
)
THUMBNAIL_SIZE = 128
MOST_PICTURED = 20  # queries, and results of each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("index and queries")
    group.add_argument(
        "--index",
        action="append",
        type=Path,
        required=True,
        metavar="INDEX",
        help="folder that `index` wrote; several of these flags, or a file with such a folder in "
        "each line, search several of one model as one",
    )
    group.add_argument(
        "--skip_unavailable",
        action="store_true",
        help="leave out shards that cannot be searched, and name them; by default, one of these "
        "ends the command",
    )
    group.add_argument(
        "--image",
        "-i",
        action="extend",
        nargs="+",
        required=True,
        metavar="QUERY",
        help="query images, folders of them, or - for paths on standard input; any number",
    )
    group.add_argument(
        "--top", type=positive_int, default=20, metavar="N", help="images to find for each query"
    )
    group.add_argument(
        "--probes",
        type=positive_int,
        metavar="N",
        help="clusters that a query visits, in an index that has clusters; for Milvus, its effort "
        "(default: the index's own number)",
    )
    group.add_argument(
        "--smooth",
        action=argparse.BooleanOptionalAction,
        help="rank by the smoothed rows of index --smooth, or by the plain ones (default: by the "
        "smoothed ones if the index has them)",
    )
    group.add_argument(
        "--rerank",
        action="store_true",
        help="search again with each query moved towards its 10 nearest and, unless the rows are "
        "smoothed, rank the first 200 by the neighbours that they and the query have in common",
    )
    group = parser.add_argument_group("which images to find")
    group.add_argument(
        "--class",
        dest="label",
        metavar="NAME",
        help="only images of this class, or of its inner classes: Fruit, Fruit/Apple, or a "
        "folder of their names, as Apple",
    )
    group.add_argument(
        "--folder", metavar="DIR", help="only images in this folder of the collection"
    )
    for name, what in (("like", "more like these images"), ("unlike", "less like these images")):
        group.add_argument(
            f"--{name}",
            action="extend",
            nargs="+",
            default=[],
            metavar="IMAGE",
            help=f"find images that are {what} too: files or folders",
        )
    group.add_argument(
        "--min_probability",
        type=checked_number(float, lambda value: 0 <= value <= 1, "be 0 to 1"),
        metavar="P",
        help="only images whose chance to be of the query's class is P or more, p(hit) in the "
        "output; a query without any gets the line: no match",
    )
    group = parser.add_argument_group("output")
    add_metric(group, "; JSON and CSV have both")
    add_path(
        group,
        "--picture",
        metavar="PICTURE",
        help_text="write a picture of queries and results; its name must end in one of "
        f"{', '.join(PICTURE_SUFFIXES)}; if the class of a query is known, results of it have a "
        "green frame (✓), others a dashed orange one (✗)",
    )
    group.add_argument(
        "--explain_cost",
        action="store_true",
        help="print the clusters visited, the share of images compared, and the recall against "
        "exact search",
    )
    output = group.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the results as JSON")
    output.add_argument("--csv", action="store_true", help="print the results as CSV")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed the queries, search, and print the results."""
    args = parser.parse_args(argv)
    if args.picture:
        picture_format(args.picture)  # checks the name before the long work
    collection = open_searchable(args.index, skip_unavailable=args.skip_unavailable)
    args.kind = collection.settings.index["kind"]
    args.num_shards = collection.num_shards
    args.smoothed = collection.settings.smoothing is not None
    refuse_flags_without_effect(parser, argv, rules_of("search", args))
    given = _query_paths(args.image)
    quieten_tensorflow()
    from deep_ranking.search.searcher import Searcher

    searcher = Searcher(collection, smooth=args.smooth)
    found = searcher.search_images(
        given,
        args.top,
        probes=args.probes,
        label=args.label,
        folder=args.folder,
        like=args.like,
        unlike=args.unlike,
        rerank=args.rerank,
        min_probability=args.min_probability,
    )
    for path in found.left_out:
        print(f"{path}: left out, cannot be read", file=sys.stderr)
    _print(args, found)
    if found.ranking and not (args.json or args.csv):
        print(found.ranking, file=sys.stderr)
    if found.note:
        print(found.note, file=sys.stderr)
    if args.picture:
        _write_picture(args.picture, found)
    if args.explain_cost:
        text = _explain_cost(searcher, found, args)
        print(text, file=sys.stderr if args.json or args.csv else None)


def _query_paths(given: list[str]) -> list[str]:
    """Return the paths of queries, with those on standard input."""
    paths: list[str] = []
    for each in given:
        paths += _paths_on_standard_input() if each == STANDARD_INPUT else [each]
    if not paths:
        raise InputError("standard input: no paths of query images in it")
    return paths


def _paths_on_standard_input() -> list[str]:
    """Return the lines of standard input; some editors begin them with a byte order mark."""
    binary = getattr(sys.stdin, "buffer", None)
    text = sys.stdin.read() if binary is None else binary.read().decode("utf-8", "surrogateescape")
    lines = [line.rstrip("\r") for line in text.removeprefix(BYTE_ORDER_MARK).split("\n")]
    return [line for line in lines if line]


def _print(args: argparse.Namespace, found: "SearchResults") -> None:
    from deep_ranking.search.results import COLUMNS

    if args.json:
        print(json.dumps(found.rows(), indent=2))
    elif args.csv:
        with csv_output() as handle:
            writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found.rows())
    else:
        print(found.text(metric=args.metric))


def _explain_cost(searcher: "Searcher", found: "SearchResults", args: argparse.Namespace) -> str:
    """Return a line about the work of the search and its recall."""
    from deep_ranking.search.results import mean_recall

    rows = found.embeddings
    exact = searcher.search_exactly(rows, args.top, rerank=args.rerank)
    recall = f"recall@{len(exact[0])} against exact {mean_recall(found.results, exact):.3f}"
    index = searcher.index
    cost = index.cost(rows, probes=args.probes)
    if cost is None:
        return f"The engine does not tell what it compared; {recall}."
    total, queries = len(index.rows()), len(rows)
    visited = ""
    if index.num_clusters:
        visited = f"{cost.clusters / queries:,.1f} of {index.num_clusters:,} clusters visited, "
    return (
        f"A query: {visited}{cost.rows / queries:,.0f} of {counted(total, 'image')} compared "
        f"({cost.rows / queries / total:.1%}); {recall}."
    )


def _write_picture(path: Path, found: "SearchResults") -> None:
    from deep_ranking.files.html import readable
    from deep_ranking.reports.plots import Neighbours, neighbours_figure
    from deep_ranking.search.results import NO_MATCH

    rows = []
    queries = list(zip(found.queries, found.labels, found, strict=True))[:MOST_PICTURED]
    for query, label, of_query in queries:
        results = of_query[:MOST_PICTURED]
        rows.append(
            Neighbours(
                readable(Path(query).name),
                _thumbnail(query),
                [_thumbnail(each.path) for each in results],
                [each.label == label for each in results] if label else None,
                [each.distance for each in results],
                [_details(each) for each in results],
                readable(label) if results else NO_MATCH,
            )
        )
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # The font draws names in scripts that it lacks as boxes; the text has them in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = neighbours_figure(rows)
        figure.savefig(temporary, format=picture_format(path), dpi=120)
    if len(found.queries) > MOST_PICTURED or any(len(each) > MOST_PICTURED for each in found):
        print(
            f"{path}: shows the first {MOST_PICTURED} queries, and results of each.",
            file=sys.stderr,
        )


def _thumbnail(path: str) -> "UInt8Array":
    from deep_ranking.reports.plots import missing_image

    try:
        return read_image(path, THUMBNAIL_SIZE)
    except InputError:
        return missing_image(THUMBNAIL_SIZE)


def _details(result: "Result") -> list[str]:
    """Return lines about a result: class, chance that it is of the query's, file."""
    from deep_ranking.files.html import readable
    from deep_ranking.search.results import in_words

    chance = in_words(result.hit_probability)
    name = readable(Path(result.path).name)
    lines = [
        readable(result.label),
        chance,
        f"{result.problem}: {name}" if result.problem else name,
    ]
    return [line for line in lines if line]
