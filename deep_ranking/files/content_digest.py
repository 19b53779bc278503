"""SHA-256 of the contents of files, and a table that remembers them.

`known_contents.sqlite` maps path, size, time of change, inode and time of change of the inode to
the SHA-256 of a file. It is in the folder that the environment variable DEEP_RANKING_CACHE names,
or else in the user's cache folder: ~/.cache/deep_ranking on Linux. Training, indexing and the
doctor share it, so that no file is hashed twice. The table only saves time: where it cannot be read
or written, every file is hashed.
"""

import hashlib
import io
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from deep_ranking.files.cache_folder import cache_folder
from deep_ranking.files.errors import InputError
from deep_ranking.files.opening import open_regular
from deep_ranking.files.progress_bar import progress_bar

PathLike = str | os.PathLike[str]
Status = tuple[int, int, int, int]

TABLE = "known_contents.sqlite"
VERSION = 1
FILES_AT_ONCE = 2_000
SECONDS_TO_WAIT = 10.0
"""For another process that writes to the table."""
SETTLED_SECONDS = 3.0
"""A file that changed less than this before it was hashed may change again unseen: file systems
tell times apart by up to two seconds."""
DAYS_KEPT = 365
MAX_INTEGER = (1 << 63) - 1
"""Of SQLite. Some file systems number inodes up to twice that."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS contents (
    path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, inode INTEGER, inode_changed INTEGER,
    content BLOB, day INTEGER
) WITHOUT ROWID
"""
ADD = "INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?, ?, ?)"
FIND = "SELECT size, changed, inode, inode_changed, content FROM contents WHERE path = ?"
FORGET = "DELETE FROM contents WHERE day < ?"


def content_digest(*paths: PathLike) -> bytes:
    """Return the SHA-256 of the content of a file, or of several as if they were one: 32 bytes.

    Raises:
        OSError: a file cannot be read, or is no regular file.
    """
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.digest()


def data_digest(data: bytes) -> bytes:
    """Return the SHA-256 of the content of a file that was read already: 32 bytes."""
    return hashlib.sha256(data).digest()


def content_digests(
    paths: Sequence[PathLike],
    *,
    open_file: Callable[[PathLike], io.BufferedReader] = open_regular,
    trust_table: bool = True,
) -> Iterator[bytes | InputError]:
    """Yield the SHA-256 of each file, with a progress bar; only unknown contents are read.

    Args:
        paths: the files.
        open_file: opens a file for reading, or raises an `InputError`.
        trust_table: whether a file with known path, size, times and inode is not read.

    Yields:
        In the order of `paths`: 32 bytes, or what is wrong with the file.
    """

    def hashed(path: PathLike) -> tuple[bytes | InputError, Status | None]:
        try:
            with open_file(path) as file:
                before = file_status(os.fstat(file.fileno()))
                digest = hashlib.file_digest(file, "sha256").digest()
                after = file_status(os.fstat(file.fileno()))
        except InputError as error:
            return error, None
        except OSError as error:
            return InputError(f"{path}: cannot be read ({error.strerror or error})"), None
        except ValueError as error:  # a zero in the path
            return InputError(f"{path}: cannot be read ({error})"), None
        return digest, after if before == after else None

    with (
        KnownContents() as known,
        ThreadPoolExecutor() as pool,
        progress_bar(total=len(paths), title="hashing", unit="images") as bar,
    ):
        for begin in range(0, len(paths), FILES_AT_ONCE):
            part = paths[begin : begin + FILES_AT_ONCE]
            found = {path: known.find(path) if trust_table else None for path in part}
            contents: dict[PathLike, bytes | InputError] = {
                path: content for path, content in found.items() if content is not None
            }
            missing = [path for path in found if path not in contents]
            bar.update(len(part) - len(missing))
            learned = []
            for path, (content, status) in zip(missing, pool.map(hashed, missing), strict=True):
                contents[path] = content
                if status is not None and isinstance(content, bytes):
                    learned.append((path, status, content))
                bar.update()
            known.add(learned)  # before the caller, who may stop, gets any of them
            yield from (contents[path] for path in part)


class KnownContents:
    """The table of known contents; a context manager."""

    def __init__(self) -> None:
        self._base: sqlite3.Connection | None = None
        self._has_forgotten = False
        # Asking for a file in a folder that may not be entered is an error.
        with suppress(OSError):
            if (folder := cache_folder()) is not None:
                self._open(folder / TABLE)

    def _open(self, file: Path) -> None:
        """Open the table; begin it anew where it is damaged or of another version."""
        for _ in range(2):
            if file.exists() and not file.is_file():
                return
            try:
                base = sqlite3.connect(file, timeout=SECONDS_TO_WAIT, isolation_level=None)
            except sqlite3.Error:
                return
            try:
                if base.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
                    raise sqlite3.DatabaseError("another version")
                base.execute(SCHEMA)
                base.execute(f"PRAGMA user_version = {VERSION}")
                base.execute("PRAGMA synchronous = OFF")  # a lost entry is hashed again
                base.execute(FIND, (b"",)).fetchone()
            except sqlite3.OperationalError:  # locked, read-only, or the disk is full
                base.close()
                return
            except (sqlite3.DatabaseError, UnicodeDecodeError):  # its message may not be UTF-8
                base.close()
                with suppress(OSError):
                    file.unlink()
                continue
            self._base = base
            return

    def __enter__(self) -> "KnownContents":
        return self

    def __exit__(self, *_: object) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None

    def find(self, path: PathLike) -> bytes | None:
        """Return the content of a file if it is known, and unchanged since: its SHA-256."""
        if self._base is not None:
            with suppress(OSError, ValueError, sqlite3.Error):
                status = file_status(os.stat(path))
                entry = self._base.execute(FIND, (_key(path),)).fetchone()
                if entry and entry[:4] == status and _is_digest(entry[4]):
                    return bytes(entry[4])
        return None

    def add(self, files: Iterable[tuple[PathLike, Status, bytes]]) -> None:
        """Remember the contents of files, by their path and their status when they were read."""
        now = time.time()
        day = int(now // 86_400)
        settled = (now - SETTLED_SECONDS) * 1e9
        entries = [
            (_key(path), *status, content, day)
            for path, status, content in files
            if max(status[1], status[3]) < settled
        ]
        if self._base is None or not entries:
            return
        with suppress(sqlite3.Error):  # the next run hashes these files again
            self._base.execute("BEGIN IMMEDIATE")
            try:
                if not self._has_forgotten:
                    self._base.execute(FORGET, (day - DAYS_KEPT,))
                    self._has_forgotten = True
                self._base.executemany(ADD, entries)
                self._base.execute("COMMIT")
            finally:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")


def _is_digest(content: Any) -> bool:
    return isinstance(content, bytes) and len(content) == 32


def _key(path: PathLike) -> bytes:
    return os.fsencode(os.path.abspath(path))


def file_status(status: os.stat_result) -> Status:
    """Return size, time of change, inode and time of change of the inode: what `Status` holds.

    While all of them are the same, so is the content, except for changes within one tick of the
    file system's clock.
    """
    inode = status.st_ino & MAX_INTEGER
    changed = min(status.st_mtime_ns, MAX_INTEGER)  # a file system may date files after 2262
    return status.st_size, changed, inode, min(status.st_ctime_ns, MAX_INTEGER)
