"""A table as one Parquet file, or as a folder of parts that are read one after the other.

The parts are the files of the folder that end in .parquet, in the order of their names; names that
begin with `_` or `.` are not. `parts.json` in the folder of a collection holds the parts that are
in it: their absolute path, and what `file_status` says of each. While that is the same, a part is
not read again.
"""

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deep_ranking.files import InputError, atomic_path, read_text_file
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.content_digest import Status, file_status
from deep_ranking.search.collection.own_files import PARTS
from deep_ranking.search.table.format import SUFFIX, TableOrigin, check_pyarrow
from deep_ranking.search.table.reading import TableEntries, TableFile

MOST_BYTES = 1 << 28  # of parts.json: more than a million parts
Known = Mapping[str, Status]
"""The parts that a collection has: absolute path -> status."""


@dataclass(frozen=True)
class TablePart:
    """A file of a table: its path, its status when it was first read, and its first row."""

    path: Path
    status: Status
    begin: int
    num_rows: int


class TableParts:
    """The parts of a table that are to be read; each is open only while it is read.

    Args:
        path: a Parquet file, or a folder of parts.
        dimension: floats of a vector.
        known: parts that are not to be read, if they are as they were.

    Attributes:
        path: as given.
        parts: those that are to be read; rows are numbered through all of them.
        num_known: parts that are as they were.
        num_rows: rows of the parts that are to be read.
        origin: what the metadata of all of them say; None for other programs'.
        has_classes: whether they have the column `class`.
        has_contents: whether they have the column `content`.

    Raises:
        InputError: pyarrow is missing; a file is missing, damaged, or holds something else; there
            are no rows; or the parts are not of one table.
    """

    def __init__(self, path: Path, dimension: int, *, known: Known | None = None) -> None:
        check_pyarrow()
        self.path = path
        self._dimension = dimension
        files = _files(path)
        self.parts: list[TablePart] = []
        self.num_rows = self.num_known = 0
        self.origin: TableOrigin | None = None
        self.has_classes = self.has_contents = False
        for file in files:
            status = _status(file)
            if status is not None and (known or {}).get(os.path.abspath(file)) == status:
                self.num_known += 1
                continue
            with TableFile(file, dimension) as table:
                self._check_like_first(table)
                # A file that cannot be asked for its status was refused by now.
                self.parts.append(TablePart(file, status or _NONE, self.num_rows, table.num_rows))
                self.num_rows += table.num_rows
        if self.parts and not self.num_rows:
            raise InputError(f"{path}: has no rows")

    def entries(self) -> Iterator[TableEntries]:
        """Yield the short columns of all rows, as `TableFile.entries` does.

        Raises:
            InputError: as that, or a part has changed since it was opened first.
        """
        for part in self.parts:
            with self._opened(part) as table:
                for each in table.entries():
                    yield each._replace(begin=part.begin + each.begin)

    def vectors(self) -> Iterator[tuple[int, Float32Array]]:
        """Yield the vectors of all rows, as `TableFile.vectors` does.

        Raises:
            InputError: as that, or a part has changed since it was opened first.
        """
        for part in self.parts:
            with self._opened(part) as table:
                for begin, vectors in table.vectors():
                    yield part.begin + begin, vectors

    def refusal_of_repeated(self, path: bytes, first: int, second: int) -> InputError:
        """Return the error about a path that two rows have."""
        name = path.decode(errors="replace")
        one, other = self._part_of(first), self._part_of(second)
        where = "" if one == other else f" of {one.path}"
        return InputError(
            f"{other.path}: row {second - other.begin:,}, counted from 0: has the path of row "
            f"{first - one.begin:,}{where}, {name!r}; keep one"
        )

    def now_known(self, known: Known) -> dict[str, Status]:
        """Return the known parts, with those of this table."""
        return {**known, **{os.path.abspath(each.path): each.status for each in self.parts}}

    def _part_of(self, number: int) -> TablePart:
        return self.parts[bisect_right(self.parts, number, key=lambda part: part.begin) - 1]

    @contextmanager
    def _opened(self, part: TablePart) -> Iterator[TableFile]:
        with TableFile(part.path, self._dimension) as table:
            if _status(part.path) != part.status or table.num_rows != part.num_rows:
                raise self._changed(part)
            yield table
            if _status(part.path) != part.status:
                raise self._changed(part)

    def _changed(self, part: TablePart) -> InputError:
        return InputError(f"{part.path}: changed while it was read; run the same command again")

    def _check_like_first(self, table: TableFile) -> None:
        """Refuse a part that is not of one table with the first."""
        if not self.parts:
            self.origin = table.origin
            self.has_classes, self.has_contents = table.has_classes, table.has_contents
            return
        first = self.parts[0].path
        for what, mine, other in (
            ("the metadata 'deep_ranking'", table.origin, self.origin),
            ("a column 'class'", table.has_classes, self.has_classes),
            ("a column 'content'", table.has_contents, self.has_contents),
        ):
            if mine != other:
                raise InputError(
                    f"{table.path}: is not of one table with {first}: {_difference(mine, other)} "
                    f"{what}; keep the parts of one table in a folder"
                )


_NONE: Status = (0, 0, 0, 0)


def _difference(mine: object, other: object) -> str:
    if mine and other:
        return "other values in"
    return "only this has" if mine else "only that has"


def _status(path: Path) -> Status | None:
    try:
        return file_status(os.stat(path))
    except (OSError, ValueError):
        return None


def _files(path: Path) -> list[Path]:
    """Return the files of a table."""
    try:
        if not path.is_dir():
            return [path]
        names = sorted(each.name for each in path.iterdir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason})") from None
    files = [path / name for name in names if name.endswith(SUFFIX) and name[0] not in "_."]
    if not files:
        raise InputError(f"{path}: a folder without parts, files whose names end in {SUFFIX}")
    return files


def read_known(folder: Path) -> dict[str, Status]:
    """Return the parts that a collection has; none where its file is not what `write_known` wrote.

    They save time only: a part that is not known is read again, which changes nothing.
    """
    try:
        values = json.loads(read_text_file(folder / PARTS, hint="remove it", max_bytes=MOST_BYTES))
        found: dict[str, Status] = {
            str(name): (int(a), int(b), int(c), int(d)) for name, (a, b, c, d) in values.items()
        }
    except (OSError, InputError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return found


def write_known(folder: Path, known: Known) -> None:
    """Write the parts that a collection has, atomically."""
    with atomic_path(folder / PARTS) as temporary:
        temporary.write_text(json.dumps(known), encoding="utf-8")
