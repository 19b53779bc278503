"""The file of a cluster index, checked from end to end before faiss opens it.

faiss reads in C++ what a file says of its own sizes, and of any of its many kinds of index; where
they lie, the process ends. So the layout that `ClusterIndex` writes is read here first, number by
number, and nothing else is let pass. All numbers are little-endian:

index      "IwFl", head, clusters u64, probes u64, quantizer, 9 zero bytes, members
quantizer  the means: "IxF2", head, floats u64, floats; or again an index
head       dimension i32, vectors i64, 16 bytes of any value, trained u8, metric i32
members    "ilar", clusters u64, bytes a vector u64, sizes, then for each cluster its vectors and
           their numbers i64
sizes      "full", entries u64, one u64 a cluster; or "sprs", entries u64, pairs of u64 of cluster
           and size, the clusters rising
"""

import struct
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError

KIND, NUMBER = struct.Struct("<4s"), struct.Struct("<Q")
HEAD = struct.Struct("<iq16xBi")
EUCLIDEAN = 1
NOTHING_MORE = bytes(9)  # no map from a vector's number to its cluster
MAX_DIMENSION = 8192
MOST_LEVELS = 2


class _Layout:
    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle = handle
        self._left = size

    def check(self) -> None:
        """Read all of an index, which must end where it is said to.

        Raises:
            InputError: it is not laid out as `ClusterIndex` writes it.
        """
        self._index(MOST_LEVELS)
        if self._left:
            raise _damaged()

    def _index(self, levels: int) -> tuple[int, int]:
        """Read an index; dimension and number of its vectors."""
        (kind,) = KIND.unpack(self._take(KIND.size))
        dimension, count, trained, metric = HEAD.unpack(self._take(HEAD.size))
        is_sane = 1 <= dimension <= MAX_DIMENSION and count >= 0
        if not is_sane or (trained, metric) != (1, EUCLIDEAN):
            raise _damaged()
        if kind == b"IxF2" and levels < MOST_LEVELS:
            if self._number() != count * dimension:
                raise _damaged()
            self._skip(4 * dimension * count)
            return dimension, count
        if kind != b"IwFl" or not levels:
            raise _damaged()
        clusters = self._number()
        self._number()
        if self._index(levels - 1) != (dimension, clusters) or not clusters:
            raise _damaged()
        if self._take(len(NOTHING_MORE)) != NOTHING_MORE:
            raise _damaged()
        self._members(dimension, clusters, count, are_means=levels < MOST_LEVELS)
        return dimension, count

    def _members(self, dimension: int, clusters: int, count: int, *, are_means: bool) -> None:
        if self._take(4) != b"ilar" or self._number() != clusters:
            raise _damaged()
        if self._number() != 4 * dimension:
            raise _damaged()
        kind, entries = self._take(4), self._number()
        numbers = np.frombuffer(self._take(8 * entries), "<u8")
        if kind == b"full" and entries == clusters:
            sizes: npt.NDArray[np.uint64] = numbers
        elif kind == b"sprs" and entries % 2 == 0:
            listed = numbers[::2]
            if (listed >= clusters).any() or (listed[1:] <= listed[:-1]).any():
                raise _damaged()
            sizes = numbers[1::2]
        else:
            raise _damaged()
        if (sizes > count).any() or sum(sizes.tolist()) != count:
            raise _damaged()
        if not are_means:
            self._skip(count * (4 * dimension + 8))
            return
        # The number of a mean is that of a cluster.
        for size in sizes.tolist():
            self._skip(4 * dimension * size)
            if (np.frombuffer(self._take(8 * size), "<u8") >= count).any():
                raise _damaged()

    def _number(self) -> int:
        number: int = NUMBER.unpack(self._take(NUMBER.size))[0]
        return number

    def _take(self, count: int) -> bytes:
        self._account(count)
        taken = self._handle.read(count)
        if len(taken) != count:
            raise _damaged()
        return taken

    def _skip(self, count: int) -> None:
        self._account(count)
        self._handle.seek(count, 1)

    def _account(self, count: int) -> None:
        if count > self._left:
            raise _damaged()
        self._left -= count


def check_layout(handle: BinaryIO, size: int) -> None:
    """Check the file of an index, whose bytes are not read but for its sizes.

    Args:
        handle: the file, at its beginning.
        size: bytes of it that belong to the index.

    Raises:
        InputError: it is not laid out as `ClusterIndex` writes it.
    """
    _Layout(handle, size).check()


def _damaged() -> InputError:
    return InputError("not laid out as a cluster index is")
