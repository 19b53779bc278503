"""The images of a collection: path, class, content and row of the embedding of each, in SQLite."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array

TABLE = """
CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY,   -- relative to the root, as the file system's bytes
    class BLOB NOT NULL,     -- the first folder of the path; empty for none
    size INTEGER NOT NULL,   -- bytes and time of change of the file whose content is known:
    changed INTEGER NOT NULL,  -- while both are the same, so is the content
    content BLOB NOT NULL,   -- SHA-256 of the file
    row INTEGER,             -- of the embedding; NULL until there is one
    problem TEXT             -- why there is none, for a broken image
) WITHOUT ROWID
"""
SCHEMA = (
    TABLE,
    "CREATE INDEX IF NOT EXISTS images_by_row ON images (row)",
    "CREATE INDEX IF NOT EXISTS images_by_content ON images (content)",
)
SECONDS_TO_WAIT = 60  # for another process to finish a change
MAX_ROWS = 1 << 40
MAX_VALUE_BYTES = 1 << 20  # of a path, the longest of what there is
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
MAX_PARAMETERS = 500  # of one query; SQLite takes more, but not everywhere


@dataclass(frozen=True)
class FoundFile:
    """A file as a folder lists it: path relative to the root, bytes, time of change (ns)."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class GalleryImage:
    """An image that can be found: path relative to the root, class, row of its embedding."""

    path: str
    label: str
    row: int


class ImageTable:
    """The table of one collection.

    Args:
        file: the data base; made if `writable` and not there.
        writable: whether to change it.

    Raises:
        InputError: it is no such data base.
    """

    def __init__(self, file: Path, *, writable: bool = False) -> None:
        self.file = file
        _check_journals(file)
        # A reader too must be able to take back what a writer that was killed left half done.
        mode = "rwc" if writable else "rw" if os.access(file.parent, os.W_OK) else "ro"
        try:
            self._base = sqlite3.connect(
                f"{file.absolute().as_uri()}?mode={mode}",
                timeout=SECONDS_TO_WAIT,
                isolation_level=None,
                uri=True,
            )
            self._base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            self._base.execute("PRAGMA trusted_schema = 0")
            self._check_schema(may_lack=writable)
            if writable:
                for statement in SCHEMA:
                    self._base.execute(statement)
            self._base.execute(f"PRAGMA query_only = {int(not writable)}")
        except (sqlite3.Error, UnicodeDecodeError) as error:  # which SQLite's own message may be
            raise InputError(
                f"{file}: not the list of images of a collection ({error}); index the images anew"
            ) from None

    def _check_schema(self, *, may_lack: bool) -> None:
        """Refuse a data base that holds anything but our table, such as views and triggers.

        What is made of expressions is computed whenever it is read or changed, without end.

        Args:
            may_lack: whether our table may be missing, as where one was stopped when it was made.
        """
        ours = {_normal(sql) for sql in SCHEMA}
        found = self._base.execute("SELECT sql FROM sqlite_master").fetchmany(len(ours) + 1)
        statements = {_normal(sql) for (sql,) in found}
        if not statements <= ours or (not may_lack and _normal(TABLE) not in statements):
            self._base.close()
            raise InputError(
                f"{self.file}: not the list of images of a collection; index the images anew"
            )

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def __len__(self) -> int:
        """Number of images that can be found."""
        return int(self._one("SELECT COUNT(*) FROM images WHERE row IS NOT NULL"))

    def rows(self) -> Int64Array:
        """Give the rows in use, rising, each once: int64 (rows,)."""
        self.num_rows_needed()  # checks them
        found = self._select("SELECT DISTINCT row FROM images WHERE row IS NOT NULL ORDER BY row")
        try:
            return np.fromiter((row for (row,) in found), np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise self._damaged("a row that is no number of a row") from None

    def images(self) -> Iterator[GalleryImage]:
        """Give all images that can be found, by path."""
        for path, label, row in self._select(
            "SELECT path, class, row FROM images WHERE row IS NOT NULL ORDER BY path"
        ):
            yield GalleryImage(self._name(path), self._name(label), row)

    def files(self) -> Iterator[FoundFile]:
        """Give the files of all images that can be found, as they were, by path."""
        for path, size, changed in self._select(
            "SELECT path, size, changed FROM images WHERE row IS NOT NULL ORDER BY path"
        ):
            yield FoundFile(self._name(path), size, changed)

    def of_rows(self, rows: Sequence[int]) -> dict[int, list[GalleryImage]]:
        """Give the images of each of some rows, by path; several of one content share a row."""
        found: dict[int, list[GalleryImage]] = {}
        for part in _parts(rows):
            for path, label, row in self._select(
                f"SELECT path, class, row FROM images WHERE row IN ({_marks(part)}) ORDER BY path",
                part,
            ):
                image = GalleryImage(self._name(path), self._name(label), row)
                found.setdefault(row, []).append(image)
        return found

    def broken(self) -> list[tuple[str, str]]:
        """Give path and problem of each broken image."""
        found = self._select(
            "SELECT path, problem FROM images WHERE problem IS NOT NULL ORDER BY path"
        )
        return [(self._name(path), str(problem)) for path, problem in found]

    @contextmanager
    def change(self) -> Iterator[None]:
        """Make all changes of the block at once, or none if it raises.

        Raises:
            InputError: the disk is full.
        """
        try:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:  # on a full disk, SQLite may have rolled back itself
                    self._base.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise InputError(f"{self.file}: cannot be written ({error})") from None

    def note_found(self, files: Iterable[FoundFile]) -> None:
        """Note what the folder holds now, to compare with what is known (`changed`, `remove`)."""
        with self.change():
            self._base.execute(
                "CREATE TEMP TABLE IF NOT EXISTS found"
                " (path BLOB PRIMARY KEY, size INTEGER, changed INTEGER) WITHOUT ROWID"
            )
            self._base.execute("DELETE FROM found")
            self._base.executemany(
                "INSERT INTO found VALUES (?, ?, ?)",
                ((os.fsencode(each.path), each.size, each.changed) for each in files),
            )

    def changed(self, *, every: bool = False) -> list[FoundFile]:
        """Give the files found whose content is not known, by path; with `every`, all of them."""
        same = (
            "SELECT 1 FROM images WHERE images.path = found.path"
            " AND images.size = found.size AND images.changed = found.changed"
        )
        where = "" if every else f"WHERE NOT EXISTS ({same})"
        return [
            FoundFile(os.fsdecode(path), size, changed)
            for path, size, changed in self._select(
                f"SELECT path, size, changed FROM found {where} ORDER BY path"
            )
        ]

    def remove_others(self) -> int:
        """Forget images that were not found; give their number."""
        return self._base.execute(
            "DELETE FROM images WHERE path NOT IN (SELECT path FROM found)"
        ).rowcount

    def put(self, file: FoundFile, label: str, content: bytes) -> None:
        """Enter a file, in the place of what its path was before."""
        values = (os.fsencode(label), file.size, file.changed, content)
        path = os.fsencode(file.path)
        # A file that was touched, or has content that is known, takes its row with it; one that
        # could not be read is tried again.
        known = self._base.execute(
            "SELECT row FROM images WHERE content = ? AND row IS NOT NULL LIMIT 1", (content,)
        ).fetchone()
        self._base.execute(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (path, *values, known and known[0]),
        )

    def clear(self) -> None:
        """Forget all images."""
        self._base.execute("DELETE FROM images")

    def take(self, other: "ImageTable") -> None:
        """Enter the images of another table, without their rows.

        Where both have an image, the one that knows what is wrong with it counts.
        """
        self._base.executemany(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, NULL, ?) ON CONFLICT (path) DO UPDATE"
            " SET problem = COALESCE(problem, excluded.problem)",
            other._select("SELECT path, class, size, changed, content, problem FROM images"),
        )

    def pending(self) -> list[tuple[bytes, str]]:
        """Give the contents that have neither row nor problem, each with a path, by path."""
        found = self._select(
            "SELECT content, MIN(path) AS first FROM images"
            " WHERE row IS NULL AND problem IS NULL GROUP BY content ORDER BY first"
        )
        return [(os.fsencode(self._name(content)), self._name(path)) for content, path in found]

    def set_row(self, content: bytes, row: int) -> None:
        """Enter the row of a content."""
        self._base.execute(
            "UPDATE images SET row = ?, problem = NULL WHERE content = ?", (row, content)
        )

    def set_problem(self, content: bytes, problem: str) -> None:
        """Enter why there is no embedding of a content."""
        text = problem.encode(errors="replace").decode()  # it may name a file of odd bytes
        self._base.execute("UPDATE images SET problem = ? WHERE content = ?", (text, content))

    def count_known(self, files: Iterable[FoundFile]) -> int:
        """Count the files that have a row."""
        query = "SELECT COUNT(row) FROM images WHERE path = ?"
        return sum(next(self._select(query, [os.fsencode(each.path)]))[0] for each in files)

    def forget_rows(self, count: int) -> None:
        """Forget rows that are not there, as only `count` are: after a power cut."""
        self._base.execute("UPDATE images SET row = NULL WHERE row >= ?", (count,))

    def num_rows_needed(self) -> int:
        """Give the least number of embeddings that hold all rows in use.

        Raises:
            InputError: a row is no number from 0.
        """
        low, high = next(self._select("SELECT MIN(row), MAX(row) FROM images"))
        if high is None:
            return 0
        # SQLite sorts texts behind all numbers.
        if type(low) is not int or type(high) is not int or low < 0 or high >= MAX_ROWS:
            raise self._damaged("a row that is no number of a row")
        return high + 1

    def _name(self, value: Any) -> str:
        if not isinstance(value, bytes):
            raise self._damaged("a path that is no path")
        return os.fsdecode(value)

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.file}: damaged: it holds {what}; index the images anew")

    def _one(self, query: str) -> int:
        return int(next(self._select(query))[0])

    def _select(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        """Give what a query finds.

        Raises:
            InputError: the file is damaged, or another process does not let go of it.
        """
        try:
            yield from self._base.execute(query, parameters)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{self.file}: cannot be read ({error}); if it is damaged, index the images anew"
            ) from None


def _normal(sql: str | None) -> str:
    """A statement as SQLite keeps it: without IF NOT EXISTS; and without comments and breaks."""
    lines = [line.split("--")[0] for line in (sql or "").splitlines()]
    return " ".join(" ".join(lines).split()).replace(" IF NOT EXISTS", "")


def _check_journals(file: Path) -> None:
    """Refuse what would let SQLite touch other files when it opens this one.

    A journal that was left behind is played back, as it must be after a killed sync. One that
    belongs to several data bases ends with the path of a file that is removed then, anywhere; ours
    never does. A data base with a write-ahead log is none of ours either.
    """
    refused = InputError(f"{file}: not the list of images of a collection; index the images anew")
    journal = file.with_name(f"{file.name}-journal")
    try:
        if journal.is_file():
            with journal.open("rb") as handle:
                size = handle.seek(0, os.SEEK_END)
                handle.seek(max(0, size - len(JOURNAL_MAGIC)))
                if size > len(JOURNAL_MAGIC) and handle.read() == JOURNAL_MAGIC:
                    raise refused
        if file.is_file():
            with file.open("rb") as handle:
                handle.seek(18)
                if handle.read(2) not in (b"", b"\1\1"):
                    raise refused
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _parts(values: Sequence[int]) -> Iterator[list[int]]:
    for begin in range(0, len(values), MAX_PARAMETERS):
        yield [int(value) for value in values[begin : begin + MAX_PARAMETERS]]


def _marks(values: Sequence[int]) -> str:
    return ", ".join("?" * len(values))
