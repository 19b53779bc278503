"""The images of a collection: path, class, content and row of the embedding of each, in SQLite."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError, open_regular
from deep_ranking.files.array_types import Int64Array

TABLE = """
CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY,   -- relative to the root, as the file system's bytes
    class BLOB NOT NULL,     -- as `read_folder` labels it; empty for none
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
    """A file as a folder lists it: path relative to the root, bytes, time of change (ns), class."""

    path: str
    size: int
    changed: int
    label: str = ""


@dataclass(frozen=True)
class GalleryImage:
    """An image that can be found: path relative to the root, class, row of its embedding."""

    path: str
    label: str
    row: int


class ImageTable:
    """The table of one collection.

    Args:
        file: the database; created if `writable` and missing.
        writable: whether it will be changed.

    Raises:
        InputError: it is not such a database.
    """

    def __init__(self, file: Path, *, writable: bool = False) -> None:
        self.file = file
        _check_journals(file)
        # A reader must be able to roll back what a killed writer left half done.
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
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's message may not be UTF-8
            raise _refusal(file, f" ({error})") from None

    def _check_schema(self, *, may_lack: bool) -> None:
        """Refuse a database with anything but our table, such as views and triggers.

        Their expressions run at every reading or change, and may never end. A table whose creation
        was stopped `may_lack`.
        """
        ours = {_normal(sql) for sql in SCHEMA}
        found = self._base.execute("SELECT sql FROM sqlite_master").fetchmany(len(ours) + 1)
        statements = {_normal(sql) for (sql,) in found}
        if not statements <= ours or (not may_lack and _normal(TABLE) not in statements):
            self._base.close()
            raise _refusal(self.file)

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __len__(self) -> int:
        """Number of images that can be found."""
        return int(next(self._select("SELECT COUNT(row) FROM images"))[0])

    def rows(self) -> Int64Array:
        """Return the rows in use, each once, in rising order: int64 (rows,)."""
        self.num_rows_needed()  # checks them
        found = self._select("SELECT DISTINCT row FROM images WHERE row IS NOT NULL ORDER BY row")
        try:
            return np.fromiter((row for (row,) in found), np.int64)
        except InputError:
            raise
        except (TypeError, ValueError, OverflowError):  # a damaged index may give NULL all the same
            raise self._damaged("an invalid row number") from None

    def images(self) -> Iterator[GalleryImage]:
        """Yield all images that can be found, by path."""
        return self._images("row IS NOT NULL")

    def files(self) -> Iterator[FoundFile]:
        """Yield the files of all images that can be found, as they were recorded, by path."""
        return self._files("images WHERE row IS NOT NULL")

    def of_rows(self, rows: Sequence[int]) -> dict[int, list[GalleryImage]]:
        """Return the images of each of some rows, by path; equal contents share a row."""
        found: dict[int, list[GalleryImage]] = {}
        for begin in range(0, len(rows), MAX_PARAMETERS):
            part = [int(row) for row in rows[begin : begin + MAX_PARAMETERS]]
            marks = ", ".join("?" * len(part))
            for image in self._images(f"row IN ({marks})", part):
                found.setdefault(image.row, []).append(image)
        return found

    def broken(self) -> list[tuple[str, str]]:
        """Return path and problem of each broken image."""
        found = self._select(
            "SELECT path, problem FROM images WHERE problem IS NOT NULL ORDER BY path"
        )
        return [(self._name(path), str(problem)) for path, problem in found]

    @contextmanager
    def change(self) -> Iterator[None]:
        """Commit all changes of the block at once, or none if it raises.

        Raises:
            InputError: the disk is full.
        """
        try:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:  # on a full disk, SQLite may have rolled back
                    self._base.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise InputError(f"{self.file}: cannot be written ({error})") from None

    def record_found(self, files: Iterable[FoundFile]) -> None:
        """Record what the folder holds now, for `changed` and `remove_others`, and its classes."""
        with self.change():
            self._base.execute(
                "CREATE TEMP TABLE IF NOT EXISTS found"
                " (path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, class BLOB) WITHOUT ROWID"
            )
            self._base.execute("DELETE FROM found")
            self._base.executemany(
                "INSERT INTO found VALUES (?, ?, ?, ?)",
                (
                    (os.fsencode(each.path), each.size, each.changed, os.fsencode(each.label))
                    for each in files
                ),
            )
            self._base.execute(
                "UPDATE images SET class = found.class FROM found"
                " WHERE images.path = found.path AND images.class IS NOT found.class"
            )

    def changed(self, *, every: bool = False) -> list[FoundFile]:
        """Return the found files whose content is not known, by path; with `every`, all of them."""
        same = (
            "SELECT 1 FROM images WHERE images.path = found.path"
            " AND images.size = found.size AND images.changed = found.changed"
        )
        return list(self._files("found" if every else f"found WHERE NOT EXISTS ({same})"))

    def remove_others(self) -> int:
        """Forget images that were not found; return their number."""
        return self._base.execute(
            "DELETE FROM images WHERE path NOT IN (SELECT path FROM found)"
        ).rowcount

    def record(self, file: FoundFile, content: bytes) -> None:
        """Record the content of a file, in place of what its path held before."""
        path, label_bytes = os.fsencode(file.path), os.fsencode(file.label)
        # A file with a known content gets its row; one that could not be read is tried again.
        known = self._base.execute(
            "SELECT row FROM images WHERE content = ? AND row IS NOT NULL LIMIT 1", (content,)
        ).fetchone()
        self._base.execute(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (path, label_bytes, file.size, file.changed, content, known and known[0]),
        )

    def clear(self) -> None:
        """Forget all images."""
        self._base.execute("DELETE FROM images")

    def add_from(self, other: "ImageTable") -> None:
        """Add the images of another table, without their rows.

        Where both have an image, a problem that either knows is kept.
        """
        self._base.executemany(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, NULL, ?) ON CONFLICT (path) DO UPDATE"
            " SET problem = COALESCE(problem, excluded.problem)",
            other._select("SELECT path, class, size, changed, content, problem FROM images"),
        )

    def pending(self) -> list[tuple[bytes, str]]:
        """Return the contents with neither row nor problem, each with a path, by path."""
        found = self._select(
            "SELECT content, MIN(path) AS first FROM images"
            " WHERE row IS NULL AND problem IS NULL GROUP BY content ORDER BY first"
        )
        return [(os.fsencode(self._name(content)), self._name(path)) for content, path in found]

    def set_row(self, content: bytes, row: int) -> None:
        """Record the row of a content."""
        self._base.execute(
            "UPDATE images SET row = ?, problem = NULL WHERE content = ?", (row, content)
        )

    def set_problem(self, content: bytes, problem: str) -> None:
        """Record why a content has no embedding."""
        text = problem.encode(errors="replace").decode()  # a file name may hold any bytes
        self._base.execute("UPDATE images SET problem = ? WHERE content = ?", (text, content))

    def count_known(self, files: Iterable[FoundFile]) -> int:
        """Return how many of the files have a row."""
        query = "SELECT COUNT(row) FROM images WHERE path = ?"
        return sum(next(self._select(query, [os.fsencode(each.path)]))[0] for each in files)

    def forget_rows(self, rows: Iterable[int], *, begin: int) -> None:
        """Forget some rows, and all from `begin` on, which a power cut took from the store."""
        forget = "UPDATE images SET row = NULL WHERE row"
        self._base.executemany(f"{forget} = ?", ((row,) for row in rows))
        self._base.execute(f"{forget} >= ?", (begin,))

    def num_rows_needed(self) -> int:
        """Return how many embeddings the rows in use need: the largest row, plus one.

        Raises:
            InputError: the table holds an invalid row number.
        """
        low, high = next(self._select("SELECT MIN(row), MAX(row) FROM images"))
        if high is None:
            return 0
        # SQLite sorts text after all numbers.
        if type(low) is not int or type(high) is not int or low < 0 or high >= MAX_ROWS:
            raise self._damaged("an invalid row number")
        return high + 1

    def _name(self, value: Any) -> str:
        if not isinstance(value, bytes):
            raise self._damaged("an invalid path")
        return os.fsdecode(value)

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.file}: damaged: it holds {what}; index the images anew")

    def _images(self, where: str, parameters: Sequence[int] = ()) -> Iterator[GalleryImage]:
        query = f"SELECT path, class, row FROM images WHERE {where} ORDER BY path"
        for path, label, row in self._select(query, parameters):
            yield GalleryImage(self._name(path), self._name(label), row)

    def _files(self, source: str) -> Iterator[FoundFile]:
        query = f"SELECT path, size, changed, class FROM {source} ORDER BY path"
        for path, size, changed, label in self._select(query):
            yield FoundFile(self._name(path), size, changed, self._name(label))

    def _select(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the results of a query.

        Raises:
            InputError: the file is damaged, or another process keeps it locked.
        """
        try:
            yield from self._base.execute(query, parameters)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{self.file}: cannot be read ({error}); if it is damaged, index the images anew"
            ) from None


def _normal(sql: str | None) -> str:
    """Return a statement without IF NOT EXISTS, comments and line breaks, to compare it."""
    lines = [line.split("--")[0] for line in (sql or "").splitlines()]
    return " ".join(" ".join(lines).split()).replace(" IF NOT EXISTS", "")


def _check_journals(file: Path) -> None:
    """Refuse what would let SQLite touch other files when it opens this one.

    SQLite plays back a journal that was left behind, as it must after a killed sync. The journal
    of several databases ends with the path of a file that SQLite then removes, anywhere on the
    disk; ours never does. Nor does our database have a write-ahead log.
    """
    journal = file.with_name(f"{file.name}-journal")
    try:
        if journal.is_file():
            with open_regular(journal) as handle:
                size = handle.seek(0, os.SEEK_END)
                handle.seek(max(0, size - len(JOURNAL_MAGIC)))
                if size > len(JOURNAL_MAGIC) and handle.read() == JOURNAL_MAGIC:
                    raise _refusal(file)
        if file.is_file():
            with open_regular(file) as handle:
                handle.seek(18)
                if handle.read(2) not in (b"", b"\1\1"):
                    raise _refusal(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _refusal(file: Path, reason: str = "") -> InputError:
    return InputError(
        f"{file}: not the list of images of a collection{reason}; index the images anew"
    )
