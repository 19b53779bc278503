"""The ratings file: what people answered to "which of A and B is more like Q?".

A CSV file with a header, one answer a line, to which lines are only ever added:

    time     UTC, as 2026-11-29T19:30:28.120Z; one without a zone is taken for UTC
    rater    who answered
    query    path of the picture Q, from the folder of the images, with "/"
    chosen   path of the picture that is more like it
    other    path of the other picture
    answer   chosen; cannot_say, where `chosen` is just one of the two; or taken_back
    asked    why it was asked: informative, random, repeat; imported from elsewhere; example, from
             plus and minus examples of a search; duplicate, from what was no duplicate
    side     where `chosen` was shown: A or B; empty if that is not known
    model    fingerprint of the model that chose the question; may be empty

A line `taken_back` names the last answer of its rater that still stands, which then no longer
stands. A last line without a line break is of a writer that was stopped: it is passed over, and
counted. Files that went through a spreadsheet are read as well: semicolons or tabs, a byte order
mark, CRLF, quotes, columns in another order. `answer_log` writes the file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.append_log import LogKind, is_cut_off
from deep_ranking.files.array_types import BoolArray, Int32Array, Int64Array
from deep_ranking.files.errors import CONTROL_CHARACTERS

COLUMNS = ("time", "rater", "query", "chosen", "other", "answer", "asked", "side", "model")
PATHS = ("query", "chosen", "other")
CHOSEN, CANNOT_SAY, TAKEN_BACK = ANSWERS = ("chosen", "cannot_say", "taken_back")
ASKED = ("informative", "random", "repeat", "imported", "example", "duplicate")
INFORMATIVE, RANDOM, REPEAT, IMPORTED, EXAMPLE, DUPLICATE = ASKED
SIDES = ("A", "B", "")
KIND = LogKind(
    name="ratings",
    line="answer",
    columns=COLUMNS,
    source="people make it by answering, and `ratings --import` from triplets",
    remedy="copy its answers into a new file: `ratings --import`",
)
MAX_BYTES = 1 << 25  # 300,000 answers, which take some 300 MB of memory
MAX_ANSWERS = 1 << 20  # more than fit into these bytes, unless they are compressed
MAX_NAME = 200  # characters of a rater's or a model's name


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of a ratings file; the attributes are its columns.

    Raises:
        InputError: a value cannot stand in a ratings file.

    Example:
        >>> Answer("2026-11-29T19:30:28Z", "Ann", "q.jpg", "a.jpg", "b.jpg").answer
        'chosen'
    """

    time: str
    rater: str
    query: str
    chosen: str
    other: str
    answer: str = CHOSEN
    asked: str = RANDOM
    side: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("answer", ANSWERS), ("asked", ASKED), ("side", SIDES)):
            if (value := getattr(self, name)) not in allowed:
                raise InputError(f"{name} must be {_one_of(allowed)}, not {value!r}")
        check_rater(self.rater)
        _check_name("model", self.model)
        for name in PATHS:
            _check_path(name, getattr(self, name))
        if len({self.query, self.chosen, self.other}) < len(PATHS):
            raise InputError("query, chosen and other must be three different images")
        self.moment()

    def moment(self) -> datetime:
        """Return the time, in UTC."""
        try:
            moment = datetime.fromisoformat(self.time)
            return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InputError(
                f"time must be as in 2026-11-29T19:30:28Z, not {self.time[:40]!r}; a spreadsheet "
                "may have changed it"
            ) from None

    def is_of(self, other: "Answer") -> bool:
        """Return whether the other line is about the same answer of the same rater."""
        names = ("rater", *PATHS)
        return all(getattr(self, name) == getattr(other, name) for name in names)


def check_rater(name: str) -> None:
    """Raise InputError for an empty name, one of several lines, or with blanks around it."""
    _check_name("rater", name)
    if not name:
        raise InputError("the rater is empty; give a name")


def _check_name(kind: str, name: str) -> None:
    if len(name) > MAX_NAME or CONTROL_CHARACTERS.search(name) or name != name.strip():
        raise InputError(
            f"the {kind} must be up to {MAX_NAME} characters in one line, without blanks "
            f"around it, not {name[: MAX_NAME + 1]!r}"
        )


def _one_of(words: Sequence[str]) -> str:
    *most, last = (word or "empty" for word in words)
    return f"{', '.join(most)} or {last}"


def _check_path(name: str, path: str) -> None:
    if not path:
        raise InputError(f"the path of {name} is empty")
    if any(sign in path for sign in "\n\r\0") or path.lstrip()[:1] == '"' != path[:1]:
        raise InputError(
            f"{path!r}: a path with a line break, or with a quote after blanks, cannot stand in a "
            "ratings file; rename the image"
        )
    if path.startswith("/") or ".." in path.split("/"):
        raise InputError(f"{path}: paths start from the folder of the images and stay in it")


@dataclass(frozen=True)
class Ratings:
    """Answers of one or more ratings files: tables of names, and indices into them.

    Attributes:
        files: the files, in the order in which they were given.
        paths: image paths as in the files, each once.
        raters: names of the raters, each once, in order of appearance.
        rows: int32 (answers, 3), indices into `paths`: query, chosen, other.
        rater: int32 (answers,), indices into `raters`.
        times: datetime64[ms] (answers,), UTC.
        answer: int8 (answers,), indices into `ANSWERS`: 0 for chosen, 1 for cannot say.
        asked: int8 (answers,), indices into `ASKED`.
        side: int8 (answers,), where `chosen` was shown: 0 for A, 1 for B, 2 if it is not known.
        num_taken_back: answers that their raters took back; they are not among the others.
        num_copied: answers that several of the files hold; each is counted once.
        cut_off: the files whose last line was cut off; it was never confirmed.

    Example:
        >>> ratings = read_ratings("ratings.csv")
        >>> len(ratings), ratings.raters
        (12, ['Ann', 'Bob'])
    """

    files: tuple[Path, ...]
    paths: list[str]
    raters: list[str]
    rows: Int32Array
    rater: Int32Array
    times: npt.NDArray[np.datetime64]
    answer: npt.NDArray[np.int8]
    asked: npt.NDArray[np.int8]
    side: npt.NDArray[np.int8]
    num_taken_back: int = 0
    num_copied: int = 0
    cut_off: tuple[Path, ...] = ()

    def __len__(self) -> int:
        """Return the number of answers that stand."""
        return len(self.rows)

    @property
    def decided(self) -> BoolArray:
        """Whether each answer chose an image: bool (answers,)."""
        return np.equal(self.answer, ANSWERS.index(CHOSEN))

    def questions(self) -> tuple[Int64Array, BoolArray]:
        """Return the question of each answer, whichever side its images were shown on.

        Returns:
            int64 (answers,), equal for the same query and the same two images; and bool
            (answers,), whether the chosen image is the first of the two by its row.
        """
        query, chosen, other = self.rows.T
        first = chosen < other
        keys = np.stack([query, np.minimum(chosen, other), np.maximum(chosen, other)], axis=1)
        _, question = np.unique(keys, axis=0, return_inverse=True)
        return question.reshape(-1).astype(np.int64), first

    def take(self, wanted: BoolArray) -> Self:
        """Return the answers that `wanted`, bool (answers,), chooses; all else is the same."""
        names = ("rows", "rater", "times", "answer", "asked", "side")
        return replace(self, **{name: getattr(self, name)[wanted] for name in names})


def read_ratings(*paths: str | os.PathLike[str]) -> Ratings:
    """Read ratings files as one.

    Args:
        *paths: the files, with paths from the same folder of images.

    Returns:
        The answers that stand, in the order of the files and their lines. An answer that several
        files hold, as copies of one file do, is there once.

    Example:
        >>> read_ratings("ratings.csv").decided.sum()
        np.int64(11)

    Raises:
        InputError: a file is missing, too large or not a ratings file; or, with path and line, a
            line is wrong.
    """
    return ratings_of({Path(path): read_standing(Path(path)) for path in paths})


def ratings_of(standing: Mapping[Path, "Standing"]) -> Ratings:
    """Return the answers that stand in some files, as `read_ratings` does."""
    answers: list[Answer] = []
    for each in standing.values():
        before = set(answers)
        answers += [answer for answer in each.answers if answer not in before]
    indices: dict[str, int] = {}
    raters: dict[str, int] = {}
    for answer in answers:
        raters.setdefault(answer.rater, len(raters))
        for name in PATHS:
            indices.setdefault(getattr(answer, name), len(indices))
    rows = [[indices[getattr(each, name)] for name in PATHS] for each in answers]
    moments = [round(each.moment().timestamp() * 1000) for each in answers]
    return Ratings(
        tuple(standing),
        list(indices),
        list(raters),
        np.array(rows, np.int32).reshape(-1, len(PATHS)),
        np.array([raters[each.rater] for each in answers], np.int32),
        np.array(moments, np.int64).astype("datetime64[ms]"),
        np.array([ANSWERS.index(each.answer) for each in answers], np.int8),
        np.array([ASKED.index(each.asked) for each in answers], np.int8),
        np.array([SIDES.index(each.side) for each in answers], np.int8),
        num_taken_back=sum(each.num_taken_back for each in standing.values()),
        num_copied=sum(len(each.answers) for each in standing.values()) - len(answers),
        cut_off=tuple(file for file, each in standing.items() if each.cut_off),
    )


class Standing:
    """The answers of a file that stand.

    Attributes:
        last_line: number of the last line that was taken in.
        num_taken_back: answers that were taken back.
        cut_off: whether the last line is cut off.
    """

    def __init__(self) -> None:
        self.last_line = 0
        self.num_taken_back = 0
        self.cut_off = False
        self._by_line: dict[int, Answer] = {}
        self._of_rater: dict[str, list[int]] = {}

    @property
    def answers(self) -> list[Answer]:
        """The answers, in the order of the lines."""
        return list(self._by_line.values())

    def of_rater(self, rater: str) -> list[Answer]:
        """Return the answers of one rater, the last one last."""
        return [self._by_line[line] for line in self._of_rater.get(rater, ())]

    def add(self, answer: Answer, line: int | None = None) -> None:
        """Take in the next line of the file, by its number; None for the next one.

        Raises:
            InputError: it takes back another answer than the rater's last that stands.
        """
        self.last_line = line = self.last_line + 1 if line is None else line
        own = self._of_rater.setdefault(answer.rater, [])
        if answer.answer != TAKEN_BACK:
            self._by_line[line] = answer
            own.append(line)
            return
        if not own or not answer.is_of(self._by_line[own[-1]]):
            which = "none that stands" if not own else f"line {own[-1]} as the last that stands"
            raise InputError(
                f"takes back an answer of {answer.rater}, who has {which}; put the lines into the "
                "order of their times, or remove this one"
            )
        del self._by_line[own.pop()]
        self.num_taken_back += 1


def read_standing(path: Path) -> Standing:
    """Read the answers of a file that stand.

    Raises:
        InputError: as `read_ratings`.
    """
    standing = Standing()
    for line, answer in _answers(path):
        try:
            standing.add(answer, line)
        except InputError as error:
            raise InputError(f"{path}:{line}: {error}") from None
    standing.cut_off = is_cut_off(path)
    return standing


def _answers(path: Path) -> Iterator[tuple[int, Answer]]:
    """Yield the lines of a file after the header, each with its number."""
    for line, fields in KIND.read(path, max_bytes=MAX_BYTES, max_lines=MAX_ANSWERS):
        yield line, _answer_of(path, line, fields)


def _answer_of(path: Path, line: int, fields: Mapping[str, str]) -> Answer:
    try:
        return Answer(**fields)
    except InputError as error:
        raise InputError(f"{path}:{line}: {error}; mend this line, or remove it") from None
