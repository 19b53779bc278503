"""Start TensorFlow without its notes on processors and drivers, which no user can act on."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from deep_ranking.errors import InputError


def start_tensorflow() -> None:
    """Import TensorFlow with its start-up notes held back, and shown only if the import fails."""
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
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except InputError:
            raise
        except BaseException:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
