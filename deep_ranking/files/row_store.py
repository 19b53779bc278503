"""Rows of floats on disk, each found again by a key, with a checksum for each block of rows.

A store is three files in a folder:

NAME.bin    the rows
keys.bin    for each row its key, 32 bytes, and the number of rows at the end of its block, u64
blocks.bin  for each block the number of rows at its end, u64, and the SHA-256 of what keys.bin and
            NAME.bin hold of it

Rows are only appended, a block at a time: first the rows, then their checksum, then their keys. A
run that is stopped at any instant leaves whole blocks. What is torn is ignored, and the next run
cuts it off. A store without blocks.bin, as earlier versions leave it, is trusted, and gets
checksums when the next rows are appended.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float32Array, FloatArray, Int64Array
from deep_ranking.files.errors import InputError
from deep_ranking.files.stored_rows import StoredRows, checksum
from deep_ranking.files.words import byte_size
from deep_ranking.files.writing import make_folder

if TYPE_CHECKING:
    from filelock import FileLock

KEY_BYTES = 32
MAX_TORN_ROWS = 1 << 20
"""Rows at the end that a stopped run may have left half written: more than any block has."""
RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("end", "<u8")])
BLOCK = np.dtype([("end", "<u8"), ("checksum", "V32")])


class RowStore:
    """A folder of rows. The caller makes sure that only one process writes at a time: see `lock`.

    Args:
        folder: created if it does not exist.
        name: name of the file of rows, without its suffix.
        width: floats in a row.
        dtype: float16 or float32.
        remedy: what the user can do about damaged rows.

    Attributes:
        row_bytes: bytes of a row on disk, without its key.

    Raises:
        InputError: the folder cannot be created.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        width: int,
        dtype: npt.DTypeLike,
        *,
        remedy: str = "remove the folder to compute all rows again",
    ) -> None:
        # Reading needs no permission to write.
        self.folder = folder if folder.is_dir() else make_folder(folder)
        self.width = width
        self.dtype = np.dtype(dtype)
        self.row_bytes = self.dtype.itemsize * width
        self._remedy = remedy
        self._rows = self.folder / f"{name}.bin"
        self._keys = self.folder / "keys.bin"
        self._blocks = self.folder / "blocks.bin"

    def keys(self) -> list[bytes]:
        """Return the key of each row."""
        return [bytes(record) for record in self._records()["key"]]

    def record_keys(self) -> npt.NDArray[np.void]:
        """Return the key of each row, 32 bytes each, memory-mapped: void (rows,)."""
        return self._records()["key"]

    def find(self) -> dict[bytes, int]:
        """Return the row of each key; the last one of a key that was appended twice."""
        return {key: row for row, key in enumerate(self.keys())}

    def __len__(self) -> int:
        return len(self._records())

    def rows(self) -> StoredRows:
        """Return the rows, memory-mapped and read-only.

        Raises:
            InputError: blocks.bin is damaged.
        """
        records = self._records()
        rows, blocks = self._mapped_rows(len(records)), self._checked_blocks(len(records))
        return StoredRows(rows, records, blocks, file=self._rows, remedy=self._remedy)

    @cached_property
    def lock(self) -> "FileLock":
        """Held by whoever writes, where nothing else keeps two writers apart."""
        from filelock import FileLock

        return FileLock(self.folder / "lock")

    def extend(self, blocks: Iterable[tuple[Sequence[bytes], FloatArray]]) -> None:
        """Append rows.

        Args:
            blocks: the keys of some rows, and the rows, float (rows, width). Values that the type
                of the store cannot hold are clipped. A block is kept as a whole or not at all.

        Raises:
            InputError: the disk is full, or blocks.bin is damaged.
        """
        records = self._records()
        count, largest = len(records), np.finfo(self.dtype).max
        checked = self._checked_blocks(count)
        try:
            with (
                self._rows.open("ab") as rows,
                self._blocks.open("ab") as checksums,
                self._keys.open("ab") as keys,
            ):
                rows.truncate(count * self.row_bytes)
                checksums.truncate(len(checked) * BLOCK.itemsize)
                keys.truncate(count * RECORD.itemsize)
                checksums.writelines(self._missing_checksums(records, checked))
                for names, block in blocks:
                    if not names:
                        continue
                    count += len(names)
                    written = np.clip(block, -largest, largest).astype(self.dtype)
                    added = np.empty(len(names), RECORD)
                    added["key"] = np.array(names, RECORD["key"])
                    added["end"] = count
                    rows.write(written.tobytes())
                    checksums.write(_block(count, added, written))
                    # No key without its row and its checksum, even after a power cut.
                    for file in (rows, checksums):
                        file.flush()
                        os.fsync(file.fileno())
                    keys.write(added.tobytes())
                    keys.flush()
                os.fsync(keys.fileno())  # rows that other files refer to must survive a crash
        except OSError as error:
            raise InputError(f"{self._rows}: cannot be written ({error.strerror})") from None

    def cut(self, count: int) -> None:
        """Take back the rows from `count` on, which must be the end of a block.

        Raises:
            InputError: the files cannot be written, or blocks.bin is damaged.
        """
        num_blocks = len(self._checked_blocks(count))
        lengths = {
            self._keys: count * RECORD.itemsize,  # first: a row without its key is torn
            self._blocks: num_blocks * BLOCK.itemsize,
            self._rows: count * self.row_bytes,
        }
        try:
            for file, length in lengths.items():
                if file.exists() and file.stat().st_size > length:
                    os.truncate(file, length)
        except OSError as error:
            raise InputError(f"{self._rows}: cannot be written ({error.strerror})") from None

    def check_space(self, num_rows: int, hint: str) -> None:
        """Check before the work that the disk has room for more rows.

        Args:
            num_rows: how many are to come.
            hint: what to do about a lack of room.

        Raises:
            InputError: with what is needed and what is free.
        """
        needed, free = num_rows * self.row_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise InputError(
                f"{self.folder}: {num_rows:,} more rows take {byte_size(needed)}, and "
                f"{byte_size(free)} are free; {hint}"
            )

    def _mapped_rows(self, count: int) -> FloatArray:
        return _mapped(self._rows, self.dtype, (count, self.width))

    def _records(self) -> npt.NDArray[np.void]:
        """Return the records of all whole blocks."""
        for file in (self._keys, self._rows, self._blocks):
            if file.exists() and not file.is_file():  # it may be a FIFO, which never ends
                raise InputError(f"{file}: not a regular file")
        if not (self._keys.exists() and self._rows.exists()):
            return np.empty(0, RECORD)
        count = self._keys.stat().st_size // RECORD.itemsize
        count = min(count, self._rows.stat().st_size // self.row_bytes)
        records = _mapped(self._keys, RECORD, (count,))
        begin = max(0, count - MAX_TORN_ROWS)
        ends = _block_ends(records, begin)
        if not len(ends) and begin:
            raise InputError(
                f"{self._keys}: damaged: none of its last {MAX_TORN_ROWS:,} rows ends a block; "
                "remove this file to compute all rows again"
            )
        return records[: ends[-1] if len(ends) else 0]

    def _checked_blocks(self, count: int) -> npt.NDArray[np.void]:
        """Return what blocks.bin holds of the first `count` rows.

        Earlier versions write no checksums, so the last blocks may lack theirs.
        """
        if not self._blocks.exists():
            return np.empty(0, BLOCK)
        # A block has a row at least. One more may have been written before a run was stopped.
        num_blocks = min(self._blocks.stat().st_size // BLOCK.itemsize, count + 1)
        blocks = _mapped(self._blocks, BLOCK, (num_blocks,))
        ends = np.trim_zeros(np.array(blocks["end"]), "b")  # a power cut may leave zeros at the end
        blocks = blocks[: int(np.searchsorted(ends, count, side="right"))]
        if len(blocks) and not (ends[0] > 0 and (ends[1:] > ends[:-1])[: len(blocks) - 1].all()):
            raise InputError(
                f"{self._blocks}: damaged: its blocks are not in order; remove this file, and the "
                "next rows written make it anew"
            )
        return blocks

    def _missing_checksums(
        self, records: npt.NDArray[np.void], checked: npt.NDArray[np.void]
    ) -> Iterator[bytes]:
        """Yield checksums of the blocks that have none, as earlier versions left them."""
        begin = int(checked["end"][-1]) if len(checked) else 0
        rows = self._mapped_rows(len(records))
        for end in _block_ends(records, begin).tolist():
            yield _block(end, records[begin:end], rows[begin:end])
            begin = end


def _block_ends(records: npt.NDArray[np.void], begin: int) -> Int64Array:
    """Return the number of rows at the end of each block from row `begin` on.

    Only the last row of a block says so. Where that row is damaged, its block and the next count as
    one; damage to the same number of other rows does no harm.
    """
    numbers = np.arange(begin + 1, len(records) + 1)
    ends: Int64Array = numbers[records["end"][begin:] == numbers]
    return ends


def _block(end: int, records: npt.NDArray[np.void], rows: FloatArray) -> bytes:
    return np.array((end, checksum(records, rows)), BLOCK).tobytes()


def _mapped(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if not shape[0]:  # an empty file cannot be mapped
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", shape=shape)


@contextmanager
def temporary_rows(count: int, width: int) -> Iterator[Float32Array]:
    """Yield rows in a temporary file, so that memory stays bounded; their room is reserved.

    Args:
        count: number of images.
        width: floats in a row.

    Yields:
        float32 (count, width), zeros, memory-mapped; gone when the block ends.

    Raises:
        InputError: the disk is full.
    """
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):  # a full disk would end the process (SIGBUS)
                os.posix_fallocate(file.fileno(), 0, max(1, 4 * count * width))
            rows = np.memmap(file, np.float32, "w+", shape=(count, width))
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room for the embeddings of {count:,} images "
                f"({error.strerror}); free some, or name another folder in TMPDIR"
            ) from None
        yield rows
