"""The file of pairs that people told apart, though a program took them for duplicates.

It lies beside the index, INDEX.not_duplicates.csv: a CSV file with a header, one pair a line, to
which lines are only ever added:

    time    UTC, as 2026-11-29T19:30:28.120Z; may be empty
    who     who says so; may be empty
    image   path of one image, from the folder of the images, with "/"
    other   path of the other one; the order of the two means nothing
    answer  different; or taken_back, after which an earlier line about the pair does not stand

How such a file is added to, and what spreadsheets may do to it, says `files.append_log`.
"""

import os
from pathlib import Path

from deep_ranking.files import InputError
from deep_ranking.files.append_log import LOCK_SECONDS, AppendLog, LogKind, now
from deep_ranking.files.errors import CONTROL_CHARACTERS

SUFFIX = ".not_duplicates.csv"
DIFFERENT, TAKEN_BACK = "different", "taken_back"
MAX_BYTES = 1 << 25
MAX_LINES = 1 << 20
MAX_NAME = 200  # characters
KIND = LogKind(
    name="not_duplicates",
    line="pair",
    columns=("time", "who", "image", "other", "answer"),
    source='the page of `serve` writes it, by "not a duplicate"',
    remedy="save it as CSV with commas",
)
Pair = frozenset[str]
"""The paths of two images."""


def path_beside(index: str | os.PathLike[str]) -> Path:
    """Return the file of an index.

    Example:
        >>> path_beside("photos.index").name
        'photos.index.not_duplicates.csv'
    """
    folder = Path(os.path.abspath(index))
    return folder.with_name(folder.name + SUFFIX)


def read_not_duplicates(path: Path) -> dict[Pair, str]:
    """Return the pairs that stand, each with who said so last; none if there is no such file.

    Raises:
        InputError: it is another file, or a line is wrong.
    """
    pairs: dict[Pair, str] = {}
    if not path.exists():
        return pairs
    for line, fields in KIND.read(path, max_bytes=MAX_BYTES, max_lines=MAX_LINES):
        try:
            pair = checked_pair(fields["image"], fields["other"], fields["who"])
            if fields["answer"] not in (DIFFERENT, TAKEN_BACK):
                raise InputError(
                    f"answer must be {DIFFERENT!r} or {TAKEN_BACK!r}, not {fields['answer'][:40]!r}"
                )
        except InputError as error:
            raise InputError(f"{path}:{line}: {error}; mend this line, or remove it") from None
        pairs.pop(pair, None)
        if fields["answer"] == DIFFERENT:
            pairs[pair] = fields["who"]
    return pairs


class NotDuplicatesLog(AppendLog):
    """Adds pairs to one such file.

    Args:
        path: the file, which the first pair makes; its folder must exist.
        lock_seconds: how long to wait for others that are writing.

    Example:
        >>> log = NotDuplicatesLog(path_beside("photos.index"))
        >>> log.add("cat/0.png", "cat/1.png", who="Ann")
        >>> log.take_back("cat/1.png", "cat/0.png")
        >>> read_not_duplicates(log.path)
        {}
    """

    def __init__(self, path: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        super().__init__(path, KIND, lock_seconds=lock_seconds)

    def add(self, image: str, other: str, *, who: str = "") -> None:
        """Add a pair; when this returns, it is on the disk.

        Raises:
            InputError: a path or name cannot stand in the file, or it cannot be written.
        """
        self._add(image, other, who, DIFFERENT)

    def take_back(self, image: str, other: str, *, who: str = "") -> None:
        """Say that a pair may be duplicates again.

        Raises:
            InputError: as `add`.
        """
        self._add(image, other, who, TAKEN_BACK)

    def _add(self, image: str, other: str, who: str, answer: str) -> None:
        checked_pair(image, other, who)
        with self.locked():
            self.write([(now(), who, image, other, answer)], max_bytes=MAX_BYTES)


def checked_pair(image: str, other: str, who: str) -> Pair:
    """Return a pair.

    Raises:
        InputError: it is none, or it cannot stand in the file.
    """
    for path in (image, other):
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise InputError(f"{path or 'a path'}: paths start from the folder of the images")
        if any(sign in path for sign in "\n\r\0"):
            raise InputError(f"{path!r}: a path with a line break cannot stand here")
    if image == other:
        raise InputError(f"{image}: is there twice; a pair is of two images")
    if len(who) > MAX_NAME or CONTROL_CHARACTERS.search(who):
        raise InputError(f"who must be up to {MAX_NAME} characters in one line")
    return frozenset((image, other))
