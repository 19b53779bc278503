"""In which arithmetic the layers of a network compute; weights stay float32, and so do model files.

What ends in unit lengths computes in float32 always: sums of many squares overflow a half.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

FULL = "float32"
ALWAYS_FULL = (keras.layers.Rescaling, keras.layers.UnitNormalization)


def resolved_precision(precision: str) -> str:
    """Say which precision "auto" is on this machine; others stay as they are.

    It is mixed_float16 on a graphics processor, mixed_bfloat16 on processors that multiply in it,
    as far as Linux tells, and float32 on others.
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
    """Let the layers of a network compute in a precision from now on.

    Args:
        model: a network of `build_network`, or a part of it. What is compiled already keeps its
            precision.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
    """
    for layer in model.layers:
        full = isinstance(layer, ALWAYS_FULL) or layer.name == "embedding"
        layer.dtype_policy = keras.DTypePolicy(FULL if full else precision)


@contextmanager
def policies_of(precision: str, model: keras.Model) -> Iterator[None]:
    """Let the layers of a network say for a while that they compute in a precision."""
    before = [layer.dtype_policy for layer in model.layers]
    try:
        set_precision(model, precision)
        yield
    finally:
        for layer, policy in zip(model.layers, before, strict=True):
            layer.dtype_policy = policy


@contextmanager
def computing_in(precision: str, model: keras.Model) -> Iterator[None]:
    """Let a network embed in a precision for a while."""
    try:
        with policies_of(precision, model):
            model.make_predict_function(force=True)
            yield
    finally:
        model.make_predict_function(force=True)
