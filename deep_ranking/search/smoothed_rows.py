"""The smoothed rows of a collection on disk, beside its embeddings: `smoothed.bin`.

The file is replaced as a whole. It holds, one after the other:

rows      float (rows, dim), of the type of the embeddings; row i is the smoothed row i of
          embeddings.bin, zeros where no image uses that row
records   for each row the key of its content (32 bytes), its K nearest rows (i64, itself first, -1
          for none) and their similarities (f32)
blocks    for each 256 rows the number of rows at their end (u64) and the SHA-256 of their records
          and rows
ending    "smoothed rows", K (u64), power (f64), rows (u64), and the SHA-256 of the blocks and of
          these numbers

The records are what an update needs to find the rows that change. All numbers are little-endian.
"""

import hashlib
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError, atomic_path, open_regular
from deep_ranking.files.array_types import BoolArray, Float32Array, Int64Array
from deep_ranking.files.row_store import BLOCK, KEY_BYTES
from deep_ranking.files.stored_rows import StoredRows, checksum
from deep_ranking.search.collection.own_files import SMOOTHED
from deep_ranking.search.collection.settings import MOST_NEIGHBOURS, MOST_POWER
from deep_ranking.search.smoothing import NearestRows

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection

MAGIC = b"smoothed rows"
ENDING = struct.Struct("<16sQdQ32s")
ROWS_IN_BLOCK = 256
MOST_ROWS = 1 << 40
REMEDY = "remove it and run `index` again, which smooths the rows anew"


class SmoothedRows(NamedTuple):
    """The smoothed rows of a collection, memory-mapped, and checked when they are read.

    Attributes:
        rows: (all rows, dim), unit rows; those that are not in use are zeros.
        records: (all rows,) with the fields `key`, `neighbours` and `similarities`.
        num_neighbours: K.
        power: of the similarity.
        state: 32 hexadecimal digits that tell this content from any other.
        file: where they are.
    """

    rows: StoredRows
    records: npt.NDArray[np.void]
    num_neighbours: int
    power: float
    state: str
    file: Path

    def in_use(self) -> Int64Array:
        """Return the rows that are smoothed, rising: int64 (rows,)."""
        return self.those_in_use(np.arange(len(self.records)))

    def those_in_use(self, rows: Int64Array) -> Int64Array:
        """Return those of some rows that are smoothed: int64 (rows,)."""
        rows = rows[rows < len(self.records)]
        found: Int64Array = rows[self.records["neighbours"][rows, 0] == rows]
        return found

    def nearest(self, rows: Int64Array) -> NearestRows:
        """Return the nearest rows of some rows in use.

        Raises:
            InputError: the file is damaged, or lies.
        """
        self.rows[rows]  # checks them and their records
        found = self.records[rows]
        neighbours = np.array(found["neighbours"], np.int64)
        if len(rows) and not (neighbours.min() >= -1 and neighbours.max() < len(self.records)):
            raise InputError(f"{self.file}: holds an invalid row number; {REMEDY}")
        return NearestRows(neighbours, np.array(found["similarities"], np.float32))


def read_smoothed(collection: "Collection") -> SmoothedRows:
    """Open the smoothed rows of a collection.

    Raises:
        FileNotFoundError: there are none.
        InputError: the file is damaged.
    """
    file = collection.folder / SMOOTHED
    settings = collection.settings
    refused = InputError(f"{file}: cut off, or damaged; {REMEDY}")
    try:
        with open_regular(file) as handle:
            end = max(0, handle.seek(0, os.SEEK_END) - ENDING.size)
            handle.seek(end)
            magic, count, power, num_rows, digest = ENDING.unpack(handle.read())
            if not (
                magic.rstrip(b"\0") == MAGIC
                and 2 <= count <= MOST_NEIGHBOURS
                and 0 < power <= MOST_POWER
                and num_rows <= MOST_ROWS
            ):
                raise refused
            row, record = _row_type(settings.dtype, settings.dimension), _record_type(count)
            num_blocks = math.ceil(num_rows / ROWS_IN_BLOCK)
            begins = np.cumsum([0, num_rows * row.itemsize, num_rows * record.itemsize]).tolist()
            if begins[2] + num_blocks * BLOCK.itemsize != end:
                raise refused
            handle.seek(begins[2])
            blocks = np.frombuffer(handle.read(end - begins[2]), BLOCK)
            if _digest(blocks, count, power, num_rows) != digest or not _are_whole(
                blocks, num_rows
            ):
                raise refused
            if not num_rows:
                rows, records = np.empty(0, row), np.empty(0, record)
            else:  # of the open file: the path may be another file by now
                rows = np.memmap(handle, row, "r", begins[0], (num_rows,))
                records = np.memmap(handle, record, "r", begins[1], (num_rows,))
    except FileNotFoundError:
        raise
    except (OSError, struct.error, ValueError, OverflowError):
        raise refused from None
    stored = StoredRows(rows["row"], records, blocks, file=file, remedy=REMEDY)
    return SmoothedRows(stored, records, count, power, digest.hex()[:32], file)


def smoothed_rows_of(collection: "Collection") -> SmoothedRows:
    """Open the smoothed rows of a collection that a search is to rank by.

    Raises:
        InputError: it is not smoothed, or its file is gone or damaged.
    """
    folder = collection.folder
    if collection.settings.smoothing is None:
        raise InputError(
            f"{folder}: has no smoothed rows; make them with: python -m deep_ranking index "
            f"--output {folder} --smooth"
        )
    try:
        return read_smoothed(collection)
    except FileNotFoundError:
        raise InputError(
            f"{folder / SMOOTHED}: missing; run index --output {folder} again, which smooths the "
            "rows anew"
        ) from None


class SmoothedWriter:
    """Writes the smoothed rows of a collection: blocks of 256 rows, one after the other.

    Args:
        handle: the file, open to write, empty.
        num_rows: rows of the collection, in use or not.
        num_neighbours: K.
        power: of the similarity.
        dtype: of the rows on disk.
        width: floats in a row.
    """

    def __init__(
        self,
        handle: Any,
        num_rows: int,
        num_neighbours: int,
        power: float,
        *,
        dtype: str,
        width: int,
    ) -> None:
        self._handle = handle
        self._num_rows = num_rows
        self._made_by = num_neighbours, power
        self._row = _row_type(dtype, width)
        self._record = _record_type(num_neighbours)
        self._blocks: list[tuple[int, bytes]] = []
        self._written = 0

    def write(
        self,
        keys: npt.NDArray[np.void],
        in_use: BoolArray,
        nearest: NearestRows,
        rows: Float32Array,
    ) -> None:
        """Write the next rows, a multiple of 256, or the last ones.

        Args:
            keys: (rows,) of their contents.
            in_use: bool (rows,).
            nearest: the nearest of those in use.
            rows: float32 (in use, dim), smoothed.
        """
        records = np.zeros(len(keys), self._record)
        records["neighbours"] = -1
        records["key"] = keys
        records["neighbours"][in_use], records["similarities"][in_use] = nearest
        written = np.zeros(len(keys), self._row)
        written["row"][in_use] = rows
        begin = self._written
        self._handle.seek(begin * self._row.itemsize)
        self._handle.write(written.tobytes())
        self._handle.seek(self._num_rows * self._row.itemsize + begin * self._record.itemsize)
        self._handle.write(records.tobytes())
        for first in range(0, len(keys), ROWS_IN_BLOCK):
            part = slice(first, first + ROWS_IN_BLOCK)
            end = begin + min(first + ROWS_IN_BLOCK, len(keys))
            self._blocks.append((end, checksum(records[part], written["row"][part])))
        self._written += len(keys)

    def finish(self) -> None:
        """Write what follows the rows."""
        blocks = np.array(self._blocks, BLOCK)
        count, power = self._made_by
        digest = _digest(blocks, count, power, self._num_rows)
        self._handle.seek(self._num_rows * (self._row.itemsize + self._record.itemsize))
        self._handle.write(blocks.tobytes())
        self._handle.write(ENDING.pack(MAGIC, count, power, self._num_rows, digest))

    @classmethod
    @contextmanager
    def replacing(
        cls, collection: "Collection", num_rows: int, num_neighbours: int, power: float
    ) -> Iterator[Self]:
        """Yield a writer, and replace the smoothed rows of a collection at the end.

        Raises:
            InputError: the disk is full.
        """
        settings = collection.settings
        with (
            atomic_path(collection.folder / SMOOTHED) as temporary,
            temporary.open("wb") as handle,
        ):
            writer = cls(
                handle,
                num_rows,
                num_neighbours,
                power,
                dtype=settings.dtype,
                width=settings.dimension,
            )
            yield writer
            writer.finish()


def _row_type(dtype: str, width: int) -> np.dtype[Any]:
    return np.dtype([("row", dtype, (width,))])


def _record_type(num_neighbours: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("key", f"V{KEY_BYTES}"),
            ("neighbours", "<i8", (num_neighbours,)),
            ("similarities", "<f4", (num_neighbours,)),
        ]
    )


def _are_whole(blocks: npt.NDArray[np.void], num_rows: int) -> bool:
    ends = np.minimum(np.arange(1, len(blocks) + 1) * ROWS_IN_BLOCK, num_rows)
    return bool((blocks["end"] == ends).all())


def _digest(blocks: npt.NDArray[np.void], count: int, power: float, num_rows: int) -> bytes:
    numbers = struct.pack("<QdQ", count, power, num_rows)
    return hashlib.sha256(blocks.tobytes() + numbers).digest()
