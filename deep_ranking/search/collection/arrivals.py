"""Images of a table on their way into a collection, sorted and joined by SQLite on the disk.

No list of all paths or contents is ever in memory. Temporary tables hold what arrives; each join
goes through both sides in the order of their key, so that tables larger than the memory are read
from end to end, not at random places. They lie where SQLite puts temporary files: in TMPDIR.

arriving     as it comes: number of the row in the table, path, class, content, status of the file
by_content   the same in the order of contents
known        each content once: the row of its embedding if there is one, and who brings it first
fresh        the contents that need a row, in the order in which they came
rows_to_be   the same in the order of contents
"""

import math
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from deep_ranking.files import InputError
from deep_ranking.search.collection.folder import Collection
from deep_ranking.search.collection.image_table import ImageTable
from deep_ranking.search.collection.syncing import UNREADABLE
from deep_ranking.search.collection.table_schema import INDEXES

CACHE_KIB = 1 << 15  # of pages in memory, and of what is sorted at once
TAIL_AT_ONCE = 1 << 14
COLUMNS = "number, path, class, size, changed, content, inode, inode_changed"
Arrival = tuple[int, bytes, bytes, int, int, bytes, int | None, int | None]
"""What `COLUMNS` names."""

STEPS = (
    f"""INSERT INTO by_content SELECT {COLUMNS} FROM arriving ORDER BY content, number""",
    """INSERT INTO known SELECT content, (
           SELECT images.row FROM main.images
           WHERE images.content = each.content AND images.row IS NOT NULL LIMIT 1
       ), first FROM (SELECT content, MIN(number) AS first FROM by_content GROUP BY content) AS each
       ORDER BY content""",
)
FRESH = (
    "INSERT INTO fresh SELECT NULL, number, content FROM known WHERE row IS NULL ORDER BY number"
)
# A file whose content is as before keeps its status, if the table tells none.
RECORD = """
INSERT INTO main.images
SELECT path, class, size, changed, by_content.content, COALESCE(known.row, rows_to_be.row), NULL,
    inode, inode_changed
FROM by_content CROSS JOIN known ON known.content = by_content.content
LEFT JOIN rows_to_be ON rows_to_be.content = by_content.content
WHERE true ORDER BY path
ON CONFLICT (path) DO UPDATE SET class = excluded.class, row = excluded.row, problem = NULL,
    size = CASE WHEN {kept} THEN size ELSE excluded.size END,
    changed = CASE WHEN {kept} THEN changed ELSE excluded.changed END,
    inode = CASE WHEN {kept} THEN inode ELSE excluded.inode END,
    inode_changed = CASE WHEN {kept} THEN inode_changed ELSE excluded.inode_changed END,
    content = excluded.content
""".format(kept=f"content = excluded.content AND excluded.size = {UNREADABLE}")


class Repeated(NamedTuple):
    """A path that two rows of a table have, by their numbers."""

    path: bytes
    first: int
    second: int


class Arrivals:
    """What a table brings; `sort_out` decides what is new, and `record` records all of it at once.

    Args:
        collection: the collection; the caller holds its lock.
        images: its table, open to be written.
    """

    def __init__(self, collection: Collection, images: ImageTable) -> None:
        self._collection = collection
        self._images = images
        self._base = images.base
        types = "number INTEGER{}, path BLOB, class BLOB, size INTEGER, changed INTEGER,"
        types += " content BLOB, inode INTEGER, inode_changed INTEGER"
        by_content = types.format("") + ", PRIMARY KEY (content, number)"
        with self._as_input_error():
            for pragma in ("main.cache_size", "temp.cache_size"):
                self._base.execute(f"PRAGMA {pragma} = -{CACHE_KIB}")
            self._base.execute("PRAGMA temp.journal_mode = OFF")
            for table, columns in (
                ("arriving", f"({types.format(' PRIMARY KEY')})"),
                ("by_content", f"({by_content}) WITHOUT ROWID"),
                ("known", "(content BLOB PRIMARY KEY, row INTEGER, number INTEGER) WITHOUT ROWID"),
                ("fresh", "(place INTEGER PRIMARY KEY, number INTEGER, content BLOB)"),
                ("rows_to_be", "(content BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID"),
            ):
                self._base.execute(f"CREATE TEMP TABLE {table} {columns}")

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Take some rows, in rising order of their numbers."""
        with self._changing():
            marks = ", ".join("?" * len(COLUMNS.split(",")))
            self._base.executemany(f"INSERT INTO arriving VALUES ({marks})", arrivals)

    def __len__(self) -> int:
        return int(self._base.execute("SELECT COUNT(*) FROM arriving").fetchone()[0])

    def repeated(self) -> Repeated | None:
        """Return the first path that is there twice; None if there is none."""
        with self._as_input_error():
            found = self._base.execute(
                "SELECT path FROM arriving GROUP BY path HAVING COUNT(*) > 1"
                " ORDER BY MIN(number) LIMIT 1"
            ).fetchone()
            if found is None:
                return None
            numbers = self._base.execute(
                "SELECT number FROM arriving WHERE path = ? ORDER BY number LIMIT 2", found
            ).fetchall()
        return Repeated(found[0], *(number for (number,) in numbers))

    def sort_out(self) -> int:
        """Decide which contents need a row; return their number.

        A content has a row already if an image has it, or if a run that was stopped appended it.
        """
        with self._changing():
            for statement in STEPS:
                self._base.execute(statement)
            self._base.executemany(
                "UPDATE known SET row = ? WHERE content = ? AND row IS NULL", self._tail()
            )
            return self._base.execute(FRESH).rowcount

    def num_known(self) -> int:
        """Return how many of the images are in the collection with this content already."""
        with self._as_input_error():
            found = self._base.execute(
                "SELECT COUNT(*) FROM arriving AS a JOIN main.images AS i ON i.path = a.path"
                " WHERE i.content = a.content AND i.row IS NOT NULL"
            ).fetchone()
        return int(found[0])

    def fresh(self) -> Generator[tuple[int, bytes]]:
        """Yield the number and the content of each row whose vector is to be stored, in order."""
        with self._as_input_error():
            yield from self._base.execute("SELECT number, content FROM fresh ORDER BY place")

    def record(self, first_row: int) -> None:
        """Record all images; the vectors of `fresh` lie from `first_row` on.

        Raises:
            InputError: the disk is full. Then nothing is recorded.
        """
        with self._changing():
            self._base.execute(
                "INSERT INTO rows_to_be SELECT content, place - 1 + ? FROM fresh ORDER BY content",
                (first_row,),
            )
        with self._changing():
            [(are_many,)] = self._base.execute(
                "SELECT (SELECT COUNT(*) FROM arriving) * 2 >= (SELECT COUNT(*) FROM main.images)"
            )
            if are_many:  # sorting all entries of an index takes less time than adding as many
                for name in ("images_by_row", "images_by_content"):
                    self._base.execute(f"DROP INDEX main.{name}")
            self._base.execute(RECORD)
            if are_many:
                for statement in INDEXES:
                    self._base.execute(statement)

    def _tail(self) -> Iterator[tuple[int, bytes]]:
        """Yield row and content of the embeddings behind those of all images.

        A broken image has a row of NaN.
        """
        store = self._collection.store
        begin, rows, keys = self._images.num_rows_needed(), store.rows(), store.record_keys()
        for first in range(begin, len(rows), TAIL_AT_ONCE):
            last = min(first + TAIL_AT_ONCE, len(rows))
            for row, number in zip(range(first, last), rows[first:last, 0].tolist(), strict=True):
                if not math.isnan(number):
                    yield row, bytes(keys[row])

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._images.change():
            yield

    @contextmanager
    def _as_input_error(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(f"{self._images.file}: cannot be sorted ({error})") from None
