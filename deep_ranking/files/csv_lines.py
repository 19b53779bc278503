"""CSV lines of files that hold image paths: triplets, pairs to compare, classes, splits.

A field is quoted only if it needs to be (a comma, a quote). Bytes that are not UTF-8 are kept as
the file system has them. A file whose name ends in .gz is decompressed while it is read. Only one
line is in memory at a time, and its length is bounded.
"""

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from deep_ranking.files.errors import InputError
from deep_ranking.files.opening import open_regular

BYTE_ORDER_MARK = "\ufeff"
MAX_LINE_LENGTH = 1 << 20  # a path has 4,096 characters at most


def read_lines(
    path: Path,
    *,
    kind: str,
    hint: str,
    separators: str = ",",
    ended_only: bool = False,
    max_bytes: int | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line, from 1, and its fields.

    Args:
        path: the file; lines may end in LF or CRLF.
        kind: what a line of it holds, for errors: "triplet".
        hint: how to get such a file, for errors.
        separators: what may stand between fields; the first line decides by having most of it.
        ended_only: pass over a last line that no line break ends: its writer was stopped.
        max_bytes: largest size that is read; None for any.

    Raises:
        InputError: there is no such file, it is not a regular file or not text, or a line is too
            long; with path and line.
    """
    line = 0
    try:
        with open_regular(path, max_bytes=max_bytes) as file:
            raw = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            # utf-8-sig: some editors write a byte order mark, which would become part of a path.
            text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
            lines = _bounded_lines(text, path, kind, ended_only)
            first = next(lines, "")
            reader = csv.reader(
                itertools.chain([first] * bool(first), lines),
                delimiter=max(separators, key=first.count),
                strict=True,
            )
            for line, fields in enumerate(reader, start=1):
                if any("\0" in field for field in fields):
                    raise InputError(f"{path}:{line}: not a text file")
                if any(field.lstrip().startswith('"') and field[0] in " \t" for field in fields):
                    raise InputError(f"{path}:{line}: a blank before a quote; remove the blank")
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


def write_lines(path: Path, lines: Iterable[Iterable[object]]) -> None:
    """Write CSV lines, ended by LF, from the fields of each."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def _bounded_lines(
    text: io.TextIOWrapper, path: Path, kind: str, ended_only: bool
) -> Iterator[str]:
    """Yield lines; refuse one that is too long to hold paths: binary data, or endless zeros."""
    for number in itertools.count(1):
        line = text.readline(MAX_LINE_LENGTH + 1)
        if len(line) > MAX_LINE_LENGTH:
            raise InputError(
                f"{path}:{number}: not a {kind} line: longer than {MAX_LINE_LENGTH:,} characters"
            )
        if not line or (ended_only and not line.endswith(("\n", "\r"))):
            return
        yield line
