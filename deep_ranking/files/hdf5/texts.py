"""Texts in attributes, read only where their type is that of a text, and their length bounded.

h5py takes the description of some other types from the file, to the point of reading bytes as
pointers.
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
"""Bytes of a list of texts, were each of them the longest in the file; a network of Keras describes
itself in a text of a megabyte, and has a thousand layers."""


def read_text(group: Any, name: str) -> str | None:
    """Read a text attribute, or give None when there is none.

    Raises:
        InputError: it is no text, or longer than any of ours.
    """
    if name not in group.attrs:
        return None
    refused = InputError(f"attribute {name} is not a short text")
    identifier = group.attrs.get_id(name)
    kind = identifier.get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or identifier.shape != ():
        raise refused
    if identifier.get_storage_size() > MAX_TEXT_BYTES:
        raise refused
    if _longest_text(group, kind) > 16 * MAX_TEXT_BYTES:  # of another attribute: Keras has such
        raise refused
    value = group.attrs[name]
    if isinstance(value, bytes | np.bytes_):
        value = bytes(value).decode()
    if not isinstance(value, str) or len(value) > MAX_TEXT_BYTES:
        raise refused
    return value


def read_names(group: Any, name: str) -> list[str]:
    """Read an attribute that lists names; Keras cuts a long list into NAME0, NAME1 ..."""
    numbers = itertools.takewhile(
        group.attrs.__contains__, (f"{name}{k}" for k in itertools.count())
    )
    found: list[str] = []
    for each in [name] if name in group.attrs else list(numbers):
        identifier = group.attrs.get_id(each)
        if math.prod(identifier.shape or ()) == 0:  # HDF5 cannot tell the size of nothing
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
    """Give the bytes that a text of a type can have, if the type does not bound them."""
    return longest_text(group.file.filename) if kind.is_variable_str() else 0
