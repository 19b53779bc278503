"""The images of a collection: path, class, content and row of the embedding of each, in SQLite."""

import os
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.search.collection.records import FoundFile, GalleryImage
from deep_ranking.search.collection.table_schema import open_table

SECONDS_TO_WAIT = 60  # for another process to finish a change
MAX_ROWS = 1 << 40
MAX_VALUE_BYTES = 1 << 20  # of a path, the longest of what there is
MAX_PARAMETERS = 500  # of one query; SQLite takes more, but not everywhere


def _values(file: FoundFile) -> tuple[bytes, int, int, bytes]:
    return os.fsencode(file.path), file.size, file.changed, os.fsencode(file.label)


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
        self._base, self._has_identity = open_table(
            file, writable=writable, seconds=SECONDS_TO_WAIT, longest_value=MAX_VALUE_BYTES
        )

    @property
    def base(self) -> sqlite3.Connection:
        """The open database, for what sorts and joins many images in it."""
        return self._base

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __len__(self) -> int:
        """Number of images that can be found."""
        return int(next(self._select("SELECT COUNT(row) FROM images"))[0])

    def num_rows(self) -> int:
        """Return the number of rows in use."""
        rows = "SELECT DISTINCT row FROM images WHERE row IS NOT NULL"
        return int(next(self._select(f"SELECT COUNT(*) FROM ({rows})"))[0])

    def rows(self) -> Int64Array:
        """Return the rows in use, each once, in rising order: int64 (rows,)."""
        if (count := self.num_rows()) == self.num_rows_needed():  # which checks them
            return np.arange(count)
        found = self._select("SELECT DISTINCT row FROM images WHERE row IS NOT NULL ORDER BY row")
        try:
            return np.fromiter((row for (row,) in found), np.int64, count)
        except InputError:
            raise
        except (TypeError, ValueError, OverflowError):  # a damaged index may give NULL all the same
            raise self._damaged("an invalid row number") from None

    def classes(self) -> dict[str, int]:
        """Return the number of images of each class that can be found, by name; "" for none."""
        # SQLite would look up each row by its number, and sort all of them: 8 times the time.
        found = self._select("SELECT class FROM images NOT INDEXED WHERE row IS NOT NULL")
        counts = Counter(chain.from_iterable(found))
        names = {label: self._name(label) for label in counts}  # which checks them
        return {names[label]: counts[label] for label in sorted(names)}

    def rows_of(self, labels: Sequence[str] | None, folder: str) -> Int64Array:
        """Return the rows of some images, each once, in rising order: int64 (rows,).

        Args:
            labels: their classes; None for all.
            folder: they lie below it, relative to the root; "" for all.
        """
        where, begin = "row IS NOT NULL", os.fsencode(f"{folder}/")
        below = [begin, begin[:-1] + b"0"] if folder else []  # "0" follows "/"
        if folder:
            where += " AND path >= ? AND path < ?"
        if labels is None:
            return self._distinct_rows([(where, below)])
        names = list(map(os.fsencode, labels))
        parts = [names[i : i + MAX_PARAMETERS] for i in range(0, len(names), MAX_PARAMETERS)]
        return self._distinct_rows(
            (f"{where} AND class IN ({', '.join('?' * len(part))})", [*below, *part])
            for part in parts
        )

    def _distinct_rows(self, queries: Iterable[tuple[str, list[bytes]]]) -> Int64Array:
        self.num_rows_needed()  # checks them
        rows: set[int] = set()
        for where, parameters in queries:
            query = f"SELECT DISTINCT row FROM images WHERE {where}"
            rows.update(row for (row,) in self._select(query, parameters))
        return np.sort(np.fromiter(rows, np.int64))

    def row_of_content(self, content: bytes) -> int | None:
        """Return the row of a content, the SHA-256 of a file; None if no image has it."""
        rows = self._distinct_rows([("content = ? AND row IS NOT NULL", [content])])
        return int(rows[0]) if len(rows) else None

    def rows_by_path(self, paths: Sequence[str]) -> dict[str, int]:
        """Return the row of each of some paths; not of those that have none."""
        found: dict[str, int] = {}
        for begin in range(0, len(paths), MAX_PARAMETERS):
            part = [os.fsencode(path) for path in paths[begin : begin + MAX_PARAMETERS]]
            marks = ", ".join("?" * len(part))
            query = f"SELECT path, row FROM images WHERE row IS NOT NULL AND path IN ({marks})"
            found |= {self._name(path): int(row) for path, row in self._select(query, part)}
        return found

    def images(self) -> Iterator[GalleryImage]:
        """Yield all images that can be found, by path."""
        return self._images("row IS NOT NULL")

    def by_class(self) -> Generator[GalleryImage]:
        """Yield all images that can be found, by class, then row: those of a content together."""
        return self._images("row IS NOT NULL", order="class, row, path")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read the same state all through the block, whatever other processes write meanwhile."""
        self._base.execute("BEGIN")
        try:
            yield
        finally:
            self._base.execute("ROLLBACK")

    def files(self) -> Iterator[FoundFile]:
        """Yield the files of all images that can be found, as they were recorded, by path."""
        return self._files("images WHERE row IS NOT NULL")

    def recorded(self, paths: Iterable[str]) -> Iterator[tuple[FoundFile, bytes]]:
        """Yield the file of each path, as it was recorded, and its content; not unknown paths."""
        query = f"SELECT size, changed, class, {self._identity}, content FROM images WHERE path = ?"
        for path in paths:
            for size, changed, label, *identity, content in self._select(
                query, (os.fsencode(path),)
            ):
                yield FoundFile(path, size, changed, self._name(label), *identity), content

    def of_content(self, begin: bytes) -> Iterator[tuple[GalleryImage, bytes]]:
        """Yield the images whose content begins with some bytes, each with its content."""
        query = "SELECT path, class, row, content FROM images WHERE content >= ? AND content <= ?"
        for path, label, row, content in self._select(
            f"{query} AND row IS NOT NULL ORDER BY path", (begin, begin.ljust(32, b"\xff"))
        ):
            yield GalleryImage(self._name(path), self._name(label), row), content

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
                " (path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, class BLOB,"
                " inode INTEGER, inode_changed INTEGER) WITHOUT ROWID"
            )
            self._base.execute("DELETE FROM found")
            self._base.executemany(
                "INSERT INTO found VALUES (?, ?, ?, ?, ?, ?)",
                ((*_values(each), each.inode, each.inode_changed) for each in files),
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
            " AND images.inode IS found.inode AND images.inode_changed IS found.inode_changed"
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
        values = (path, label_bytes, file.size, file.changed, content, known and known[0])
        self._base.execute(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?)",
            (*values, file.inode, file.inode_changed),
        )

    def clear(self) -> None:
        """Forget all images."""
        self._base.execute("DELETE FROM images")

    def add_from(self, other: "ImageTable") -> None:
        """Add the images of another table, without their rows.

        Where both have an image, a problem that either knows is kept.
        """
        self._base.executemany(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?) ON CONFLICT (path) DO UPDATE"
            " SET problem = COALESCE(problem, excluded.problem)",
            other._select(
                f"SELECT path, class, size, changed, content, problem, {other._identity}"
                " FROM images"
            ),
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
        # Of each alone, SQLite looks at one end of the index; of both at once, at all of it.
        ends = "(SELECT MIN(row) FROM images), (SELECT MAX(row) FROM images)"
        low, high = next(self._select(f"SELECT {ends}"))
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

    def _images(
        self, where: str, parameters: Sequence[int] = (), *, order: str = "path"
    ) -> Generator[GalleryImage]:
        query = f"SELECT path, class, row FROM images WHERE {where} ORDER BY {order}"
        for path, label, row in self._select(query, parameters):
            yield GalleryImage(self._name(path), self._name(label), row)

    @property
    def _identity(self) -> str:
        return "inode, inode_changed" if self._has_identity else "NULL, NULL"

    def _files(self, source: str) -> Iterator[FoundFile]:
        query = f"SELECT path, size, changed, class, {self._identity} FROM {source} ORDER BY path"
        for path, size, changed, label, *identity in self._select(query):
            yield FoundFile(self._name(path), size, changed, self._name(label), *identity)

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
