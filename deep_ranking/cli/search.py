"""`search`: query images and an index -> the nearest images."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deep_ranking.cli.arguments import add_metric, add_path, positive_int
from deep_ranking.cli.conflicts import index_rules, refuse_flags_without_effect
from deep_ranking.cli.library_messages import open_model
from deep_ranking.cli.output import PICTURE_SUFFIXES, picture_format
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.words import counted
from deep_ranking.images import list_images, read_image
from deep_ranking.search.collection import Collection

if TYPE_CHECKING:
    from deep_ranking.files.array_types import Float32Array
    from deep_ranking.search.searcher import Result, Searcher

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
THUMBNAIL_SIZE = 128
MOST_PICTURED = 20  # queries, and results of each
FIELDS = ("query", "rank", "distance", "cosine", "probability", "class", "path")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("index and queries")
    help_text = "folder that `index` wrote"
    add_path(group, "--index", metavar="INDEX", help_text=help_text, required=True)
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
    group = parser.add_argument_group("output")
    add_metric(group, "; JSON and CSV have both")
    add_path(
        group,
        "--picture",
        metavar="PICTURE",
        help_text="write a picture of queries and results; its name must end in one of "
        f"{', '.join(PICTURE_SUFFIXES)}",
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
    collection = Collection.open(args.index)
    kind = collection.settings.index["kind"]
    refuse_flags_without_effect(parser, argv, index_rules(kind))
    given = _query_paths(args.image)
    from deep_ranking.search.searcher import Searcher

    searcher = Searcher(collection)
    queries, rows = _embed(collection, given)
    results = searcher.search(rows, args.top, probes=args.probes)
    if args.picture:
        _write_picture(args.picture, queries, results)
    _print(args, queries, results)
    if args.explain_cost:
        text = _explain_cost(searcher, rows, results, args)
        print(text, file=sys.stderr if args.json or args.csv else None)


def _query_paths(given: list[str]) -> dict[str, bool]:
    """Return the paths of the queries; True for those that are left out if they are broken."""
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
        raise InputError("standard input: no paths of query images in it")
    for query in queries:
        if not Path(query).exists():
            raise InputError(f"{query}: no such image; check --image")
    return queries


def _embed(collection: Collection, queries: dict[str, bool]) -> tuple[list[str], "Float32Array"]:
    """Return the queries that can be read, and their embeddings."""
    model = open_model(collection.model)
    from deep_ranking.embedding.embed import embed_images

    paths = list(queries)
    rows = embed_images(model, paths, skip_broken=True, progress=len(paths) > 1)
    broken = np.isnan(rows[:, 0])
    for number in np.flatnonzero(broken):
        if not queries[paths[number]]:
            read_image(paths[number], THUMBNAIL_SIZE)  # raises an error that tells why
        print(f"{paths[number]}: left out, cannot be read", file=sys.stderr)
    if broken.all():
        raise InputError("none of the query images can be read")
    return [path for path, bad in zip(paths, broken, strict=True) if not bad], rows[~broken]


def _print(args: argparse.Namespace, queries: list[str], results: list[list["Result"]]) -> None:
    from deep_ranking.search.searcher import as_rows

    answers = list(zip(queries, results, strict=True))
    rows = [row for query, found in answers for row in as_rows(query, found)]
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    if args.csv:
        writer = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    for query, found in answers:
        if len(queries) > 1:
            print(f"{query}:")
        width = len(str(len(found)))
        for each in found:
            value = each.cosine if args.metric == "cosine" else each.distance
            chance = "" if each.probability is None else f"  p(same) {each.probability:.3f}"
            print(f"{each.rank:{width}}  {value:.6f}{chance}  {each.path}")


def _explain_cost(
    searcher: "Searcher",
    rows: "Float32Array",
    results: list[list["Result"]],
    args: argparse.Namespace,
) -> str:
    """Return a line about the work of the search and its recall."""
    from deep_ranking.search.searcher import mean_recall

    exact = searcher.search_exactly(rows, args.top)
    recall = f"recall@{len(exact[0])} against exact {mean_recall(results, exact):.3f}"
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
