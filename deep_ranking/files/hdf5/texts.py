"""Read text attributes of HDF5 files: only those of a text type, and of bounded length.

For some other types h5py trusts the description in the file, and may even read bytes as pointers.

Texts of variable length are in global heap collections: "GCOL", a version, three zeros and the
collection's size, then one object after the other: number, references, four zeros, size, bytes.
Number 0 is free space, whose size includes its header. An attribute holds only the place of its
text, and the library tells the length only by reading it. The library loops for ever over free
space of size 0.
"""

import itertools
import math
import os
import struct
from functools import lru_cache
from typing import Any, BinaryIO

import h5py
import numpy as np

from deep_ranking.files.errors import InputError
from deep_ranking.files.opening import open_regular

MAX_NAMES = 100_000  # of a group, or in a list
MAX_TEXT_BYTES = 1 << 20
MAX_TEXTS_BYTES = 1 << 29
"""Limit of the number of texts in a list times the bytes of the longest text in the file. Keras
describes a network in a text of a megabyte, and a network has a thousand layers."""
MARK = b"GCOL\1\0\0\0"
OBJECT = struct.Struct("<HH4xQ")
BLOCK = 1 << 24
MOST_BYTES = 1 << 32  # of a model; searching more, such as a huge sparse file, would take long
MAX_OBJECTS = 1 << 20  # a model has a few hundred


def read_text(group: Any, name: str) -> str | None:
    """Return a text attribute, or None if there is none.

    Raises:
        InputError: it is not text, or is too long.
    """
    if name not in group.attrs:
        return None
    identifier, value = group.attrs.get_id(name), None
    # The longest text may be another attribute's: Keras has long ones.
    if identifier.shape == () and _holds_texts(group, identifier, 16 * MAX_TEXT_BYTES):
        value = group.attrs[name]
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str) or len(value) > MAX_TEXT_BYTES:
        raise InputError(f"attribute {name} is not a short text")
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
        count = math.prod(identifier.shape or ())
        if count == 0:  # HDF5 cannot tell the size of an empty list
            continue
        is_list = _holds_texts(group, identifier, MAX_TEXTS_BYTES // count)
        if not is_list or len(found) + count > MAX_NAMES:
            raise InputError(f"attribute {each} is not a list of names")
        values = np.atleast_1d(group.attrs[each])
        found += [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return found


def _holds_texts(group: Any, identifier: Any, most_bytes: int) -> bool:
    """Return whether an attribute is of short texts, each of `most_bytes` at most."""
    kind = identifier.get_type()
    return (
        isinstance(kind, h5py.h5t.TypeStringID)
        and identifier.get_storage_size() <= MAX_TEXT_BYTES
        and not (kind.is_variable_str() and longest_text(group.file.filename) > most_bytes)
    )


def longest_text(path: str | os.PathLike[str]) -> int:
    """Return an upper bound of the bytes of a file's longest variable-length text; 0 if none.

    The result is cached until the file changes.

    Args:
        path: an HDF5 file, or any other file.

    Raises:
        InputError: a collection has no end, or they hold more objects than any model.
        OSError: the file cannot be read, or is not a regular file.
    """
    status = os.stat(path)
    return _longest_text(os.fspath(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _longest_text(path: str, size: int, changed: int) -> int:
    if size > MOST_BYTES:
        return size
    longest, left = 0, MAX_OBJECTS
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        begin, kept = 0, b""
        while block := file.read(BLOCK):
            block = kept + block
            place = block.find(MARK)
            while place >= 0:
                text, left = _walk(file, begin + place, size, left)
                longest = max(longest, text)
                place = block.find(MARK, place + 1)
            begin += len(block) - len(MARK) + 1
            kept = block[-len(MARK) + 1 :]
            file.seek(begin + len(kept))
    return longest


def _walk(file: BinaryIO, place: int, size: int, left: int) -> tuple[int, int]:
    """Return the longest object of a collection, and how many more objects the others may hold."""
    file.seek(place + len(MARK))
    end = min(size, place + int.from_bytes(file.read(8), "little"))
    place += len(MARK) + 8
    longest = 0
    while place + OBJECT.size <= end:
        file.seek(place)
        number, _, length = OBJECT.unpack(file.read(OBJECT.size))
        if number:
            longest = max(longest, min(length, end - place))
        # The library counts in 64 bits and pads objects to multiples of 8.
        step = (length if number == 0 else OBJECT.size + (length + 7) // 8 * 8) % (1 << 64)
        left -= 1
        if step == 0 or left < 0:
            raise InputError("damaged: a heap of texts in it has no end; expected an .h5 file")
        place += step
    return longest, left
