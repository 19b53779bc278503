"""Add answers to a ratings file, so that what was confirmed is on the disk.

How a file is added to, and what holds when a process is killed, says `files.append_log`.
"""

import os
from dataclasses import astuple, replace

from deep_ranking.datasets.ratings import KIND, MAX_BYTES, TAKEN_BACK, Answer, read_standing
from deep_ranking.files import InputError
from deep_ranking.files.append_log import LOCK_SECONDS, AppendLog, now


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

    def add(self, *answers: Answer) -> None:
        """Add answers; when this returns, they are on the disk.

        Raises:
            InputError: the disk is full, the file cannot be written, or it is not a ratings file as
                this class writes it; the file is then as it was.
        """
        if any(each.answer == TAKEN_BACK for each in answers):
            raise InputError("an answer is taken back by its rater alone: call take_back")
        with self.locked():
            self.write([astuple(each) for each in answers], max_bytes=MAX_BYTES)

    def take_back(self, rater: str) -> Answer:
        """Take back the last answer of a rater that still stands, and return that answer.

        Raises:
            InputError: the rater has none, or as `add`.
        """
        with self.locked():
            last = read_standing(self.path).last_of(rater) if self.path.exists() else None
            if last is None:
                raise InputError(f"{self.path}: no answer of {rater} that could be taken back")
            self.write([astuple(replace(last, time=now(), answer=TAKEN_BACK))], max_bytes=MAX_BYTES)
        return last
