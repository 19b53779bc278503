"""Base class of all configs, and checks that refuse a value out of its range."""

import math
import os
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from deep_ranking.files import InputError
from deep_ranking.files.typed_fields import convert_fields

Value = TypeVar("Value")
MAX_COUNT = 2**31 - 1  # the product of two counts fits into NumPy's integers


def setting(default: Value, help_text: str, **options: Any) -> Value:
    """Return a dataclass field that becomes a flag.

    Args:
        default: the default of field and flag.
        help_text: what `--help` prints of the flag.
        **options: "choices" and "metavar", as for `argparse`.
    """
    made: Value = field(default=default, metadata={"help": help_text, **options})
    return made


def check_counts(*, low: int = 1, **counts: int | None) -> None:
    """Check that each count is `low` to `MAX_COUNT`, or None.

    Raises:
        InputError: a count is not; the message names it.
    """
    for name, count in counts.items():
        if count is not None and count < low:
            raise InputError(f"{name} must be {low} or more. Received: {count}")
        if count is not None and count > MAX_COUNT:
            raise InputError(f"{name} must be {MAX_COUNT:,} or less. Received: {count}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Check that a value lies between two others, or equals one of them.

    Raises:
        InputError: the value lies outside, or is NaN.
    """
    if not low <= value <= high:
        raise InputError(f"{name} must lie between {low} and {high}. Received: {value}")


def check_positive(**values: float) -> None:
    """Check that each value is above 0; infinity is.

    Raises:
        InputError: a value is not, or is NaN; the message names it.
    """
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{name} must be above 0. Received: {value}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings that are checked when the object is made.

    Values of a similar type are converted, see `convert_fields`: NumPy's numbers to Python's, text
    to a `Path`. So equal settings are equal objects and the same JSON.
    """

    def __post_init__(self) -> None:
        """Check types and choices; each subclass adds its checks of all that needs no file."""
        convert_fields(self)
        for each in fields(self):
            value, choices = getattr(self, each.name), each.metadata.get("choices")
            if choices is not None and value not in (*choices, each.default):
                raise InputError(
                    f"{each.name} must be one of {', '.join(choices)}. Received: {value}"
                )

    def _path_as_text(self, name: str) -> None:
        """Convert a `Path` to text, in a field that takes a path or one of some words."""
        value = getattr(self, name)
        if isinstance(value, os.PathLike):
            object.__setattr__(self, name, os.fspath(value))

    def _check_range(self, name: str, low: float, high: float) -> None:
        check_range(name, getattr(self, name), low, high)

    def _check_counts(self, *names: str, low: int = 1) -> None:
        check_counts(low=low, **{name: getattr(self, name) for name in names})

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be above 0 and finite. Received: {value}")
