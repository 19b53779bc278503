"""Read a Parquet table of paths and vectors, which may come from any program or from a stranger.

What the file says of its own size is checked before a column is read, so that a small file cannot
fill the memory: a vector's column must hold as many numbers as the rows need, and texts must be of
a reasonable length. Rows are read a block at a time. pyarrow ends the process if the metadata of a
column are damaged in some ways, so a process of its own reads these sizes.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from deep_ranking.files import InputError, open_regular
from deep_ranking.files.array_types import Float32Array
from deep_ranking.search.table.format import (
    CLASS,
    METADATA_KEY,
    PATH,
    VECTOR,
    TableOrigin,
    check_pyarrow,
    path_problem,
)

ROWS_AT_ONCE = 4096
BYTES_AT_ONCE = 1 << 24
MOST_BYTES_OF_TEXT = 4096  # of a path or a class
LENGTH_TOLERANCE = 1e-3
Columns = dict[str, Any]
# Reads standard input; prints of each column of each row group: name, rows, values, bytes.
SIZES = """
import json, sys
import pyarrow.parquet as pq
groups = pq.read_metadata(sys.stdin.buffer)
found = []
for number in range(groups.num_row_groups):
    group = groups.row_group(number)
    for column in map(group.column, range(group.num_columns)):
        name = column.path_in_schema.split(".")[0]
        found.append([name, group.num_rows, column.num_values, column.total_uncompressed_size])
print(json.dumps(found))
"""


class TableRows(NamedTuple):
    """Some rows: the number of the first, paths, classes ("" for none; or None), unit vectors."""

    begin: int
    paths: list[str]
    labels: list[str] | None
    vectors: Float32Array


class TableFile:
    """An open table.

    Args:
        path: a Parquet file with a column `path` of text, a column `vector` of lists of floats and,
            if it has one, a column `class` of text. Other columns are not read.
        dimension: floats of a vector.

    Attributes:
        path: as given.
        origin: what the metadata says of the collection it was made of; None for other programs'.
        num_rows: rows that the file states.
        has_classes: whether it has the column `class`.

    Raises:
        InputError: pyarrow is missing, or the file is missing, damaged, or holds something else.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        check_pyarrow()
        import pyarrow.parquet as pq

        self.path = path
        self._dimension = dimension
        try:
            self._handle = open_regular(path)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; check --from_parquet") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be read ({reason})") from None
        try:
            with self._as_input_error():
                names = pq.read_schema(self._handle).names
                self._handle.seek(0)
                self._file = pq.ParquetFile(
                    self._handle,
                    # A long text of many rows is read once.
                    read_dictionary=[each for each in (PATH, CLASS) if each in names],
                    page_checksum_verification=True,
                )
                schema = self._file.schema_arrow
                self.num_rows: int = self._file.metadata.num_rows
            origin = (schema.metadata or {}).get(METADATA_KEY)
            self.origin = None if origin is None else TableOrigin.from_json(origin, path)
            self.has_classes = CLASS in schema.names
            self._check_schema(schema)
            self._check_sizes()
        except BaseException:
            self._handle.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def blocks(self) -> Iterator[TableRows]:
        """Yield all rows, some thousands at a time.

        Raises:
            InputError: a path is missing, no relative one, or has left the folder; a class is no
                text; a vector is missing, of another length than 1, or not of finite numbers; or
                the file is damaged. With the number of the row, counted from 0.
        """
        names = [PATH, *([CLASS] if self.has_classes else []), VECTOR]
        count = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // (8 * self._dimension)))
        begin = 0
        batches = self._batches(names, count)
        for batch in batches:
            paths = self._texts(batch[PATH], PATH, begin)
            for number, each in enumerate(paths, begin):
                if (wrong := path_problem(each)) is not None:
                    raise self.refusal(
                        number, f"the path {each!r} {wrong}; write it as cat/1.jpg, from --images"
                    )
            labels = None
            if self.has_classes:
                labels = [each or "" for each in self._texts(batch[CLASS], CLASS, begin)]
            yield TableRows(
                begin, [str(each) for each in paths], labels, self._vectors(batch[VECTOR], begin)
            )
            begin += len(paths)
        if begin != self.num_rows:
            raise InputError(
                f"{self.path}: damaged: it has {begin:,} rows and states {self.num_rows:,}"
            )

    def refusal(self, number: int, what: str) -> InputError:
        """Return the error about a row, by its number from 0."""
        return InputError(f"{self.path}: row {number:,}, counted from 0: {what}")

    def _batches(self, names: list[str], count: int) -> Iterator[Columns]:
        with self._as_input_error():
            for batch in self._file.iter_batches(count, columns=names, use_threads=False):
                batch.validate(full=True)  # texts are UTF-8, offsets in order
                yield {name: batch.column(name) for name in names}

    def _texts(self, column: Any, name: str, begin: int) -> list[str | None]:
        import pyarrow as pa
        import pyarrow.compute as pc

        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        if (pc.max(pc.binary_length(values)).as_py() or 0) > MOST_BYTES_OF_TEXT:
            raise self._too_long(name)
        texts: list[str | None] = column.to_pylist()
        for number, each in enumerate(texts, begin):
            if each is not None and "\0" in each:
                raise self.refusal(number, f"its {name} holds a zero byte; leave the row out")
        return texts

    def _vectors(self, column: Any, begin: int) -> Float32Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        if isinstance(column.type, pa.BaseExtensionType):
            column = column.storage
        lengths = np.asarray(pc.list_value_length(column).fill_null(-1))
        for number in np.flatnonzero(lengths != self._dimension)[:1].tolist():
            found = f"{lengths[number]:,} numbers" if lengths[number] >= 0 else "no vector"
            raise self.refusal(
                begin + number, f"has {found}; the model's vectors have {self._dimension:,}"
            )
        numbers = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
        vectors = numbers.reshape(len(lengths), self._dimension)
        with np.errstate(all="ignore"):
            norms = np.linalg.norm(vectors, axis=1)
        # NaN, infinity and a null among the numbers give no length.
        for number in np.flatnonzero(~np.isfinite(norms))[:1].tolist():
            raise self.refusal(
                begin + number, "its vector holds NaN, an infinite number or a null; leave it out"
            )
        for number in np.flatnonzero(np.abs(norms - 1) > LENGTH_TOLERANCE)[:1].tolist():
            raise self.refusal(
                begin + number,
                f"its vector has the length {norms[number]:.6g}; expected 1: divide each vector by "
                "its length",
            )
        return np.asarray(vectors, np.float32)

    def _check_schema(self, schema: Any) -> None:
        import pyarrow as pa

        for name in (PATH, VECTOR):
            if schema.names.count(name) != 1:
                raise InputError(
                    f"{self.path}: needs a column {PATH!r} of text and a column {VECTOR!r} of "
                    f"lists of floats, each once; it has {', '.join(schema.names)}"
                )
        if schema.names.count(CLASS) > 1:
            raise InputError(f"{self.path}: has several columns {CLASS!r}; keep one")
        for name in (PATH, CLASS) if self.has_classes else (PATH,):
            kind = schema.field(name).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if not any(
                each(kind)
                for each in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
            ):
                raise InputError(f"{self.path}: its column {name!r} must be text; it is {kind}")
        kind = schema.field(VECTOR).type
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        is_fixed = pa.types.is_fixed_size_list(kind)
        if not (is_list or is_fixed) or not pa.types.is_floating(kind.value_type):
            raise InputError(
                f"{self.path}: its column {VECTOR!r} must be lists of floats; it is {kind}"
            )
        if is_fixed and kind.list_size != self._dimension:
            raise InputError(
                f"{self.path}: its vectors have {kind.list_size:,} numbers, and the model's "
                f"{self._dimension:,}; give the model that they were made by as --model"
            )

    def _check_sizes(self) -> None:
        """Refuse columns that would take more memory than their rows need."""
        if self.num_rows == 0:
            raise InputError(f"{self.path}: has no rows")
        for name, num_rows, num_values, num_bytes in self._sizes():
            if name == VECTOR and num_values > num_rows * self._dimension:
                raise InputError(
                    f"{self.path}: holds more numbers than {num_rows:,} vectors of the model's "
                    f"{self._dimension:,}; check the column {VECTOR!r}"
                )
            if name in (PATH, CLASS) and num_bytes > (num_rows + 256) * MOST_BYTES_OF_TEXT:
                raise self._too_long(name)

    def _sizes(self) -> list[tuple[str, int, int, int]]:
        """Return name, rows, values and bytes of each column of each row group, as stated."""
        self._handle.seek(0)
        done = subprocess.run(
            [sys.executable, "-c", SIZES], stdin=self._handle, capture_output=True, check=False
        )
        self._handle.seek(0)
        if done.returncode != 0:
            raise InputError(f"{self.path}: a damaged Parquet file (the metadata of its columns)")
        found: list[tuple[str, int, int, int]] = list(map(tuple, json.loads(done.stdout)))
        return found

    def _too_long(self, name: str) -> InputError:
        what = "paths" if name == PATH else "classes"
        return InputError(
            f"{self.path}: the texts of its column {name!r} are too long to be {what}"
        )

    @contextmanager
    def _as_input_error(self) -> Iterator[None]:
        """Turn an error of pyarrow's into one line."""
        import pyarrow as pa

        try:
            yield
        except InputError:
            raise
        except MemoryError:
            raise InputError(f"{self.path}: not enough memory to read it") from None
        except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.path}: not a Parquet file, or a damaged one ({reason})"
            ) from None
