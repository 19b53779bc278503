"""The corrections file: labels that people say are wrong; `correcting` applies it to images.

A CSV file with a header, one correction a line, to which lines are only ever added:

    time        UTC, as 2026-11-29T19:30:28.120Z; may be empty
    who         who says so; may be empty
    path        of the image, from the folder of the data set, with "/"
    from_class  the class by the folders, or by the class file; empty for whatever it is
    to_class    the right class; empty leaves the image out: it belongs to no class
    note        why; may be empty; "undone" where the line undoes the one before it

A later line about the same path replaces an earlier one. A line whose `to_class` is its
`from_class` says that this label is right: earlier lines do not stand, and the image is suspected
no more. The same correction once more says that a corrected class is right. No file is ever moved.
In a file that a person wrote, `path` and `to_class` are enough. How such a file is added to, and
what spreadsheets may do to it, says `files.append_log`.
"""

import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from deep_ranking.datasets.labels import normal_label
from deep_ranking.files import InputError
from deep_ranking.files.append_log import LOCK_SECONDS, AppendLog, LogKind, is_cut_off
from deep_ranking.files.errors import CONTROL_CHARACTERS

MAX_BYTES = 1 << 25
MAX_LINES = 1 << 20
UNDONE = "undone"  # the note of a line that undoes the one before it
MAX_TEXT = 2000  # characters of a name, a class or a note
KIND = LogKind(
    name="corrections",
    line="correction",
    columns=("time", "who", "path", "from_class", "to_class", "note"),
    source="`evaluate --atlas DIR` writes DIR/suspects.csv, which a person edits",
    remedy="save it with these columns in this order, separated by commas, or choose another file",
)


@dataclass(frozen=True, slots=True)
class Correction:
    """One line of a corrections file; the attributes are its columns.

    Raises:
        InputError: a value cannot stand in a corrections file.

    Example:
        >>> Correction("Apple/7.jpg", "Apple", "Pear").keeps_class
        False
    """

    path: str
    from_class: str
    to_class: str
    time: str = ""
    who: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("who", "from_class", "to_class", "note", "time"):
            value = getattr(self, name)
            if len(value) > MAX_TEXT or CONTROL_CHARACTERS.search(value):
                raise InputError(
                    f"{name} must be up to {MAX_TEXT:,} characters in one line, not {value[:60]!r}"
                )
        if not self.path:
            raise InputError("the path is empty")
        if self.path.startswith("/") or ".." in self.path.split("/") or "\0" in self.path:
            raise InputError(
                f"{self.path}: paths start from the folder of the data set and stay in it"
            )

    @property
    def keeps_class(self) -> bool:
        """Whether the line says that the folders are right, so that earlier ones do not stand."""
        return bool(self.from_class) and self.from_class == self.to_class

    def fields(self) -> tuple[str, ...]:
        """Return the fields in the order of the file's columns."""
        return tuple(getattr(self, name) for name in KIND.columns)


@dataclass(frozen=True)
class Corrections:
    """The corrections of a file that stand.

    Attributes:
        file: the file.
        standing: the last correction of each image, by its path; none that was taken back.
        num_replaced: lines that a later one about the same image replaced.
        returned: the class by the folders of each image about which there are lines, though no
            correction stands.
        right: the last line about each image whose class a person said is right: a line that keeps
            the class by the folders, or that says again what the line before it says.
        cut_off: whether the last line lacks its line break, and was passed over.

    Example:
        >>> read_corrections("corrections.csv").standing["cat/0.png"].to_class
        'dog'
    """

    file: Path
    standing: dict[str, Correction]
    num_replaced: int = 0
    returned: dict[str, str] = field(default_factory=dict)
    right: dict[str, Correction] = field(default_factory=dict)
    cut_off: bool = False

    def __len__(self) -> int:
        """Return the number of corrections that stand."""
        return len(self.standing)


class CorrectionLog(AppendLog):
    """Adds corrections to one file; when a call returns, they are on the disk.

    Args:
        path: the file, which the first correction makes; its folder must exist.
        lock_seconds: how long to wait for others that are writing.

    Example:
        >>> log = CorrectionLog("wrong.csv")
        >>> log.add(Correction("cat/0.png", "cat", "dog"))
        >>> log.take_back("cat/0.png").to_class
        'dog'
    """

    def __init__(self, path: str | os.PathLike[str], *, lock_seconds: float = LOCK_SECONDS) -> None:
        super().__init__(path, KIND, lock_seconds=lock_seconds)

    def read(self) -> Corrections:
        """Return the corrections that stand; none of a file that is not there yet.

        Raises:
            InputError: as `read_corrections`.
        """
        return read_corrections(self.path) if self.path.exists() else Corrections(self.path, {})

    def add(self, *corrections: Correction) -> None:
        """Add corrections.

        Raises:
            InputError: the disk is full, the file cannot be written, or it is not a corrections
                file as this class writes it; the file is then as it was.
        """
        with self.locked():
            self.write([each.fields() for each in corrections], max_bytes=MAX_BYTES)

    def take_back(self, path: str, *, time: str = "", who: str = "") -> Correction:
        """Undo the last line about an image, so that what stood before it stands again.

        Args:
            path: of the image.
            time: of the undo.
            who: who undoes it.

        Returns:
            The correction that no longer stands.

        Raises:
            InputError: no correction of the image stands, or as `add`.
        """
        with self.locked():
            lines = [] if not self.path.exists() else [each for _, each in _lines(self.path)]
            said = _said([each for each in lines if each.path == path]).get(path, [])
            if not said:
                raise InputError(f"{self.path}: no correction of {path} that could be taken back")
            last = said[-1]
            if len(said) == 1 and not last.from_class:
                raise InputError(
                    f"{self.path}: the correction of {path} has no from_class; remove its line"
                )
            before = said[-2] if len(said) > 1 else replace(last, to_class=last.from_class)
            undo = replace(before, time=time, who=who, note=UNDONE)
            self.write([undo.fields()], max_bytes=MAX_BYTES)
        return last


def _said(lines: Iterable[Correction]) -> dict[str, list[Correction]]:
    """Return the lines about each image that were not undone, in order."""
    said: dict[str, list[Correction]] = {}
    for each in lines:
        of_image = said.setdefault(each.path, [])
        if each.note == UNDONE:
            of_image[-1:] = []
            if each.keeps_class if not of_image else _say_the_same(each, of_image[-1]):
                continue
        of_image.append(each)  # of an undo that fits no line before it, the classes count
    return said


def _say_the_same(first: Correction, second: Correction) -> bool:
    return (first.from_class, first.to_class) == (second.from_class, second.to_class)


def _is_right(said: list[Correction]) -> bool:
    """Return whether the last line about an image says that its class is right."""
    return said[-1].keeps_class or (len(said) > 1 and _say_the_same(said[-2], said[-1]))


def read_corrections(path: str | os.PathLike[str]) -> Corrections:
    """Read a corrections file.

    Example:
        >>> len(read_corrections("corrections.csv"))
        1

    Raises:
        InputError: the file is missing, too large or not a corrections file; or, with path and
            line, a line is wrong.
    """
    file = Path(path)
    lines = [each for _, each in _lines(file)]
    said, last = _said(lines), {each.path: each for each in lines}
    standing = {path: each[-1] for path, each in said.items() if each and not each[-1].keeps_class}
    returned = {path: each.from_class for path, each in last.items() if path not in standing}
    right = {path: each[-1] for path, each in said.items() if each and _is_right(each)}
    num_replaced = len(lines) - len(standing) - len(returned)
    return Corrections(file, standing, num_replaced, returned, right, is_cut_off(file))


def _lines(file: Path) -> Iterator[tuple[int, Correction]]:
    for line, fields in KIND.read(
        file, max_bytes=MAX_BYTES, max_lines=MAX_LINES, required=("path", "to_class")
    ):
        try:
            values = {"from_class": ""} | fields
            values |= {
                "path": posixpath.normpath(fields["path"]) if fields["path"] else "",
                "from_class": normal_label(values["from_class"]),
                "to_class": normal_label(fields["to_class"]),
            }
            yield line, Correction(**values)
        except InputError as error:
            raise InputError(f"{file}:{line}: {error}; mend this line, or remove it") from None
