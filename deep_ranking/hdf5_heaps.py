"""How long the texts in an HDF5 file can be, told before one of them is read.

HDF5 keeps texts of their own lengths in heaps, and an attribute says only where its text lies.
Nothing in HDF5's interface tells the length other than by reading the text, or as many copies of
it as the attribute lists. A heap begins with "GCOL", version, three zeros and its size; then come
its objects: number, references, four zeros, size, bytes. Number 0 is free space and ends it.
"""

import mmap
import struct
from functools import lru_cache

HEAP = struct.Struct("<4s4xQ")
OBJECT = struct.Struct("<HH4xQ")
MOST_BYTES = 1 << 32  # of a model; looking through more would take long, as of a hole on the disk
SIGNATURE = b"GCOL\x01\x00\x00\x00"


@lru_cache(maxsize=4)
def longest_text(path: str, size: int, changed: int) -> int:
    """Give the bytes of the longest text of its own length in an HDF5 file, or more.

    Args:
        path: the file.
        size: bytes, and time of change, of the file: another file at this path is looked at anew.
        changed: see `size`.
    """
    if size == 0 or size > MOST_BYTES:
        return size
    longest = 0
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(SIGNATURE)
        while place >= 0:
            longest = max(longest, _longest_of_heap(data, place))
            place = data.find(SIGNATURE, place + 1)
    return longest


def _longest_of_heap(data: mmap.mmap, begin: int) -> int:
    if begin + HEAP.size > len(data):
        return 0
    end = min(begin + HEAP.unpack_from(data, begin)[1], len(data))
    place, longest = begin + HEAP.size, 0
    while place + OBJECT.size <= end:
        number, _, size = OBJECT.unpack_from(data, place)
        if number == 0:
            break
        longest = max(longest, min(size, end - place))
        place += OBJECT.size + -(-size // 8) * 8
    return longest
