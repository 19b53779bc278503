"""Add answers to a ratings file, so that what was confirmed is on the disk.

How a file is added to, and what holds when a process is killed, says `files.append_log`. The
answers that stand are kept in memory, and read again only if another process has changed the file.
"""

import os
import threading
from dataclasses import astuple, replace

from deep_ranking.datasets.ratings import (
    KIND,
    MAX_BYTES,
    TAKEN_BACK,
    Answer,
    Standing,
    read_standing,
)
from deep_ranking.files import InputError
from deep_ranking.files.append_log import LOCK_SECONDS, AppendLog, now
from deep_ranking.files.content_digest import Status


class AnswerLog(AppendLog):
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
        super().__init__(path, KIND, lock_seconds=lock_seconds)
        self._one_thread = threading.RLock()
        self._known: Standing | None = None
        self._status: Status | None = None  # of the file that `_known` was read from

    def standing(self) -> Standing:
        """Return the answers that stand now; none without a file.

        Raises:
            InputError: it is not a ratings file, or a line is wrong.
        """
        with self._one_thread:
            status = self.status()
            if self._known is None or status != self._status:
                # What is added while it is read changes its status: then it is read again.
                self._known = Standing() if status is None else read_standing(self.path)
                self._status = status
            return self._known

    def add(self, *answers: Answer) -> None:
        """Add answers; when this returns, they are on the disk.

        Raises:
            InputError: the disk is full, the file cannot be written, or it is not a ratings file as
                this class writes it; the file is then as it was.
        """
        if any(each.answer == TAKEN_BACK for each in answers):
            raise InputError("an answer is taken back by its rater alone: call take_back")
        with self._one_thread, self.locked():
            self._write(*answers)

    def take_back(self, rater: str, number: int = 1) -> Answer:
        """Take back the last answers of a rater that still stand: all of them, or none.

        Args:
            rater: whose.
            number: how many.

        Returns:
            The earliest of them.

        Raises:
            InputError: the rater has fewer, or as `add`.
        """
        with self._one_thread, self.locked():
            own = self.standing().of_rater(rater)
            if len(own) < number:
                raise InputError(f"{self.path}: no answer of {rater} that could be taken back")
            last_first = own[: -number - 1 : -1]
            self._write(*(replace(each, time=now(), answer=TAKEN_BACK) for each in last_first))
        return last_first[-1]

    def _write(self, *answers: Answer) -> None:
        before, after = self.write([astuple(each) for each in answers], max_bytes=MAX_BYTES)
        if self._known is not None and self._status == before:
            for each in answers:
                self._known.add(each)
            self._known.cut_off, self._status = False, after
