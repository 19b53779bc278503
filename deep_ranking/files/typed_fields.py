"""Fields of a dataclass, converted to their declared types or refused."""

import dataclasses
import math
import os
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from deep_ranking.files.errors import InputError

NAMES = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a text",
    Path: "a path, as text or as a Path",
}
MOST_SHOWN = 100  # characters of a refused value


def convert_fields(settings: Any) -> None:
    """Convert the fields of a frozen dataclass to the types that their annotations declare.

    NumPy numbers and arrays without dimensions become Python numbers, an integer becomes a float
    where a float is declared, and text becomes a `Path` where a path is declared. Nothing else
    changes its type: a boolean is no integer, and 2.0 is none either.

    Args:
        settings: object whose fields are each annotated as bool, int, float, str, Path or a class,
            or as one of these or None.

    Raises:
        InputError: a value is of another type, or NaN; the message names its field.

    Example:
    >>> from deep_ranking import NetworkConfig
    >>> NetworkConfig(image_size=np.int64(32)).image_size
    32
    >>> NetworkConfig(hidden_layers=True)
    Traceback (most recent call last):
    deep_ranking.files.errors.InputError: hidden_layers must be an integer. Received: True (bool)
    """
    for name, kinds in _kinds(settings.__class__).items():
        value = getattr(settings, name)
        if value is None:
            if type(None) not in kinds:
                raise InputError(f"{name} must not be None")
            continue
        kind = next(kind for kind in kinds if kind is not type(None))
        try:
            converted = _converted(value, kind)
        except (TypeError, ValueError, OverflowError):
            wanted = NAMES.get(kind, f"a {kind.__name__}")
            raise InputError(f"{name} must be {wanted}. Received: {shown(value)}") from None
        object.__setattr__(settings, name, converted)


@cache
def _kinds(settings: type) -> dict[str, tuple[Any, ...]]:
    """Return field -> the types that it may have."""
    types = get_type_hints(settings)
    names = [each.name for each in dataclasses.fields(settings)]
    return {name: get_args(types[name]) or (types[name],) for name in names}


def _converted(value: Any, kind: type) -> Any:
    """Return a value as `kind`; raise TypeError, ValueError or OverflowError if it is none."""
    is_scalar = isinstance(value, np.generic | np.ndarray) and value.ndim == 0
    if is_scalar and value.dtype.kind in "biuf":  # booleans, integers and floats
        value = float(value) if value.dtype.kind == "f" else value.item()
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and isinstance(value, int) and not isinstance(value, bool):
        return kind(value)
    if kind is float and isinstance(value, float) and not math.isnan(value):
        return float(value)
    if kind is str and isinstance(value, str):
        return str.__str__(value)  # not a subclass of `str`, such as NumPy's
    if kind is Path and isinstance(value, str | os.PathLike):
        return Path(value)
    if kind not in NAMES and isinstance(value, kind):
        return value
    raise TypeError


def shown(value: Any) -> str:
    """Return how an error shows a refused value: a short text, with its type.

    Example:
    >>> shown(True)
    'True (bool)'
    """
    try:
        text = repr(value)
    except Exception:  # of a class that anybody wrote
        text = "a value"
    if len(text) > MOST_SHOWN:
        text = text[:MOST_SHOWN] + " ..."
    return f"{text} ({type(value).__name__})"
