"""The notes that libraries write below Python, which no user can act on: held back or shown.

TensorFlow has some on processors and drivers whenever it starts.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from deep_ranking.errors import InputError

verbose = False
"""Whether notes are shown, as by --verbose."""


def start_tensorflow() -> None:
    """Import TensorFlow with its start-up notes held back, and shown only if the import fails."""
    if verbose:
        import_module("tensorflow")
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras' advice on the .h5 format
    if "tensorflow" in sys.modules:
        return
    with notes_held_back():
        import_module("tensorflow")


@contextmanager
def notes_held_back() -> Iterator[None]:
    """Hold back what is written to standard error, and show it only if the block fails.

    Libraries write there below Python, before any level of logging applies, so the file descriptor
    itself is turned aside meanwhile. An `InputError` says by itself all that a user can act on.
    """
    if verbose:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except InputError:
            raise
        except Exception:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
