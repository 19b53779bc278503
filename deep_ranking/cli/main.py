"""Find and run the command that the command line names; turn its errors into one line.

Exit codes: 0 done; 1 the data cannot be used; 2 usage error; 130 interrupted by Ctrl-C or SIGTERM.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from deep_ranking import __version__
from deep_ranking.cli import library_messages
from deep_ranking.cli.error_lines import message_of
from deep_ranking.cli.parser import Parser
from deep_ranking.cli.signals import EXIT_CODE, interruptible, run_as_program
from deep_ranking.files import InputError, progress_bar

COMMANDS = {
    "dataset": "get a public data set as class folders, or describe a data set",
    "doctor": "find what is wrong with a data set, and estimate what training on it takes",
    "sample": "draw triplets from folders of images into a text file",
    "train": "train a network on a triplet file",
    "compare": "print the distance of two images, or of many pairs",
    "evaluate": "evaluate a model on images of known classes, beside features without training",
    "index": "embed a folder of images, or update the index of one, to search it",
    "embed": "embed a folder, a bucket or a list of images into a table, here or on a cluster",
    "search": "find the images of an index that are most like others",
    "serve": "serve indexes over HTTP, to search them from other programs",
    "merge": "join index shards that several machines embedded",
    "duplicates": "find near-duplicates in an index, and set them aside",
    "ratings": "print what people answered about images, and make triplets of it",
    "calibrate": "learn the probability behind a model's distances, from images of known classes",
    "report": "write one HTML page about a model: pictures, likely wrong labels, duplicates",
    "explain": "show where the similarity of two images comes from",
    "summary": "show a network as a table of its layers",
    "compile": "compile a model, so that it starts at once and needs no TensorFlow",
    "export": "write a model as SavedModel, ONNX or TensorFlow Lite, and check the result",
    "demo": "learn handwritten digits in a few minutes, to see how it works",
}

WITHOUT_IMAGES = (
    "merge",
    "summary",
    "compile",
    "export",
    "demo",
)  # commands that read no image files

EXAMPLES = (
    (
        "Train on a folder of classes, in minutes",
        "python -m deep_ranking train --recipe laptop --dataset photos --output m.h5",
    ),
    (
        "Print the distance of two images",
        "python -m deep_ranking compare -m m.h5 -i1 a.jpg -i2 b.jpg",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m deep_ranking COMMAND ...`.

    Args:
        argv: command and arguments; by default the program's own.

    Returns:
        The exit code; usage errors raise `SystemExit` with 2.
    """
    parser = Parser(
        prog="deep-ranking",
        description="Learn visual similarity from folders of images. COMMAND --help tells more.",
        examples=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    argv = list(sys.argv[1:] if argv is None else argv)
    for name, help_text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_text, add_help=False)
        if argv[:1] == [name]:
            return run_command(name, argv[1:], prog=subparser.prog)
    parser.parse_args(argv)
    return 2


def run_program(name: str | None = None) -> NoReturn:
    """Run the program `python -m deep_ranking`, or a root script of one command, to its end.

    Args:
        name: one of `COMMANDS`; None if the first argument names it.
    """
    run_as_program(main if name is None else partial(run_command, name))


def run_command(name: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one command, as its root script does.

    Args:
        name: one of `COMMANDS`.
        argv: its arguments; by default the program's own.
        prog: what usage errors call the program; by default its file's name.

    Returns:
        The exit code; usage errors raise `SystemExit` with 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may be invalid UTF-8
            stream.reconfigure(errors="backslashreplace")
    library_messages.verbose = progress_bar.quiet = False
    hint, parser = "", None
    with interruptible() as interruption:
        try:
            parser = make_parser(name, prog)
            import_module(f"deep_ranking.cli.{name}").run(parser, argv)
        except BrokenPipeError:  # the reader of our output, such as head, has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt as interrupt:
            interruption.requested = True
            hint = f": {interrupt}" if interrupt.args else ""
        except Exception as error:
            message = message_of(error, parser)
            if message is not None and library_messages.verbose:
                traceback.print_exc()
            if not interruption.requested:  # else a library has turned the interrupt into this
                if message is None:
                    raise
                print(f"error: {message}", file=sys.stderr)
                return 1
    if interruption.requested:
        begin = "\n" if sys.stderr.isatty() else ""  # after ^C, or a progress bar
        print(f"{begin}interrupted{hint}", file=sys.stderr)
        return EXIT_CODE
    return 0


def make_parser(name: str, prog: str | None = None) -> Parser:
    """Return the parser of one of `COMMANDS`; `prog` is what its messages call the program."""
    command = import_module(f"deep_ranking.cli.{name}")
    parser = Parser(
        prog=prog,
        description=command.DESCRIPTION,
        examples=command.EXAMPLES,
        basic_flags=getattr(command, "BASIC_FLAGS", None),
    )
    command.add_arguments(parser)
    if name not in WITHOUT_IMAGES:
        parser.add_argument(
            "--max_megapixels",
            action=_MaxMegapixels,
            type=int,
            default=argparse.SUPPRESS,
            metavar="N",
            help="read images of up to N million pixels, whatever memory it takes; by default up "
            "to 178, in 1 GiB",
        )
    parser.add_argument(
        "--verbose",
        action=_Verbose,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show messages of libraries, and the traceback of an error",
    )
    parser.add_argument(
        "--quiet",
        action=_Quiet,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show no progress of long work, neither bars nor lines",
    )
    return parser


class _MaxMegapixels(argparse.Action):
    """Sets the limit of the process itself: readers in all modules and threads go by it."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, value: Any, *__: Any) -> None:
        from deep_ranking.images.limits import allow_megapixels

        try:
            allow_megapixels(value)
        except InputError as error:
            parser.error(f"argument --max_megapixels: {error}")


class _Verbose(argparse.Action):
    def __call__(self, *_: Any) -> None:
        library_messages.show()


class _Quiet(argparse.Action):
    def __call__(self, *_: Any) -> None:
        progress_bar.quiet = True
