"""A CSV file with a header to which lines are only ever added, and which holds what was confirmed.

Lines are one write, flushed to the disk before the call returns. Many people and processes may add
to one file at the same time: a lock in the hidden file `.NAME.lock` beside it keeps them apart. A
process that is killed while it writes leaves a last line without its line break, which the next one
cuts off: it was never confirmed. Readers pass over it. Files that went through a spreadsheet are
read as well: semicolons or tabs, a byte order mark, CRLF, quotes, columns in another order.
"""

import csv
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deep_ranking.files.content_digest import Status, file_status
from deep_ranking.files.csv_lines import BYTE_ORDER_MARK, MAX_LINE_LENGTH, read_lines
from deep_ranking.files.errors import InputError
from deep_ranking.files.opening import NON_BLOCKING
from deep_ranking.files.words import counted
from deep_ranking.files.writing import sync_folder

LOCK_SECONDS = 30.0
SEPARATORS = ",;\t"  # of spreadsheets


def now() -> str:
    """Return the time in UTC as such files have it, such as 2026-11-29T19:30:28.120Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class LogKind:
    """What a file holds, for reading it and for errors about it.

    Attributes:
        name: of the file: "ratings".
        line: of what a line holds: "answer".
        columns: of the header, in the order in which they are written.
        source: how to get such a file.
        remedy: what to do with a file that a spreadsheet has saved, to add to it.
    """

    name: str
    line: str
    columns: tuple[str, ...]
    source: str
    remedy: str

    @property
    def header(self) -> bytes:
        """The first line, with its line break."""
        return (",".join(self.columns) + "\n").encode()

    def read(
        self, path: Path, *, max_bytes: int, max_lines: int, required: Sequence[str] | None = None
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the number of each line after the header, and its fields by column.

        Args:
            path: the file.
            max_bytes: largest size that is read.
            max_lines: most lines that are read.
            required: the columns that must be there; None for all.

        Raises:
            InputError: the file is missing, too large or of another kind; or, with path and line,
                a line has too few or too many fields.
        """
        names: list[str] = []
        lines = read_lines(
            path,
            kind=self.name,
            hint=self.source,
            separators=SEPARATORS,
            ended_only=True,
            max_bytes=max_bytes,
        )
        for count, (line, fields) in enumerate(lines):
            if not any(fields):
                continue
            if count > max_lines:
                raise InputError(
                    f"{path}:{line}: more than {max_lines:,} {self.line}s; split the file"
                )
            if not names:
                names = [each.strip().lower() for each in fields]
                known = len(set(names)) == len(names) and set(names) <= set(self.columns)
                if not known or not set(required or self.columns) <= set(names):
                    raise InputError(
                        f"{path}:{line}: not a {self.name} file: expected {','.join(self.columns)}"
                    )
                continue
            if len(fields) != len(names):
                raise InputError(
                    f"{path}:{line}: expected {counted(len(names), 'field')}, received "
                    f"{counted(len(fields), 'field')}; quote a path that has the separator in it"
                )
            yield line, dict(zip(names, fields, strict=True))


def is_cut_off(path: Path) -> bool:
    """Return whether the last line of a file lacks its line break."""
    if path.suffix.lower() == ".gz":
        return False  # a compressed file is whole, or an error
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) not in b"\r\n"


class AppendLog:
    """Adds lines to one such file.

    Args:
        path: the file, which the first line makes; its folder must exist.
        kind: what it holds.
        lock_seconds: how long to wait for others that are writing.

    Example:
        >>> log = AppendLog("ratings.csv", kind)
        >>> with log.locked():
        ...     log.write([("2026-11-29T19:30:28Z", "Ann")], max_bytes=1000)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: LogKind,
        *,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self.path = Path(path)
        self.kind = kind
        self.lock_seconds = lock_seconds

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from writing, so that what was read holds until it is added to.

        Raises:
            InputError: there is no such folder, or others write all the time.
        """
        from filelock import FileLock, Timeout  # late: it imports asyncio

        if not self.path.parent.is_dir():  # the lock would make it
            raise InputError(f"{self.path}: no such folder; make it first")
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=self.lock_seconds)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{self.path}: others have been writing to it for {self.lock_seconds:g} seconds; "
                "try again"
            ) from error
        except OSError as error:
            raise self._failed(error) from error
        try:
            yield
        finally:
            lock.release()

    def status(self) -> Status | None:
        """Return what changes when the file does; None if there is none.

        Raises:
            InputError: its folder cannot be read.
        """
        try:
            return file_status(self.path.stat())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from error

    def check(self) -> None:
        """Check that lines can be added, without adding any; a full disk is not noticed.

        Raises:
            InputError: as `locked`; the file cannot be written, or is another one.
        """
        with self.locked():
            if self.status() is None:
                return
            try:
                descriptor = os.open(self.path, os.O_RDWR | NON_BLOCKING)
            except OSError as error:
                raise self._failed(error) from error
            try:
                self._end_of_whole_lines(descriptor)
            finally:
                os.close(descriptor)

    def write(
        self, rows: Sequence[Sequence[str]], *, max_bytes: int
    ) -> tuple[Status | None, Status]:
        """Write lines at the end of the file, all or none of them; the caller holds the lock.

        Args:
            rows: the fields of each, in the order of the columns.
            max_bytes: the largest size of the file.

        Returns:
            The `status` before and after.

        Raises:
            InputError: the disk is full, the file cannot be written, or it is not a file as this
                class writes it; it is then as it was.
        """
        lines = b"".join(_line(each) for each in rows)
        header = self.kind.header
        try:
            before = self.status()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | NON_BLOCKING, 0o666)
            try:
                end = self._end_of_whole_lines(descriptor)
                if end + len(lines) > max_bytes:
                    raise InputError(
                        f"{self.path}: {end:,} bytes, as many as a {self.kind.name} file may have; "
                        "begin another one"
                    )
                os.ftruncate(descriptor, end)
                try:
                    _write_at(descriptor, lines if end else header + lines, end)
                except BaseException:  # an interrupt too: what is not confirmed must not stay
                    with suppress(OSError):
                        os.ftruncate(descriptor, end)
                        os.fsync(descriptor)
                    raise
                after = file_status(os.fstat(descriptor))
            finally:
                os.close(descriptor)
            if before is None:
                sync_folder(self.path.parent)
        except OSError as error:
            raise self._failed(error) from error
        return before, after

    def _end_of_whole_lines(self, descriptor: int) -> int:
        """Return where the last line that has a line break ends.

        Raises:
            InputError: it is another file, of which nothing may be cut off.
        """
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{self.path}: not a regular file; choose another one")
        size = status.st_size
        if not self._begins_as_ours(os.pread(descriptor, len(self.kind.header) + 200, 0)):
            raise InputError(
                f"{self.path}: does not begin with {','.join(self.kind.columns)}: another file, "
                f"or one that a spreadsheet has saved; {self.kind.remedy}"
            )
        tail_at = max(0, size - 2 * MAX_LINE_LENGTH)
        tail = os.pread(descriptor, size - tail_at, tail_at)
        return tail_at + tail.rfind(b"\n") + 1

    def _begins_as_ours(self, begin: bytes) -> bool:
        """Return whether a file begins with our header, or is a part of it that was cut off."""
        if self.kind.header.startswith(begin):
            return True
        text = begin.decode("utf-8", "replace").removeprefix(BYTE_ORDER_MARK)
        first, ended, _ = text.partition("\n")
        plain = first.replace('"', "").rstrip("\r")
        return bool(ended) and plain == ",".join(self.kind.columns)

    def _failed(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path}: the {self.kind.line} cannot be kept ({error.strerror}); free some room, "
            "or choose a folder that you can write to"
        )


def _line(fields: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _write_at(descriptor: int, data: bytes, place: int) -> None:
    """Write all of the data at a place of a file, and wait until it is on the disk."""
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written
    os.fsync(descriptor)
