"""Keras' global settings, which the networks do not follow.

A program, or `~/.keras/keras.json`, can choose another backend, another floatx, another order of
the axes of images, or another precision for all layers. The networks need Keras' defaults.

Importing this module refuses another backend. A module that imports Keras imports this one first,
because Keras fails with a traceback where the chosen backend is not installed. For the other
settings see `default_settings`.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deep_ranking.files import InputError

BACKEND = "tensorflow"


def check_backend() -> None:
    """Check that Keras computes with TensorFlow, without importing it.

    Raises:
        InputError: it uses, or is going to use, another backend.
    """
    chosen = _backend()
    if chosen != BACKEND:
        raise InputError(
            f"the backend of Keras must be {BACKEND}. Received: {chosen}; set "
            f"KERAS_BACKEND={BACKEND} before Keras is imported"
        )


@contextmanager
def default_settings() -> Iterator[None]:
    """Let Keras have its default settings inside a `with` block, or in a decorated function.

    Within the block floatx and the precision of layers are float32, and images are channels_last.
    Afterwards all are as before. floatx and the order of axes are those of the whole program, so
    other threads see the change; the precision is this thread's own.

    Example:
    >>> import keras
    >>> keras.config.set_floatx("float16")
    >>> with default_settings():
    ...     keras.config.floatx()
    'float32'
    >>> keras.config.floatx()
    'float16'
    >>> keras.config.set_floatx("float32")
    """
    from keras import config

    floatx, data_format, policy = config.floatx(), config.image_data_format(), config.dtype_policy()
    try:
        config.set_floatx("float32")
        config.set_image_data_format("channels_last")
        config.set_dtype_policy("float32")
        yield
    finally:
        config.set_floatx(floatx)
        config.set_image_data_format(data_format)
        config.set_dtype_policy(policy)


def _backend() -> str:
    """Return the backend that Keras uses, or is going to choose when it is imported."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    home = Path("~").expanduser()
    usual = (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"
    try:
        text = (Path(os.environ.get("KERAS_HOME", usual)).expanduser() / "keras.json").read_text()
        return str(json.loads(text).get("backend", BACKEND))
    except (OSError, ValueError, AttributeError):  # Keras reports a file that it cannot read
        return BACKEND


check_backend()
