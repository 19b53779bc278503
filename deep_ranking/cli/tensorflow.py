"""Start TensorFlow without its notes on processors and drivers, which no user can act on."""

import logging
import os
import sys
import tempfile
from importlib import import_module


def start_tensorflow() -> None:
    """Import TensorFlow with its start-up notes held back, and shown only if the import fails.

    They are written below Python, before any level of logging applies, so the file descriptor
    itself is turned aside meanwhile.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras' advice on the .h5 format
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import_module("tensorflow")
        except BaseException:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
