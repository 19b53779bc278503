"""Add answers to a ratings file, so that what was confirmed is on the disk.

An answer is one write, flushed to the disk before the call returns. Many raters and processes may
add to one file at the same time: a lock in the hidden file `.NAME.lock` beside it keeps them apart.
A process that is killed while it writes leaves a last line without its line break, which the next
one cuts off: it was never confirmed.
"""

import csv
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from datetime import UTC, datetime
from pathlib import Path

from deep_ranking.datasets.ratings import (
    COLUMNS,
    MAX_BYTES,
    TAKEN_BACK,
    Answer,
    read_standing,
)
from deep_ranking.files import InputError
from deep_ranking.files.csv_lines import BYTE_ORDER_MARK, MAX_LINE_LENGTH
from deep_ranking.files.opening import NON_BLOCKING
from deep_ranking.files.writing import sync_folder

LOCK_SECONDS = 30.0
HEADER = (",".join(COLUMNS) + "\n").encode()


def now() -> str:
    """Return the time in UTC as a ratings file has it, such as 2026-11-29T19:30:28.120Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AnswerLog:
    """Adds answers to one ratings file.

    Args:
        path: the file, which the first answer makes; its folder must exist.
        lock_seconds: how long to wait for others that are writing.

    Example:
        >>> log = AnswerLog("answers.csv")
        >>> log.add(Answer("2026-11-29T19:30:28Z", "Ann", "q.jpg", "a.jpg", "b.jpg", side="A"))
        >>> log.take_back("Ann").query
        'q.jpg'
    """

    def __init__(self, path: str | os.PathLike[str], *, lock_seconds: float = LOCK_SECONDS) -> None:
        self.path = Path(path)
        self.lock_seconds = lock_seconds

    def add(self, *answers: Answer) -> None:
        """Add answers; when this returns, they are on the disk.

        Raises:
            InputError: the disk is full, the file cannot be written, or it is not a ratings file as
                this class writes it; the file is then as it was.
        """
        if any(each.answer == TAKEN_BACK for each in answers):
            raise InputError("an answer is taken back by its rater alone: call take_back")
        with self._locked():
            self._write(answers)

    def take_back(self, rater: str) -> Answer:
        """Take back the last answer of a rater that still stands, and return that answer.

        Raises:
            InputError: the rater has none, or as `add`.
        """
        with self._locked():
            last = read_standing(self.path).last_of(rater) if self.path.exists() else None
            if last is None:
                raise InputError(f"{self.path}: no answer of {rater} that could be taken back")
            self._write([replace(last, time=now(), answer=TAKEN_BACK)])
        return last

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout  # late: it imports asyncio

        if not self.path.parent.is_dir():  # the lock would make it
            raise InputError(f"{self.path}: no such folder; make it first")
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=self.lock_seconds)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.path}: others have been writing to it for {self.lock_seconds:g} seconds; "
                "try again"
            ) from None
        except OSError as error:
            raise self._failed(error) from None
        try:
            yield
        finally:
            lock.release()

    def _write(self, answers: Sequence[Answer]) -> None:
        """Write lines at the end of the file, all or none of them."""
        lines = b"".join(_line(each) for each in answers)
        try:
            is_new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | NON_BLOCKING, 0o666)
            try:
                end = self._end_of_whole_lines(descriptor)
                if end + len(lines) > MAX_BYTES:
                    raise InputError(
                        f"{self.path}: {end:,} bytes, as many as a ratings file may have; begin "
                        "another one: the command reads several"
                    )
                os.ftruncate(descriptor, end)
                try:
                    _write_at(descriptor, lines if end else HEADER + lines, end)
                except BaseException:  # an interrupt too: what is not confirmed must not stay
                    with suppress(OSError):
                        os.ftruncate(descriptor, end)
                        os.fsync(descriptor)
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise self._failed(error) from None

    def _end_of_whole_lines(self, descriptor: int) -> int:
        """Return where the last line that has a line break ends.

        Raises:
            InputError: it is another file, of which nothing may be cut off.
        """
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{self.path}: not a regular file; choose another one")
        size = status.st_size
        begin = os.pread(descriptor, len(HEADER) + 200, 0)
        if not _begins_as_ours(begin):
            raise InputError(
                f"{self.path}: does not begin with {','.join(COLUMNS)}: another file, or one "
                "that a spreadsheet has saved; copy its answers into a new file: `ratings --import`"
            )
        tail_at = max(0, size - 2 * MAX_LINE_LENGTH)
        tail = os.pread(descriptor, size - tail_at, tail_at)
        return tail_at + tail.rfind(b"\n") + 1

    def _failed(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path}: the answer cannot be kept ({error.strerror}); free some room, or choose "
            "a folder that you can write to"
        )


def _begins_as_ours(begin: bytes) -> bool:
    """Return whether a file begins with our header, or is a part of it that was cut off."""
    if HEADER.startswith(begin):
        return True
    text = begin.decode("utf-8", "replace").removeprefix(BYTE_ORDER_MARK)
    first, ended, _ = text.partition("\n")
    return bool(ended) and first.replace('"', "").rstrip("\r") == ",".join(COLUMNS)


def _line(answer: Answer) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(astuple(answer))
    return text.getvalue().encode("utf-8", "surrogateescape")


def _write_at(descriptor: int, data: bytes, place: int) -> None:
    """Write all of the data at a place of a file, and wait until it is on the disk."""
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written
    os.fsync(descriptor)
