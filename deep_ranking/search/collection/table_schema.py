"""The schema of the table of images, `images.sqlite`, and the trust in it.

A database may come from a stranger, so it is opened only if it holds our table and nothing else.
Tables of earlier versions lack the last two columns. They are read as they are; whoever opens one
to write to it adds the columns, which rewrites no row.
"""

import os
import re
import sqlite3
from pathlib import Path

from deep_ranking.files import InputError, open_regular

TABLE = """
CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY,   -- relative to the root, as the file system's bytes
    class BLOB NOT NULL,     -- as `read_folder` labels it; empty for none
    size INTEGER NOT NULL,   -- bytes and time of change of the file whose content is known:
    changed INTEGER NOT NULL,  -- while these and the inode are the same, so is the content
    content BLOB NOT NULL,   -- SHA-256 of the file
    row INTEGER,             -- of the embedding; NULL until there is one
    problem TEXT,            -- why there is none, for a broken image
    inode INTEGER,           -- of the file; NULL if an earlier version recorded it
    inode_changed INTEGER    -- time of change of the inode
) WITHOUT ROWID
"""
IDENTITY = ("inode INTEGER", "inode_changed INTEGER")
"""The columns that tables of earlier versions lack."""

INDEXES = (
    "CREATE INDEX IF NOT EXISTS images_by_row ON images (row)",
    "CREATE INDEX IF NOT EXISTS images_by_content ON images (content)",
)
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
COUNTER_AT, COUNTER_BYTES = 24, 4  # in the header of a file of SQLite


def has_identity(base: sqlite3.Connection, file: Path, *, may_lack: bool) -> bool:
    """Refuse a database with anything but our table, such as views and triggers.

    Their expressions run at every reading or change, and may never end.

    Args:
        base: the open database.
        file: its path, for errors.
        may_lack: whether the table may be missing, because its creation was stopped.

    Returns:
        Whether the table has the columns of `IDENTITY`, or is missing.

    Raises:
        InputError: it holds something else.
    """
    table, old = _normal(TABLE), _normal(TABLE)
    for column in IDENTITY:
        old = old.replace(f",{column}", "")
    ours = {table, old, *map(_normal, INDEXES)}
    found = base.execute("SELECT sql FROM sqlite_master").fetchmany(len(ours) + 1)
    statements = {_normal(sql) for (sql,) in found}
    if not statements <= ours or not (may_lack or statements & {table, old}):
        raise refusal(file)
    return old not in statements


def create(base: sqlite3.Connection, *, add_identity: bool) -> None:
    """Create what is missing; `add_identity` to a table of an earlier version."""
    if add_identity:
        base.execute("BEGIN IMMEDIATE")
        try:
            for column in IDENTITY:
                base.execute(f"ALTER TABLE images ADD COLUMN {column}")
            base.execute("COMMIT")
        finally:
            if base.in_transaction:
                base.execute("ROLLBACK")
    for statement in (TABLE, *INDEXES):
        base.execute(statement)


def _normal(sql: str | None) -> str:
    """Return a statement without IF NOT EXISTS, comments and needless blanks, to compare it."""
    lines = [line.split("--")[0] for line in (sql or "").splitlines()]
    plain = " ".join(" ".join(lines).split()).replace(" IF NOT EXISTS", "")
    return re.sub(r" ?([(),]) ?", r"\1", plain)


def check_journals(file: Path) -> None:
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
                    raise refusal(file)
        if file.is_file():
            with open_regular(file) as handle:
                handle.seek(18)
                if handle.read(2) not in (b"", b"\1\1"):
                    raise refusal(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def change_counter(file: Path) -> int:
    """Return SQLite's count of the changes of a table of images."""
    with open_regular(file) as header:
        header.seek(COUNTER_AT)
        return int.from_bytes(header.read(COUNTER_BYTES))


def refusal(file: Path, reason: str = "") -> InputError:
    """Return the error for what is no such table."""
    return InputError(
        f"{file}: not the list of images of a collection{reason}; index the images anew"
    )


def open_table(
    file: Path, *, writable: bool, seconds: float, longest_value: int
) -> tuple[sqlite3.Connection, bool]:
    """Open the database of a table; return it, and whether it has the columns of identity.

    Args:
        file: the database; created if `writable` and missing.
        writable: whether it will be changed.
        seconds: how long to wait for another process to finish a change.
        longest_value: bytes of the longest value that is read.

    Raises:
        InputError: it is not such a database.
    """
    check_journals(file)
    # A reader must be able to roll back what a killed writer left half done.
    mode = "rwc" if writable else "rw" if os.access(file.parent, os.W_OK) else "ro"
    try:
        base = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode={mode}",
            timeout=seconds,
            isolation_level=None,
            uri=True,
        )
    except sqlite3.Error as error:
        raise refusal(file, f" ({error})") from None
    try:
        base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest_value)
        base.execute("PRAGMA trusted_schema = 0")
        has_columns = has_identity(base, file, may_lack=writable)
        if writable:
            create(base, add_identity=not has_columns)
            has_columns = True
        base.execute(f"PRAGMA query_only = {int(not writable)}")
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's message may not be UTF-8
        raise refusal(file, f" ({error})") from None
    except InputError:
        base.close()
        raise
    return base, has_columns
