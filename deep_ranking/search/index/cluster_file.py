"""Check the whole layout of a cluster index file before faiss opens it.

faiss's C++ reader trusts the sizes in a file, and opens any of its many kinds of index; wrong sizes
crash the process. So this module first reads the file number by number, and accepts only the layout
that `ClusterIndex` writes. All numbers are little-endian:

index      "IwFl", head, clusters u64, probes u64, quantizer, 9 zero bytes, members
quantizer  the means: "IxF2", head, floats u64, floats; or again an index
head       dimension i32, vectors i64, 16 bytes of any value, trained u8, metric i32
members    "ilar", clusters u64, bytes a vector u64, sizes, then for each cluster its vectors and
           their numbers i64
sizes      "full", entries u64, one u64 a cluster; or "sprs", entries u64, pairs of u64 (cluster,
           size), the clusters rising
"""

import struct
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError

KIND, NUMBER = struct.Struct("<4s"), struct.Struct("<Q")
HEAD = struct.Struct("<iq16xBi")
EUCLIDEAN = 1
NO_MAP = bytes(9)  # no map from a vector's number to its cluster
MAX_DIMENSION = 8192
MOST_LEVELS = 2


def check_layout(handle: BinaryIO, size: int) -> int:
    """Check the layout of an index file; read only its sizes and skip the vectors.

    Args:
        handle: the file, at its beginning.
        size: bytes in the file that belong to the index.

    Returns:
        The place of the first byte of the members, which end the index.

    Raises:
        InputError: the layout is not the one that `ClusterIndex` writes.
    """
    reader = _LayoutReader(handle, size)
    reader.read_index(MOST_LEVELS)
    _require(reader.left == 0)
    return reader.members_begin


class _LayoutReader:
    """Read an index file in order, and refuse what `ClusterIndex` does not write."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle = handle
        self._size = self.left = size
        self.members_begin = 0

    def read_index(self, levels: int) -> tuple[int, int]:
        """Read an index; return the dimension and the number of its vectors."""
        (kind,) = KIND.unpack(self._read(KIND.size))
        dimension, count, trained, metric = HEAD.unpack(self._read(HEAD.size))
        _require(1 <= dimension <= MAX_DIMENSION and count >= 0)
        _require((trained, metric) == (1, EUCLIDEAN))
        if kind == b"IxF2" and levels < MOST_LEVELS:
            _require(self._read_number() == count * dimension)
            self._skip(4 * dimension * count)
            return dimension, count
        _require(kind == b"IwFl" and levels > 0)
        clusters = self._read_number()
        self._read_number()  # probes: any value
        _require(self.read_index(levels - 1) == (dimension, clusters) and clusters > 0)
        _require(self._read(len(NO_MAP)) == NO_MAP)
        self._read_members(dimension, clusters, count, are_means=levels < MOST_LEVELS)
        return dimension, count

    def _read_members(self, dimension: int, clusters: int, count: int, *, are_means: bool) -> None:
        _require(self._read(4) == b"ilar" and self._read_number() == clusters)
        _require(self._read_number() == 4 * dimension)
        sizes = self._read_sizes(clusters)
        _require(bool((sizes <= count).all()) and sum(sizes.tolist()) == count)
        if not are_means:
            self.members_begin = self._size - self.left
            self._skip(count * (4 * dimension + 8))
            return
        # A mean's number is the number of its cluster.
        for size in sizes.tolist():
            self._skip(4 * dimension * size)
            _require(bool((np.frombuffer(self._read(8 * size), "<u8") < count).all()))

    def _read_sizes(self, clusters: int) -> npt.NDArray[np.uint64]:
        """Read the sizes of the clusters that are listed."""
        kind, entries = self._read(4), self._read_number()
        numbers = np.frombuffer(self._read(8 * entries), "<u8")
        if kind == b"full":
            _require(entries == clusters)
            return numbers
        _require(kind == b"sprs" and entries % 2 == 0)
        listed = numbers[::2]
        _require(bool((listed < clusters).all() and (listed[1:] > listed[:-1]).all()))
        return numbers[1::2]

    def _read_number(self) -> int:
        number: int = NUMBER.unpack(self._read(NUMBER.size))[0]
        return number

    def _read(self, count: int) -> bytes:
        self._take(count)
        data = self._handle.read(count)
        _require(len(data) == count)
        return data

    def _skip(self, count: int) -> None:
        self._take(count)
        self._handle.seek(count, 1)

    def _take(self, count: int) -> None:
        """Subtract bytes from those that are left."""
        _require(count <= self.left)
        self.left -= count


def _require(condition: bool) -> None:
    if not condition:
        raise InputError("not laid out as a cluster index is")
