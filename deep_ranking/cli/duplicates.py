"""`duplicates`: find the near-copies among the images of an index, and which of them to keep."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import add_path, check_files_exist, checked_number
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.output import check_output_file, write_json, write_page
from deep_ranking.files.words import byte_size, counted
from deep_ranking.images.near_copies import MAX_EMBEDDING_DISTANCE

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.duplicates import Duplicates

DESCRIPTION = (
    "Find groups of near-duplicates among the images of an index, and suggest which one of each to "
    "keep: the one with the most detail, which a blurred or enlarged copy has not, then pixels and "
    "bytes. Each image is near the one that is kept in its place. --move sets the others aside, "
    "and --undo puts them back. Nothing is ever deleted."
)
MOST_LEFT_OUT = 5
MOST_NOT_MOVED = 50
EXAMPLES = (
    (
        "Look at the duplicates",
        "python -m deep_ranking duplicates --index photos.index --html page.html",
    ),
    (
        "Set aside all images except those to keep",
        "python -m deep_ranking duplicates --index photos.index --move set_aside",
    ),
)
distance = checked_number(float, lambda value: 0 <= value <= 2, "be 0 to 2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("images")
    which = group.add_mutually_exclusive_group(required=True)
    add_path(which, "--index", metavar="INDEX", help_text="folder that `index` wrote")
    help_text = "put back all that --move moved, by its undo file"
    add_path(which, "--undo", metavar="FILE", help_text=help_text)
    group.add_argument(
        "--threshold",
        type=distance,
        default=MAX_EMBEDDING_DISTANCE,
        metavar="DISTANCE",
        help="images nearer than this to the one to keep are duplicates, 0 (only equal files) to "
        "2; 0.3 finds copies that were compressed or resized, 0.5 also cropped ones, and some that "
        "are only similar",
    )
    group = parser.add_argument_group("what to do with the groups, without --undo")
    for name, metavar, help_text in (
        ("json", "FILE", "write all groups as JSON"),
        ("html", "FILE", "write a page that shows the groups"),
        ("move", "DIR", "move all images except those to keep into a folder, with an undo file"),
    ):
        add_path(group, f"--{name}", metavar=metavar, help_text=help_text)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Find, print, write and move duplicates; or move them back."""
    args = parser.parse_args(argv)
    refuse_flags_without_effect(parser, argv, rules_of("duplicates", args))
    if args.undo:
        check_files_exist(args, "undo")
        _undo(args.undo)
        return
    from deep_ranking.search.collection import Collection

    _find(args, Collection.open(args.index))


def _find(args: argparse.Namespace, collection: "Collection") -> None:
    from deep_ranking.search.duplicates import find_duplicates
    from deep_ranking.search.index.kinds import open_index
    from deep_ranking.search.set_aside import check_folder

    root = Path(collection.settings.root)
    if args.json:
        check_output_file(args.json, "--json")
    if args.html:
        check_output_file(args.html, "--html")
    if args.move:
        check_folder(args.move, root, collection.folder)
    print(collection.describe())
    index = open_index(collection)
    found = find_duplicates(collection, args.threshold, index=index, progress=True)
    if found.groups:
        print(found.text())
    _print_left_out(found)
    if index.probes < index.num_clusters:
        print(
            f"Each image was compared only with those of {index.probes:,} of the index's "
            f"{index.num_clusters:,} clusters, so some pairs may be missing; an exact index misses "
            "none.",
            file=sys.stderr,
        )
    if args.json:
        values = {"root": str(root), "threshold": args.threshold, **found.to_json(root)}
        write_json(args.json, values, what="All groups are")
    if args.html:
        from deep_ranking.reports.page.duplicate_groups import duplicates_page

        html = duplicates_page(found.groups, root, threshold=args.threshold, summary=found.summary)
        write_page(args.html, html)
    if found.groups:
        if args.move:
            _move(args, found)
        elif args.html:
            print("To set aside all images except those to keep, add --move DIR.")
        else:
            print(
                "To look at them, add --html FILE; to set aside all images except those to keep, "
                "add --move DIR."
            )
    print(found.summary)


def _move(args: argparse.Namespace, found: "Duplicates") -> None:
    from deep_ranking.search import set_aside

    moved = set_aside.move_aside(found.groups, found.root, args.move)
    for path, reason in moved.left[:MOST_NOT_MOVED]:
        print(f"not moved: {path}: {reason}", file=sys.stderr)
    if len(moved.left) > MOST_NOT_MOVED:
        print(f"not moved: {len(moved.left):,} images in all", file=sys.stderr)
    if moved.num_images:
        undo = shlex.quote(str(args.move / set_aside.UNDO_FILE))
        print(
            f"Moved {counted(moved.num_images, 'image')}, {byte_size(moved.num_bytes)}, into "
            f"{args.move}. To put them back:\n"
            f"  python -m deep_ranking duplicates --undo {undo}\n"
            "Run `index` again to remove them from the index."
        )
    if moved.left:
        print(
            f"{counted(len(moved.left), 'image')} {'was' if len(moved.left) == 1 else 'were'} not "
            "moved. If files have changed, bring the index up to date by `index --output "
            f"{found.index}`, then run this command again."
        )


def _undo(file: Path) -> None:
    from deep_ranking.search.set_aside import move_back

    moved = move_back(file)
    for path, reason in moved.left:
        print(f"not moved back: {path}: {reason}", file=sys.stderr)
    if moved.num_images:
        print("Run `index` again to add them to the index.")
    print(
        f"{counted(moved.num_images, 'image')} moved back, {moved.in_place:,} already in place, "
        f"{len(moved.left):,} not moved back"
    )


def _print_left_out(found: "Duplicates") -> None:
    for path, problem in found.left_out[:MOST_LEFT_OUT]:
        print(f"left out: {path}: {problem}", file=sys.stderr)
    if len(found.left_out) > MOST_LEFT_OUT:
        print(
            f"left out: {len(found.left_out):,} images in all; --json FILE lists them; run `index` "
            "again to add what changed",
            file=sys.stderr,
        )
