"""A look at an HDF5 file before the library gets it, which would read some texts for ever.

Texts of attributes lie in global heap collections: "GCOL", a version and a size, then objects one
behind the other, each with a header of 16 bytes and a size. An object 0 is free space, and says how
much; if it says 0, the library waits at it for ever.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from deep_ranking.errors import InputError
from deep_ranking.files import open_regular

MARK = b"GCOL\1\0\0\0"
HEADER = struct.Struct("<HHIQ")  # number, references, reserved, size
BLOCK = 1 << 24
MAX_OBJECTS = 1 << 20  # a model has a few hundred


def check_heaps(path: Path) -> None:
    """Walk the global heap collections of a file.

    Args:
        path: an HDF5 file, or any other.

    Raises:
        InputError: one of them has no end, or they hold more than any model.
        OSError: the file cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        begin, kept, left = 0, b"", MAX_OBJECTS
        while block := file.read(BLOCK):
            block = kept + block
            place = block.find(MARK)
            while place >= 0:
                left = _walk(file, begin + place, size, left)
                place = block.find(MARK, place + 1)
            begin += len(block) - len(MARK) + 1
            kept = block[-len(MARK) + 1 :]
            file.seek(begin + len(kept))


def _walk(file: BinaryIO, place: int, size: int, left: int) -> int:
    """Walk a collection; gives how many objects may still follow in others."""
    file.seek(place + len(MARK))
    end = min(size, place + int.from_bytes(file.read(8), "little"))
    place += len(MARK) + 8
    while place + HEADER.size <= end:
        file.seek(place)
        number, _, _, length = HEADER.unpack(file.read(HEADER.size))
        # As the library counts, in 64 bits: objects fill up whole eights.
        step = (length if number == 0 else HEADER.size + (length + 7) // 8 * 8) % (1 << 64)
        left -= 1
        if step == 0 or left < 0:
            raise InputError("damaged: a heap of texts in it has no end; expected an .h5 file")
        place += step
    return left
