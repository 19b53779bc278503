"""`search`: query images and an index -> the images that are nearest."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_ranking.cli.arguments import add_metric, add_required_path, positive_int
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.cli.output import PICTURE_SUFFIXES, picture_format
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.words import counted
from deep_ranking.images import list_images, read_image
from deep_ranking.search.collection import Collection

if TYPE_CHECKING:
    import numpy as np

    from deep_ranking.search.searcher import Result, Searcher

DESCRIPTION = (
    "Find the images of an index that are most like the query images: rank, distance and path of "
    "each, the nearest first."
)
STANDARD_INPUT = "-"
THUMBNAIL_SIZE = 128
MOST_PICTURED = 20  # queries, and results of each
FIELDS = ("query", "rank", "distance", "cosine", "probability", "class", "path")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    suppress = argparse.SUPPRESS
    add_required_path(parser, "--index", metavar="INDEX", help_text="folder that `index` wrote")
    parser.add_argument(
        "--image",
        "-i",
        action="extend",
        nargs="+",
        required=True,
        default=suppress,
        metavar="QUERY",
        help="image to search with, or a folder of them, or - for paths on standard input; any "
        "number",
    )
    parser.add_argument(
        "--top", type=positive_int, default=20, metavar="N", help="images to find for each query"
    )
    add_metric(parser)
    parser.add_argument(
        "--probes",
        type=positive_int,
        default=suppress,
        metavar="N",
        help="clusters to visit (default: what the index was made for)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=suppress,
        metavar="PATH",
        help=f"picture of queries and results to write, one of {', '.join(PICTURE_SUFFIXES)}",
    )
    parser.add_argument(
        "--explain_cost",
        action="store_true",
        help="print clusters visited, share of the images compared, and recall against exact",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the results as JSON")
    output.add_argument("--csv", action="store_true", help="print the results as CSV")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed the queries, search, print."""
    args = parser.parse_args(argv)
    if hasattr(args, "picture"):
        picture_format(args.picture)  # checks the name before the long work
    collection = Collection.open(args.index)
    given = _queries(args.image)
    from deep_ranking.search.searcher import Searcher

    searcher = Searcher(collection)
    queries, rows = _embedded(collection, given)
    results = searcher.search(rows, args.top, probes=getattr(args, "probes", None))
    if hasattr(args, "picture"):
        _write_picture(args.picture, queries, results)
    _print(args, queries, results)
    if args.explain_cost:
        print(_cost(searcher, rows, args), file=sys.stderr if args.json or args.csv else None)


def _queries(given: list[str]) -> dict[str, bool]:
    """Paths of the queries, each with whether it may be left out if it is broken."""
    queries: dict[str, bool] = {}
    for each in given:
        if each == STANDARD_INPUT:
            lines = [line.rstrip("\r\n") for line in sys.stdin]
            queries |= {line: False for line in lines if line}
        elif Path(each).is_dir():
            queries |= {str(Path(each) / path): True for path in list_images(each)[0]}
        else:
            queries[each] = False
    if not queries:
        raise InputError("standard input: no path of a query in it")
    for query in queries:
        if not Path(query).exists():
            raise InputError(f"{query}: no such image; check --image")
    return queries


def _embedded(
    collection: Collection, queries: dict[str, bool]
) -> tuple[list[str], "np.ndarray[Any, np.dtype[np.float32]]"]:
    """Queries that could be read, and their embeddings."""
    start_tensorflow()
    import numpy as np

    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.model.file import load_model

    model = load_model(collection.model)
    paths = list(queries)
    rows = embed_images(model, paths, skip_broken=True, progress=len(paths) > 1)
    broken = np.isnan(rows[:, 0])
    for number in np.flatnonzero(broken):
        if not queries[paths[number]]:
            read_image(paths[number], THUMBNAIL_SIZE)  # says what is wrong with it
        print(f"{paths[number]}: left out, cannot be read", file=sys.stderr)
    if broken.all():
        raise InputError("none of the query images can be read")
    return [path for path, bad in zip(paths, broken, strict=True) if not bad], rows[~broken]


def _print(args: argparse.Namespace, queries: list[str], results: list[list["Result"]]) -> None:
    from deep_ranking.search.searcher import as_rows

    rows = [as_rows(query, found) for query, found in zip(queries, results, strict=True)]
    if args.json:
        print(json.dumps([row for each in rows for row in each], indent=2))
        return
    if args.csv:
        writer = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for each in rows for row in each)
        return
    for query, found in zip(queries, results, strict=True):
        if len(queries) > 1:
            print(f"{query}:")
        width = len(str(len(found)))
        for each in found:
            value = each.cosine if args.metric == "cosine" else each.distance
            chance = "" if each.probability is None else f"  p(same) {each.probability:.3f}"
            print(f"{each.rank:{width}}  {value:.6f}{chance}  {each.path}")


def _cost(searcher: "Searcher", rows: Any, args: argparse.Namespace) -> str:
    """Say what the search took, and what it missed."""
    import numpy as np

    from deep_ranking.search.index.exact import ExactIndex
    from deep_ranking.search.searcher import Searcher

    index, embeddings = searcher.index, searcher.collection.embeddings()
    exact = Searcher(searcher.collection, ExactIndex(embeddings, searcher.collection.rows()))
    probes = getattr(args, "probes", None)
    found = searcher.search(rows, args.top, probes=probes)
    cost = index.cost(rows, probes=probes)
    right = exact.search(rows, args.top)
    shares = [
        np.isin([each.path for each in wanted], [each.path for each in got]).mean()
        for wanted, got in zip(right, found, strict=True)
    ]
    recall = f"recall@{len(right[0])} against exact {np.mean(shares):.3f}"
    if cost is None:
        return f"The engine does not say what it compared; {recall}."
    total, queries = len(index.rows()), len(rows)
    visited = ""
    if index.num_clusters:
        visited = f"{cost.clusters / queries:,.1f} of {index.num_clusters:,} clusters visited, "
    return (
        f"A query: {visited}{cost.rows / queries:,.0f} of {counted(total, 'image')} compared "
        f"({cost.rows / queries / total:.1%}); {recall}."
    )


def _write_picture(path: Path, queries: list[str], results: list[list["Result"]]) -> None:
    from deep_ranking.reports.page.html import readable
    from deep_ranking.reports.plots import Neighbours, neighbours_figure

    rows = []
    for query, found in list(zip(queries, results, strict=True))[:MOST_PICTURED]:
        shown = found[:MOST_PICTURED]
        rows.append(
            Neighbours(
                readable(Path(query).name),
                read_image(query, THUMBNAIL_SIZE),
                [read_image(each.path, THUMBNAIL_SIZE) for each in shown],
                None,
                [each.distance for each in shown],
            )
        )
    with atomic_path(path) as temporary:
        figure = neighbours_figure(rows)
        figure.savefig(temporary, format=picture_format(path), dpi=120)
