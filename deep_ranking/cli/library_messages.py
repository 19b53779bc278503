"""Messages that libraries write to standard error: discarded, unless --verbose asks for them.

Some libraries write below Python, to file descriptor 2, where no log level applies: TensorFlow
reports processors and drivers when it starts, and decoders report every broken image. A program
discards what arrives there. Python's own messages, such as ours, use another descriptor.
"""

import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.files import InputError

if TYPE_CHECKING:
    import keras

verbose = False
"""Whether --verbose asked for the messages."""


def discard() -> None:
    """Discard what is written below Python, for the rest of the program."""
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    _discard(2)


def show() -> None:
    """Show all messages from now on."""
    global verbose  # noqa: PLW0603 (one program has one standard error)
    verbose = True
    os.dup2(stderr_descriptor(), 2)


def stderr_descriptor() -> int:
    """Return the file descriptor that Python's own messages go to."""
    try:
        return sys.stderr.fileno()
    except io.UnsupportedOperation:  # a test has replaced sys.stderr
        return 2


def quieten_tensorflow() -> None:
    """Let TensorFlow report errors only, once it is imported."""
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        logging.getLogger("absl").setLevel(logging.ERROR)  # Keras' advice on the .h5 format
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # advice on tracing


def start_tensorflow() -> None:
    """Import TensorFlow, and let it report errors only."""
    quieten_tensorflow()
    import_module("tensorflow")


def open_model(path: Path) -> "keras.Model":
    """Start TensorFlow, and return the model of a file.

    Raises:
        InputError: the file is no model.
    """
    start_tensorflow()
    from deep_ranking.model.file import load_model

    return load_model(path)


@contextmanager
def stderr_silencer() -> Iterator[Callable[[], None]]:
    """Restore standard error at the end of the block, if the block has silenced it.

    Yields:
        A function that discards all of standard error from then on; with --verbose it does nothing.
    """
    with _restored_stderr() as copies:
        yield lambda: None if verbose else _discard(*copies)


@contextmanager
def shown_on_failure() -> Iterator[None]:
    """Hold back all of standard error during the block, and show it only if the block fails.

    An `InputError` tells users all that they can act on, so it shows nothing more.
    """
    with _restored_stderr() as copies, tempfile.TemporaryFile() as messages:
        if not verbose:
            for each in copies:
                os.dup2(messages.fileno(), each)
        try:
            yield
        except InputError:
            raise
        except Exception:
            messages.seek(0)
            os.write(copies[stderr_descriptor()], messages.read())
            raise


@contextmanager
def _restored_stderr() -> Iterator[dict[int, int]]:
    """Yield a copy of each descriptor of standard error; restore all at the end, unless verbose."""
    sys.stderr.flush()
    copies = {each: os.dup(each) for each in {2, stderr_descriptor()}}
    try:
        yield copies
    finally:
        sys.stderr.flush()
        for each, copy in copies.items():
            if not verbose:
                os.dup2(copy, each)
            os.close(copy)


def _discard(*descriptors: int) -> None:
    with open(os.devnull, "wb") as nowhere:
        for each in descriptors:
            os.dup2(nowhere.fileno(), each)
