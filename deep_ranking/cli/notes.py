"""The notes that libraries write to standard error, which no user can act on: held back or shown.

Some write below Python, to file descriptor 2, before any level of logging applies: TensorFlow on
processors and drivers when it starts, decoders on every broken image. In a program they go nowhere,
and Python's own messages, such as ours, take another descriptor.
"""

import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from deep_ranking.files import InputError

verbose = False
"""Whether notes are shown, as by --verbose."""


def turn_aside() -> None:
    """Let what is written below Python go nowhere, for the rest of the program."""
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def show() -> None:
    """Show all notes from now on."""
    global verbose  # noqa: PLW0603 (one program has one standard error)
    verbose = True
    os.dup2(descriptor(), 2)


def descriptor() -> int:
    """Give the file descriptor that messages go to."""
    try:
        return sys.stderr.fileno()
    except io.UnsupportedOperation:  # something else stands in its place, as in a test
        return 2


def start_tensorflow() -> None:
    """Import TensorFlow, with a word from it only about errors."""
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        logging.getLogger("absl").setLevel(logging.ERROR)  # Keras' advice on the .h5 format
    import_module("tensorflow")


@contextmanager
def can_be_silenced() -> Iterator[Callable[[], None]]:
    """Give a function that lets all messages go nowhere, unless notes are shown, until the end.

    At the end they go where they went at the beginning, whatever was held back in between.
    """
    before = {each: os.dup(each) for each in {2, descriptor()}}
    is_silent = False

    def silence() -> None:
        nonlocal is_silent
        if not verbose:
            is_silent = True
            with open(os.devnull, "wb") as nowhere:
                for each in before:
                    os.dup2(nowhere.fileno(), each)

    try:
        yield silence
    finally:
        sys.stderr.flush()
        for each, terminal in before.items():
            if is_silent:
                os.dup2(terminal, each)
            os.close(terminal)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back all that is written to standard error, and show it only if the block fails.

    An `InputError` says by itself all that a user can act on.
    """
    if verbose:
        yield
        return
    sys.stderr.flush()
    before = {each: os.dup(each) for each in {2, descriptor()}}
    with tempfile.TemporaryFile() as notes:
        for each in before:
            os.dup2(notes.fileno(), each)
        try:
            yield
        except InputError:
            raise
        except Exception:
            notes.seek(0)
            os.write(before[descriptor()], notes.read())
            raise
        finally:
            sys.stderr.flush()
            for each, terminal in before.items():
                os.dup2(terminal, each)
                os.close(terminal)
