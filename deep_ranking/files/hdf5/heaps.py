"""Check the variable-length texts of an HDF5 file before the HDF5 library reads them.

Such texts, which attributes use, are in global heap collections: "GCOL", a version, three zeros and
the collection's size, then one object after the other: number, references, four zeros, size, bytes.
Number 0 is free space, whose size includes its header. An attribute holds only the place of its
text, and the library tells the length only by reading it. The library loops for ever over free
space of size 0.
"""

import os
import struct
from functools import lru_cache
from typing import BinaryIO

from deep_ranking.files.errors import InputError
from deep_ranking.files.opening import open_regular

MARK = b"GCOL\1\0\0\0"
OBJECT = struct.Struct("<HH4xQ")
BLOCK = 1 << 24
MOST_BYTES = 1 << 32  # of a model; searching more, such as a huge sparse file, would take long
MAX_OBJECTS = 1 << 20  # a model has a few hundred


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
