"""Rows of floats on disk, each found again by a key: what a network gives is kept.

A store is two files in a folder: NAME.bin, rows of floats, and keys.bin, for each row a digest of
32 bytes and the number of rows that there are once its block is written. Rows are only ever
appended, a block at a time: first the rows, then their keys. So a run that is stopped at any
instant leaves whole blocks; what is torn is passed over, and cut off by the next one.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import FloatArray
from deep_ranking.files.errors import InputError
from deep_ranking.files.words import byte_size
from deep_ranking.files.writing import make_folder

KEY_BYTES = 32
MOST_TORN = 1 << 20
"""Rows at the end that a run may have left half written: more than any block has."""
RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("end", "<u8")])


class RowStore:
    """One folder of rows. The caller sees to it that one process writes at a time.

    Args:
        folder: made if it is not there.
        name: of the file of rows, without its ending.
        width: floats a row.
        dtype: float16 or float32.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, name: str, width: int, dtype: npt.DTypeLike) -> None:
        # To read, no permission to write is needed.
        self.folder = folder if folder.is_dir() else make_folder(folder)
        self.width = width
        self.dtype = np.dtype(dtype)
        self._rows = self.folder / f"{name}.bin"
        self._keys = self.folder / "keys.bin"

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes on disk, besides its key."""
        return self.dtype.itemsize * self.width

    def keys(self) -> list[bytes]:
        """Give the key of each row."""
        return [bytes(record) for record in self._records()["key"]]

    def find(self) -> dict[bytes, int]:
        """Give the row of each key."""
        return {key: row for row, key in enumerate(self.keys())}

    def __len__(self) -> int:
        return len(self._records())

    def rows(self) -> FloatArray:
        """Map the rows into memory, read-only: (rows, width)."""
        count = len(self)
        if not count:  # an empty file cannot be mapped
            return np.empty((0, self.width), self.dtype)
        return np.memmap(self._rows, self.dtype, "r", shape=(count, self.width))

    def extend(self, blocks: Iterable[tuple[Sequence[bytes], FloatArray]]) -> None:
        """Append rows.

        Args:
            blocks: keys of some rows, and the rows, float (rows, width); what the type of the store
                cannot hold is clipped. Of a block, all rows are kept or none.

        Raises:
            InputError: the disk is full.
        """
        count, largest = len(self), np.finfo(self.dtype).max
        try:
            with self._rows.open("ab") as rows, self._keys.open("ab") as keys:
                rows.truncate(count * self.row_bytes)
                keys.truncate(count * RECORD.itemsize)
                for names, block in blocks:
                    count += len(names)
                    rows.write(np.clip(block, -largest, largest).astype(self.dtype).tobytes())
                    rows.flush()
                    os.fsync(rows.fileno())  # no key without its row, be it after a power cut
                    records = np.empty(len(names), RECORD)
                    records["key"] = np.array(names, RECORD["key"])
                    records["end"] = count
                    keys.write(records.tobytes())
                    keys.flush()
                os.fsync(keys.fileno())  # who notes these rows elsewhere finds them again
        except OSError as error:
            raise InputError(f"{self._rows}: cannot be written ({error.strerror})") from None

    def check_space(self, num_rows: int, hint: str) -> None:
        """Complain before the work if the disk has no room for so many more rows.

        Args:
            num_rows: how many are to come.
            hint: what to do about it.

        Raises:
            InputError: with what is needed and what is free.
        """
        needed, free = num_rows * self.row_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise InputError(
                f"{self.folder}: {num_rows:,} more rows take {byte_size(needed)}, and "
                f"{byte_size(free)} are free; {hint}"
            )

    def _records(self) -> npt.NDArray[np.void]:
        """Records of all whole blocks."""
        if not (self._keys.exists() and self._rows.exists()):
            return np.empty(0, RECORD)
        for file in (self._keys, self._rows):
            if not file.is_file():
                raise InputError(f"{file}: not a regular file")
        count = self._keys.stat().st_size // RECORD.itemsize
        count = min(count, self._rows.stat().st_size // self.row_bytes)
        if not count:  # an empty file cannot be mapped
            return np.empty(0, RECORD)
        records = np.memmap(self._keys, RECORD, "r", shape=(count,))
        begin = max(0, count - MOST_TORN)
        whole = np.flatnonzero(records["end"][begin:] == np.arange(begin + 1, count + 1))
        if not len(whole) and begin:
            raise InputError(
                f"{self._keys}: its last {MOST_TORN:,} rows are none that were written whole; "
                "remove the folder to compute all anew"
            )
        return records[: begin + whole[-1] + 1 if len(whole) else 0]
