"""`merge`: the shards of an index -> one index."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deep_ranking.cli.arguments import add_index_kind, add_output
from deep_ranking.files.words import counted
from deep_ranking.search.collection import Collection, locked
from deep_ranking.search.collection.merging import check_shards, merge

DESCRIPTION = (
    "Join the shards that several machines made with index --shard I/N. No image is embedded, and "
    "the shards do not change."
)

EXAMPLES = (
    (
        "Join two shards",
        "python -m deep_ranking merge part1 part2 --output whole",
    ),
    (
        "Join them into an index of clusters",
        "python -m deep_ranking merge part1 part2 --output whole --index clusters",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("shards and their index")
    group.add_argument(
        "shards", nargs="+", type=Path, metavar="SHARD", help="folder that index --shard wrote"
    )
    add_output(group, "INDEX", "folder of the result; made if missing")
    add_index_kind(group)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Merge the shards, update the index, and print a summary."""
    args = parser.parse_args(argv)
    parts = [Collection.open(each) for each in args.shards]
    check_shards(parts)
    from deep_ranking.search.indexing import update_index
    from deep_ranking.search.smoothed_collection import check_smoothing, update_smoothing

    with locked(args.output):
        collection = merge(parts, args.output)
        kind = (args.index or collection.settings.index)["kind"]
        check_smoothing(collection, None, None, kind)
        index, _ = update_index(collection, wanted=args.index)
        smoothing = update_smoothing(collection, index)
    print(
        f"{args.output}: {counted(len(index.rows()), 'embedding')} of "
        f"{counted(len(parts), 'shard')} in index {index.kind}. Search: python -m "
        f"deep_ranking search --index {args.output} --image QUERY"
    )
    if smoothing is not None:
        print(smoothing)
