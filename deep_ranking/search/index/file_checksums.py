"""Checksums of the parts of a memory-mapped file, so that only what is read has to be checked.

They follow the content: the SHA-256 of each mebibyte of it, then the SHA-256 of all of these.
"""

import hashlib
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deep_ranking.files.array_types import Int64Array

PART_BYTES = 1 << 20
CHECKSUM_BYTES = 32


def part_checksums(file: Path) -> bytes:
    """Return what is to follow the content of a file."""
    content = np.memmap(file, np.uint8, "r")
    checksums = b"".join(
        hashlib.sha256(content[begin : begin + PART_BYTES].data).digest()
        for begin in range(0, len(content), PART_BYTES)
    )
    return checksums + hashlib.sha256(checksums).digest()


def checksums_bytes(size: int) -> int:
    """Return how many bytes follow a content of `size` bytes."""
    return (math.ceil(size / PART_BYTES) + 1) * CHECKSUM_BYTES


class CheckedParts:
    """The parts of a file, each of which is checked once.

    Args:
        file: the file, open for reading.
        size: bytes of its content, which its checksums follow.

    Raises:
        ValueError: the checksums themselves are damaged.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        # The mapping outlives a file that is closed or replaced, as faiss's own does.
        self._bytes = np.memmap(file, np.uint8, "r")
        self._size = size
        end = size + checksums_bytes(size)
        checksums = self._bytes[size : end - CHECKSUM_BYTES].tobytes()
        whole = self._bytes[end - CHECKSUM_BYTES : end].tobytes()
        if hashlib.sha256(checksums).digest() != whole:
            raise ValueError("the checksums are damaged")
        self._checksums = np.frombuffer(checksums, f"V{CHECKSUM_BYTES}")
        self._unchecked = np.ones(len(self._checksums), bool)

    @property
    def are_checked(self) -> bool:
        """Whether all parts were checked."""
        return not self._unchecked.any()

    def are_whole(self, begins: Int64Array, ends: Int64Array) -> bool:
        """Return whether the parts that hold some ranges of bytes are what was written.

        Args:
            begins: int64 (ranges,), the first byte of each.
            ends: int64 (ranges,), the byte after the last of each.
        """
        touched = np.zeros(len(self._checksums) + 1, np.int64)
        filled = ends > begins
        np.add.at(touched, begins[filled] // PART_BYTES, 1)
        np.add.at(touched, (ends[filled] - 1) // PART_BYTES + 1, -1)
        for part in np.flatnonzero((np.cumsum(touched)[:-1] > 0) & self._unchecked):
            begin = int(part) * PART_BYTES
            content = self._bytes[begin : min(begin + PART_BYTES, self._size)]
            if hashlib.sha256(content.data).digest() != self._checksums[part].tobytes():
                return False
            self._unchecked[part] = False
        return True
