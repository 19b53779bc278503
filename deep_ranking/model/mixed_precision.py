"""Mixed precision: layers compute in 16 bits, while weights and model files stay float32.

Rescaling, unit normalisation and the embedding layer always compute in float32: sums of many
squares overflow 16 bits. So do the shallow branches, which cost little: how well a word fits is a
difference of large numbers.
"""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

FULL = "float32"
ALWAYS_FULL = (keras.layers.Rescaling, keras.layers.UnitNormalization)


def resolved_precision(precision: str) -> str:
    """Return the precision that "auto" stands for on this machine; others unchanged.

    That is mixed_float16 on a GPU, mixed_bfloat16 on a CPU that multiplies in it (read from
    /proc/cpuinfo, so only on Linux), and float32 elsewhere.
    """
    if precision != "auto":
        return precision
    if tf.config.list_logical_devices("GPU"):
        return "mixed_float16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return FULL
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else FULL


def set_precision(model: keras.Model, precision: str) -> None:
    """Set the precision that the layers of a network compute in.

    Args:
        model: a network of `build_network`, or a part of it. Functions that are already compiled
            keep their precision.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
    """
    for layer in model.layers:
        full = isinstance(layer, ALWAYS_FULL) or layer.name.startswith(("embedding", "branch_"))
        layer.dtype_policy = keras.DTypePolicy(FULL if full else precision)


@contextmanager
def temporary_policies(precision: str, model: keras.Model) -> Iterator[None]:
    """Set the precision of a network inside a `with` block, without recompiling its functions."""
    before = [layer.dtype_policy for layer in model.layers]
    try:
        set_precision(model, precision)
        yield
    finally:
        for layer, policy in zip(model.layers, before, strict=True):
            layer.dtype_policy = policy


@contextmanager
def computing_in(precision: str, model: keras.Model) -> Iterator[None]:
    """Let a network predict in a precision inside a `with` block."""
    try:
        with temporary_policies(precision, model):
            model.make_predict_function(force=True)
            yield
    finally:
        model.make_predict_function(force=True)
