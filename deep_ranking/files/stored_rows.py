"""The rows of a store on disk, memory-mapped, and checked by their checksums when they are read."""

import hashlib
import mmap
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import FloatArray, Int64Array
from deep_ranking.files.errors import InputError
from deep_ranking.files.progress_bar import progress_bar

LARGE_BYTES = 1 << 28
"""A smaller file of rows stays in the memory of the process, once it is read."""
SCATTERED_AT_ONCE = 32


class StoredRows:
    """The rows of a store, memory-mapped; a block is checked when one of its rows is first read.

    It is indexed as an array is, by a number, a slice or an array of numbers, and returns arrays.

    Attributes:
        shape: (rows, width).
        dtype: float16 or float32.
        path: the file of the rows.

    Args:
        rows: (rows, width), memory-mapped.
        records: what keys.bin holds of the rows.
        blocks: what blocks.bin holds of them; none where they have no checksums.
        file: the file of the rows, for error messages.
        remedy: what the user can do about damaged rows.
    """

    def __init__(
        self,
        rows: FloatArray,
        records: npt.NDArray[np.void],
        blocks: npt.NDArray[np.void],
        *,
        file: Path,
        remedy: str,
    ) -> None:
        self._rows = rows
        self._records = records
        self._ends = np.array(blocks["end"], np.int64)
        self._checksums = blocks["checksum"]
        self._unchecked = np.ones(len(self._ends), bool)
        self.path = file
        self._remedy = remedy
        self.shape: tuple[int, int] = (rows.shape[0], rows.shape[1])
        self.dtype = rows.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Read rows as an array does.

        Raises:
            InputError: a block of theirs is damaged.
        """
        self._check(index)
        if isinstance(index, np.ndarray) and index.ndim == 1 and self._rows.nbytes >= LARGE_BYTES:
            return self._scattered(np.flatnonzero(index) if index.dtype == bool else index)
        return self._rows[index]

    def _scattered(self, numbers: Int64Array) -> FloatArray:
        """Copy some rows; for each of them the system maps up to 2 MB of the file."""
        found = np.empty((len(numbers), self.shape[1]), self.dtype)
        for begin in range(0, len(numbers), SCATTERED_AT_ONCE):
            part = slice(begin, begin + SCATTERED_AT_ONCE)
            found[part] = self._rows[numbers[part]]
            self.release(0, len(self))
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Read all rows; `np.asarray` calls it."""
        return np.array(self[:], dtype, copy=copy)

    def release(self, begin: int, end: int) -> None:
        """Take the pages of some rows of a large store out of this process.

        The system's cache keeps them. A scan of all rows calls it, so that the memory of the
        process does not grow with the rows.
        """
        if self._rows.nbytes >= LARGE_BYTES:
            _release(self._rows, begin, end)
            _release(self._records, begin, end)

    def damaged(self) -> Int64Array:
        """Check all rows, and return the numbers of those in damaged blocks: int64 (rows,)."""
        bad = [
            np.arange(*self._limits(block))
            for block in progress_bar(range(len(self._ends)), title="checking", unit="blocks")
            if not self._is_whole(block)
        ]
        return np.concatenate(bad) if bad else np.empty(0, np.int64)

    def _check(self, index: Any) -> None:
        if not self._unchecked.any():
            return
        if isinstance(index, tuple):
            index = index[0]
        if isinstance(index, slice):
            touched = np.arange(*index.indices(len(self)))
        else:
            touched = np.asarray(index)
            if touched.dtype == bool:
                touched = np.flatnonzero(touched)
            touched = np.where(touched < 0, touched + len(self), touched).ravel()
        blocks = np.unique(np.searchsorted(self._ends, touched, side="right"))
        for block in blocks[blocks < len(self._ends)]:
            if self._unchecked[block] and not self._is_whole(block):
                begin, end = self._limits(block)
                raise InputError(
                    f"{self.path}: damaged: rows {begin:,} to {end - 1:,} are not what was "
                    f"written, by their checksum; {self._remedy}"
                )
            self._unchecked[block] = False

    def _is_whole(self, block: int) -> bool:
        begin, end = self._limits(block)
        found = checksum(self._records[begin:end], self._rows[begin:end])
        self.release(begin, end)
        return bool(self._checksums[block].tobytes() == found)

    def _limits(self, block: int) -> tuple[int, int]:
        return int(self._ends[block - 1]) if block else 0, int(self._ends[block])


def _release(mapped: npt.NDArray[Any], begin: int, end: int) -> None:
    """Take the pages of some entries of a mapped file out of this process."""
    memory = getattr(mapped, "_mmap", None)
    if memory is None or end <= begin or not hasattr(mmap, "MADV_DONTNEED"):  # not on every system
        return
    first = begin * mapped.strides[0] // mmap.PAGESIZE * mmap.PAGESIZE
    memory.madvise(mmap.MADV_DONTNEED, first, end * mapped.strides[0] - first)


class Rows(Protocol):
    """(rows, width), of one store or several, or in memory; indexed as an array is."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def checksum(records: npt.NDArray[np.void], rows: FloatArray) -> bytes:
    """Return the checksum of a block: the SHA-256 of its records and its rows."""
    digest = hashlib.sha256(records.tobytes())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.digest()
