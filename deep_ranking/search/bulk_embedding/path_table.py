"""Read the paths of images, and perhaps their classes, from a Parquet file of any program."""

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError, open_regular
from deep_ranking.files.addresses import is_address, local_path, open_store, store_errors
from deep_ranking.search.table.format import (
    CLASS,
    METADATA_KEY,
    PATH,
    SUFFIX,
    TableOrigin,
    check_pyarrow,
    path_problem,
)

ROWS_AT_ONCE = 4096
MOST_BYTES_OF_TEXT = 4096  # of a path or a class


def is_table(images: str) -> bool:
    """Return whether images are named by a Parquet file rather than by a folder."""
    return images.lower().endswith(SUFFIX) and not os.path.isdir(local_path(images))


class PathTable:
    """A Parquet file with a column `path` of text, and perhaps a column `class`.

    Args:
        file: the file, or its address.
        root: folder or address that the paths start from; a path may also have it before it. None
            for what an exported table names, or else the folder of the file.

    Attributes:
        root: folder or address that the paths start from.

    Raises:
        InputError: pyarrow is missing, or the file is missing, damaged, or has no such column.
    """

    def __init__(self, file: str, root: str | None = None) -> None:
        check_pyarrow()
        self._file = file if is_address(file) else local_path(file)
        with self._opened() as table:
            schema = table.schema_arrow
            self._check(schema)
            if root is None:
                root = _named_root(schema, self._file) or os.path.dirname(self._file)
            self._has_classes = CLASS in schema.names
        given = root if is_address(root) else os.path.abspath(local_path(root))
        self.root = given.rstrip("/") or "/"

    def rows(self) -> Iterator[tuple[str, str | None]]:
        """Yield the path of each row, relative to the root, and its class, None for none.

        Raises:
            InputError: a path is missing, starts elsewhere, or is there twice; with the number of
                the row, counted from 0.
        """
        seen = array("Q")  # 8 bytes a row, so that the memory holds as many as a listing has
        for _, path, label in self._rows():
            seen.append(_hash(path))
            yield path, label
        hashes, counts = np.unique(np.frombuffer(seen, np.uint64), return_counts=True)
        if (counts > 1).any():
            self._refuse_repeated(set(hashes[counts > 1].tolist()))

    def _refuse_repeated(self, hashes: set[int]) -> None:
        """Refuse a path that is there twice; different paths may have the same hash."""
        first: dict[str, int] = {}
        for number, path, _ in self._rows():
            if _hash(path) in hashes and first.setdefault(path, number) != number:
                raise self._refusal(number, f"has the path of row {first[path]:,}, {path!r}")

    def _rows(self) -> Iterator[tuple[int, str, str | None]]:
        columns = [PATH, CLASS] if self._has_classes else [PATH]
        number = 0
        with self._opened() as table:
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
                paths = self._texts(batch, PATH)
                labels = self._texts(batch, CLASS) if self._has_classes else [None] * len(paths)
                for path, label in zip(paths, labels, strict=True):
                    yield number, self._relative(path, number), label or None
                    number += 1
        if not number:
            raise InputError(f"{self._file}: has no rows")

    def _relative(self, path: str | None, number: int) -> str:
        text = local_path(path or "")
        relative = text.removeprefix(f"{self.root.rstrip('/')}/")
        if is_address(relative) or relative.startswith("/"):
            raise self._refusal(
                number, f"the path {path!r} does not start with {self.root}; give --root"
            )
        if (problem := path_problem(relative)) is not None:
            raise self._refusal(number, f"the path {path!r} {problem}; write it as cat/1.jpg")
        return relative

    def _refusal(self, number: int, what: str) -> InputError:
        return InputError(f"{self._file}: row {number:,}, counted from 0: {what}")

    def _texts(self, batch: Any, name: str) -> list[str | None]:
        import pyarrow as pa

        batch.validate(full=True)  # texts are UTF-8, offsets in order
        texts: list[str | None] = batch.column(name).cast(pa.string()).to_pylist()
        if any(text is not None and len(text) > MOST_BYTES_OF_TEXT for text in texts):
            raise InputError(f"{self._file}: the texts of its column {name!r} are too long")
        return texts

    def _check(self, schema: Any) -> None:
        import pyarrow as pa

        if schema.names.count(PATH) != 1 or schema.names.count(CLASS) > 1:
            raise InputError(
                f"{self._file}: needs one column {PATH!r}, and may have one {CLASS!r}; it has "
                f"{', '.join(schema.names)}"
            )
        for name in (PATH, CLASS) if CLASS in schema.names else (PATH,):
            kind = schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise InputError(f"{self._file}: its column {name!r} must be text; it is {kind}")

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the file, a `pyarrow.parquet.ParquetFile`.

        Raises:
            InputError: it is missing, cannot be read, or is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._bytes() as handle:
            try:
                yield pq.ParquetFile(handle, page_checksum_verification=True)
            except InputError:
                raise
            except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
                reason = " ".join(str(error).split())[:300]
                raise InputError(
                    f"{self._file}: not a Parquet file, or a damaged one ({reason})"
                ) from None

    @contextmanager
    def _bytes(self) -> Iterator[Any]:
        if is_address(self._file):
            store, path = open_store(self._file)
            with store_errors(self._file):
                handle = store.open(path, "rb")
        else:
            try:
                handle = open_regular(self._file)
            except OSError as error:
                reason = error.strerror or str(error)
                raise InputError(f"{self._file}: cannot be read ({reason})") from None
        with handle:
            yield handle


def _hash(path: str) -> int:
    return int.from_bytes(blake2b(path.encode(errors="surrogatepass"), digest_size=8).digest())


def _named_root(schema: Any, file: str) -> str | None:
    """Return the root that a table of this package names; None for other programs' tables."""
    text = (schema.metadata or {}).get(METADATA_KEY)
    return None if text is None else TableOrigin.from_json(text, Path(file)).root
