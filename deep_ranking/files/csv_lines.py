"""Text files with image paths in their lines: the triplet file, and the pairs to compare.

They are CSV without a header: fields are quoted only where a name needs it (a comma, a quote), so
that simple files read as they are. Bytes that are not UTF-8 are kept as the file system has them.
A file whose name ends in .gz is decompressed while it is read. No more of it than a line is in
memory, and a line has a bound.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from deep_ranking.files.errors import InputError
from deep_ranking.files.opening import open_regular

BYTE_ORDER_MARK = "\ufeff"
MAX_LINE_BYTES = 1 << 20  # paths have 4,096 at most
BLOCK = 1 << 16


class _LineTooLongError(Exception):
    """No line of paths is that long: binary data, or zeros without end."""


def read_lines(path: Path, *, kind: str, hint: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers, from 1, and fields.

    Args:
        path: the file; lines may end in LF or CRLF.
        kind: what a line of it is, for errors: "triplet".
        hint: how to come by such a file.

    Raises:
        InputError: there is no such file, it is no regular file or no text, or a line is longer
            than any with paths; with path and line.
    """
    line = 0
    try:
        with _open(path) as handle:
            reader = csv.reader(handle, strict=True)
            for line, fields in enumerate(reader, start=1):
                if any("\0" in field for field in fields):
                    raise InputError(f"{path}:{line}: not a text file")
                if reader.line_num != line:
                    raise InputError(f"{path}:{line}: a quote is opened and not closed")
                yield line, fields
    except FileNotFoundError:
        raise InputError(f"{path}: no such {kind} file; {hint}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except csv.Error as error:
        raise InputError(
            f"{path}:{line + 1}: not a {kind} line, or a quote is opened and not closed ({error})"
        ) from None
    except _LineTooLongError:
        raise InputError(
            f"{path}:{line + 1}: not a {kind} line: longer than {MAX_LINE_BYTES:,} bytes"
        ) from None


class _BoundedLines(io.BufferedReader):
    """Bytes of a text file, as `io.TextIOWrapper` takes them, up to a line that does not end."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw, BLOCK)
        self._since_end_of_line = 0

    def read1(self, size: int = -1, /) -> bytes:
        """Read what is there, `size` bytes at most."""
        data = super().read1(size)
        self._since_end_of_line += len(data)
        if (end := data.rfind(b"\n")) >= 0:
            self._since_end_of_line = len(data) - end - 1
        elif self._since_end_of_line > MAX_LINE_BYTES:
            raise _LineTooLongError
        return data


@contextmanager
def _open(path: Path) -> Iterator[io.TextIOWrapper]:
    with open_regular(path) as file:
        raw = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        # A byte order mark is what some editors put before the first line; it is no part of a path.
        with io.TextIOWrapper(
            _BoundedLines(cast(io.RawIOBase, raw)),
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
        ) as handle:
            yield handle
