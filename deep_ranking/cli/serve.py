"""`serve`: indexes -> a page and an API to search them, until Ctrl-C."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deep_ranking.cli.arguments import checked_number
from deep_ranking.cli.compile import say_if_not_compiled
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.corrections import CorrectionLog
from deep_ranking.files import progress_bar
from deep_ranking.files.installed import check_installed
from deep_ranking.files.words import counted, listed
from deep_ranking.search.collection import Collection
from deep_ranking.search.shards import open_searchable
from deep_ranking.serving.settings import VARIABLE, ServerSettings

DESCRIPTION = (
    "Serve indexes: a page to search them in a browser, and an API over HTTP. It listens on this "
    "machine alone and changes nothing, unless flags say otherwise; Ctrl-C ends it."
)
EXAMPLES = (
    (
        "Serve an index on http://127.0.0.1:8000",
        "python -m deep_ranking serve --index photos.index",
    ),
    (
        "Serve it to other machines, which need the token in DEEP_RANKING_TOKEN",
        "python -m deep_ranking serve --index photos.index --host 192.168.1.5",
    ),
)
BESIDE = Path()  # --teach or --corrections without a name
port = checked_number(int, lambda value: 0 <= value <= 65535, "be 0 to 65535")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("what to serve")
    group.add_argument(
        "--index",
        action="append",
        type=Path,
        required=True,
        metavar="INDEX",
        help="folder that `index` wrote, or a file with such a folder in each line: shards that "
        "are served as one; several of these flags serve several",
    )
    group.add_argument(
        "--skip_unavailable",
        action="store_true",
        help="leave out shards of a list that cannot be searched, and name them; by default, "
        "searches of that list are refused meanwhile",
    )
    group.add_argument(
        "--allow_changes",
        action="store_true",
        help="allow duplicates to be set aside, into the hidden folder .set_aside beside the "
        "images, and put back",
    )
    group.add_argument(
        "--teach",
        nargs="?",
        type=Path,
        const=BESIDE,
        metavar="RATINGS",
        help="ask people in the page which of two images is more like a third, and add the "
        "answers to this ratings file; without a name, INDEX.ratings.csv beside the index; what "
        "the model learns from them goes to INDEX.taught/",
    )
    group.add_argument(
        "--corrections",
        nargs="?",
        type=Path,
        const=BESIDE,
        metavar="FILE",
        help="let people say in the page which classes are wrong, and add that to this corrections "
        "file; without a name, the one that the index keeps, or INDEX.corrections.csv beside it",
    )
    group.add_argument("--rater", metavar="NAME", help="who answers where the page does not say")
    group = parser.add_argument_group("where, and for whom")
    group.add_argument(
        "--host",
        default=ServerSettings.host,
        metavar="ADDRESS",
        help="address to listen on; one that others can reach needs a token",
    )
    group.add_argument(
        "--port",
        type=port,
        default=ServerSettings.port,
        metavar="N",
        help="port to listen on; 0 for any free one",
    )
    group.add_argument(
        "--token",
        metavar="TEXT",
        help="what each request must bring, 16 or more characters; other users of this machine can "
        f"see it here, and not in the environment variable {VARIABLE}",
    )
    group.add_argument(
        "--log", action="store_true", help="print a line for each request: address, status, time"
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Open the indexes, and serve them until the program is told to end."""
    args = parser.parse_args(argv)
    if args.teach is not None and len(args.index) > 1:
        parser.error(
            f"--teach asks about one --index, and there are {len(args.index)}; serve the others "
            "on another --port"
        )
    if args.corrections is not None and len(args.index) > 1:
        parser.error(
            f"--corrections is about one --index, and there are {len(args.index)}; serve the "
            "others on another --port"
        )
    args.lists = [each for each in args.index if each.is_file()]
    for flag, given in (("--teach", args.teach), ("--corrections", args.corrections)):
        if given is not None and args.lists:
            parser.error(
                f"{flag} is about one index, and {args.lists[0]} is a list of several; serve one "
                "of them alone"
            )
    refuse_flags_without_effect(parser, argv, rules_of("serve", args))
    check_installed(parser.prog, "fastapi", "uvicorn", "python_multipart")
    settings = ServerSettings(
        host=args.host,
        port=args.port,
        token=args.token or os.environ.get(VARIABLE) or None,
        skip_unavailable=args.skip_unavailable,
        allow_changes=args.allow_changes,
        ratings=ratings_path(args.teach, args.index[0]),
        rater=args.rater or "",
        corrections=corrections_path(args.corrections, args.index[0]),
        log=args.log,
    )
    quieten_tensorflow()
    progress_bar.quiet = True  # requests show none
    for folder in args.index:
        opened = open_searchable([folder], skip_unavailable=args.skip_unavailable)
        say_if_not_compiled(opened.model)
        for each in opened.left_out:
            print(f"{each.folder}: left out: {each.reason}", file=sys.stderr)
    from deep_ranking.serving.running import run_server

    def announce(running: ServerSettings) -> None:
        names = listed([str(folder) for folder in args.index])
        print(f"Serving {names} on {running.address}; Ctrl-C ends it.", flush=True)
        if running.ratings is not None:
            number = counted(len(AnswerLog(running.ratings).standing().answers), "answer")
            print(
                f"Questions on {running.address}/?view=teach; answers go to {running.ratings}, "
                f"which has {number}.",
                flush=True,
            )

        if running.corrections is not None:
            number = counted(len(CorrectionLog(running.corrections).read()), "correction")
            print(
                f"Errors on {running.address}/?view=errors; corrections go to "
                f"{running.corrections}, which has {number}.",
                flush=True,
            )

    run_server(args.index, settings, announce)


def corrections_path(given: Path | None, index: Path) -> Path | None:
    """Return the file of --corrections; by default that of the index, or one beside it."""
    if given != BESIDE:
        return given
    of_index = Collection.open(index).settings.folder_config().corrections
    if of_index is not None:
        return of_index
    folder = Path(os.path.abspath(index))
    return folder.with_name(f"{folder.name}.corrections.csv")


def ratings_path(given: Path | None, index: Path) -> Path | None:
    """Return the ratings file of --teach; by default it lies beside the index."""
    if given != BESIDE:
        return given
    folder = Path(os.path.abspath(index))
    return folder.with_name(f"{folder.name}.ratings.csv")
