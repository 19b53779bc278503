"""Read text attributes: only those of a text type, and of bounded length.

For some other types h5py trusts the description in the file, and may even read bytes as pointers.
"""

import itertools
import math
from typing import Any

import h5py
import numpy as np

from deep_ranking.files.errors import InputError
from deep_ranking.files.hdf5.heaps import longest_text
from deep_ranking.files.hdf5.opening import MAX_NAMES

MAX_TEXT_BYTES = 1 << 20
MAX_TEXTS_BYTES = 1 << 29
"""Limit of the number of texts in a list times the bytes of the longest text in the file. Keras
describes a network in a text of a megabyte, and a network has a thousand layers."""


def read_text(group: Any, name: str) -> str | None:
    """Return a text attribute, or None if there is none.

    Raises:
        InputError: it is not text, or is too long.
    """
    if name not in group.attrs:
        return None
    refused = InputError(f"attribute {name} is not a short text")
    identifier = group.attrs.get_id(name)
    kind = identifier.get_type()
    is_text = isinstance(kind, h5py.h5t.TypeStringID) and identifier.shape == ()
    if not is_text or identifier.get_storage_size() > MAX_TEXT_BYTES:
        raise refused
    # The longest text may be another attribute's: Keras has long ones.
    if _longest_text(group, kind) > 16 * MAX_TEXT_BYTES:
        raise refused
    value = group.attrs[name]
    if isinstance(value, bytes | np.bytes_):
        value = bytes(value).decode()
    if not isinstance(value, str) or len(value) > MAX_TEXT_BYTES:
        raise refused
    return value


def read_names(group: Any, name: str) -> list[str]:
    """Return the names that an attribute lists; Keras splits a long list into NAME0, NAME1 ...

    Raises:
        InputError: it is not a list of names, or is too long.
    """
    numbers = itertools.takewhile(
        group.attrs.__contains__, (f"{name}{k}" for k in itertools.count())
    )
    found: list[str] = []
    for each in [name] if name in group.attrs else list(numbers):
        identifier = group.attrs.get_id(each)
        if math.prod(identifier.shape or ()) == 0:  # HDF5 cannot tell the size of an empty list
            continue
        kind, count = identifier.get_type(), math.prod(identifier.shape)
        if (
            not isinstance(kind, h5py.h5t.TypeStringID)
            or identifier.get_storage_size() > MAX_TEXT_BYTES
            or count * _longest_text(group, kind) > MAX_TEXTS_BYTES
        ):
            raise InputError(f"attribute {each} is not a list of names")
        values = np.atleast_1d(group.attrs[each])
        found += [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        if len(found) > MAX_NAMES:
            raise InputError(f"attribute {each} is not a list of names")
    return found


def _longest_text(group: Any, kind: Any) -> int:
    """Return the most bytes that a text can have if its type does not bound them, 0 otherwise."""
    return longest_text(group.file.filename) if kind.is_variable_str() else 0
