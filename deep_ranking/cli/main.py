"""From the command line to a command, and from its errors to one line and an exit code.

Exit codes: 0 done; 1 the data cannot be used; 2 the command was called wrongly; 130 interrupted.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from deep_ranking.errors import InputError
from deep_ranking.version import __version__

COMMANDS = {
    "dataset": "get a public data set as class folders; say what a data set is like",
    "doctor": "say what is wrong with a data set, and what training on it would take",
    "sample": "draw triplets from folders of images into a text file",
    "train": "train a network on a triplet file",
    "compare": "print the distance of two images, or of many pairs",
    "evaluate": "judge a model on images of known classes, beside what needs no training",
    "index": "embed a folder of images once, to search it; again, to bring it up to date",
    "search": "find the images of an index that are most like others",
    "merge": "join the shards of an index that several machines embedded",
    "duplicates": "find near-duplicates in an index, and set them aside",
    "calibrate": "learn what a model's distances mean, from images of known classes",
    "report": "write one HTML page about a model: pictures, likely wrong labels, duplicates",
    "explain": "show where the similarity of two images comes from",
    "summary": "show a network as a table of its layers",
    "export": "write a model as a SavedModel, as ONNX or for TensorFlow Lite, and check it there",
    "demo": "see it work: learn handwritten digits in a few minutes",
}


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m deep_ranking COMMAND ...`.

    Args:
        argv: command and arguments; by default the program's own.

    Returns:
        The exit code; usage errors raise `SystemExit` with 2.
    """
    parser = Parser(
        prog="deep-ranking",
        description="Learn visual similarity from folders of images.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    argv = list(sys.argv[1:] if argv is None else argv)
    for name, help_text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_text, add_help=False)
        if argv[:1] == [name]:
            return run_command(name, argv[1:], prog=subparser.prog)
    parser.parse_args(argv)
    return 2


def run_command(name: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one command, as its root script does.

    Args:
        name: one of `COMMANDS`.
        argv: its arguments; by default the program's own.
        prog: what usage errors call the program; by default its file's name.

    Returns:
        The exit code; usage errors raise `SystemExit` with 2.
    """
    command = import_module(f"deep_ranking.cli.{name}")
    parser = Parser(
        prog=prog,
        description=command.DESCRIPTION,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_arguments(parser)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold bytes that are no UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        command.run(parser, argv)
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
