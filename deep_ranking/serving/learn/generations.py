"""INDEX.taught/: what was taught on an index, and which of it is shown.

    1/model.h5     a model that was taught, beside its compiled file; the number is its generation
    1/index/       the index by that model
    current.json   which generation is shown, 0 for the index itself; and what is known of each
    space.npz      in which questions are chosen, see `taught_space`
    making/        one that is not complete
    making.lock    held while one is made
    current.lock   held while current.json is changed

A generation is complete once `current.json` names it. A process that is killed at any instant
leaves that file as it was before, or as it is after; the next one removes what else was left.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_origin, get_type_hints

from deep_ranking.files import InputError, atomic_path, make_folder, read_text_file
from deep_ranking.files.writing import sync_folder
from deep_ranking.search.collection import Collection

SUFFIX = ".taught"
CURRENT, MAKING = "current.json", "making"
LOCK_SECONDS = 10.0
MODEL, INDEX, SPACE = "model.h5", "index", "space.npz"
MOST_KEPT = 5
"""Generations whose files are kept; of earlier ones the history stays."""
MOST_TOLD = 200  # generations in the history


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What is known of a model that was taught.

    Attributes:
        number: from 1.
        time: when it was made, UTC, as a ratings file has it.
        answers: that it learned from.
        fingerprint: of the model.
        base: fingerprint of the index's own model, which it went on from.
        state: `hits_of` of the index whose images it has.
        is_better: whether it agrees with people more than the index's own model, as measured.
        words: what its teaching reported, in words.
        report: the same as JSON.
    """

    number: int
    time: str
    answers: int
    fingerprint: str
    base: str
    state: str
    is_better: bool
    words: str
    report: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """Return what JSON holds of a generation.

        Raises:
            ValueError: it is something else; or TypeError, LookupError.
        """
        made = cls(**values)
        for name, kind in get_type_hints(cls).items():
            if type(getattr(made, name)) is not (get_origin(kind) or kind):
                raise ValueError(name)
        if made.number < 1:
            raise ValueError(made.number)
        return made


@dataclass(frozen=True)
class History:
    """What `current.json` holds.

    Attributes:
        shown: the generation that is shown; 0 for the index itself.
        generations: all that were made, the oldest first.
    """

    shown: int = 0
    generations: tuple[Generation, ...] = ()

    def named(self, number: int) -> Generation | None:
        """Return a generation by its number; None if there is none."""
        return next((each for each in self.generations if each.number == number), None)


class Generations:
    """The folder of what was taught on one index.

    Args:
        index: folder of the index, which is never changed.

    Attributes:
        index: as given.
        folder: INDEX.taught, which the first generation or space makes.
        space: the file of the space in which questions are chosen.

    Example:
        >>> Generations(Path("photos.index")).history()
        History(shown=0, generations=())
    """

    def __init__(self, index: Path) -> None:
        self.index = Path(os.path.abspath(index))
        self.folder = self.index.with_name(self.index.name + SUFFIX)
        self.space = self.folder / SPACE

    def history(self) -> History:
        """Return what was made, and what is shown.

        Raises:
            InputError: the file is damaged.
        """
        file = self.folder / CURRENT
        if not file.exists():
            return History()
        hint = "remove it, and the index itself is shown"
        text = read_text_file(file, hint=hint)
        try:
            values = json.loads(text)
            made = tuple(Generation.from_values(each) for each in values["generations"])
            shown = values["shown"]
            numbers = [each.number for each in made]
            if type(shown) is int and shown in [0, *numbers] and numbers == sorted(set(numbers)):
                return History(shown, made)
        except (ValueError, TypeError, LookupError, RecursionError):
            pass
        raise InputError(f"{file}: not what a server that was taught wrote; {hint}")

    def index_of(self, number: int) -> Path:
        """Return the folder of the index of a generation; 0 for the index itself."""
        return self.folder / str(number) / INDEX if number else self.index

    def is_kept(self, number: int) -> bool:
        """Return whether the files of a generation are there."""
        return self.index_of(number).is_dir()

    def shown(self) -> int:
        """Return which generation to show.

        Raises:
            InputError: its files are gone, or the index was made anew since, by another model or
                of other images; with how to show the index itself.
        """
        history = self.history()
        generation = history.named(history.shown)
        if generation is None:
            return 0
        remedy = f"remove {self.folder / CURRENT}, and the index itself is shown"
        own = Collection.open(self.index).settings
        if generation.base != own.fingerprint:
            raise InputError(
                f"{self.folder}: generation {history.shown} was taught on an earlier index, of "
                f"another model; {remedy}"
            )
        if Collection.open(self.index_of(history.shown)).settings.root != own.root:
            raise InputError(
                f"{self.folder}: generation {history.shown} is of other images than "
                f"{self.index}; {remedy}"
            )
        return history.shown

    def show(self, number: int) -> None:
        """Show another generation; 0 for the index itself.

        Raises:
            InputError: there is none, or its files are not kept any more.
        """
        with self._locked(CURRENT):
            history = self.history()
            if number and history.named(number) is None:
                raise InputError(f"{self.folder}: has no generation {number}")
            if not self.is_kept(number):
                raise InputError(
                    f"{self.folder}: of generation {number}, only the report is kept: the last "
                    f"{MOST_KEPT} can be shown"
                )
            self._write(replace(history, shown=number))

    @contextmanager
    def making(self) -> Iterator[Path]:
        """Yield an empty folder to make the next generation in; nobody else makes one meanwhile.

        What stopped processes left is removed before; if the block raises, so is the folder.

        Raises:
            InputError: another process makes one, or the folder cannot be written to.
        """
        with self._locked(MAKING):
            known = {str(each.number) for each in self.history().generations}
            for each in self.folder.iterdir():
                is_left = re.fullmatch("[0-9]+", each.name) and each.name not in known
                if is_left or each.name == MAKING:
                    shutil.rmtree(each)
            folder = make_folder(self.folder / MAKING)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # `add` has renamed what is complete

    def add(self, generation: Generation, *, is_shown: bool) -> None:
        """Add what was made in the folder of `making`, within its block.

        Args:
            generation: what is known of it; its number is `next_number`.
            is_shown: whether it is shown from now on.
        """
        (self.folder / MAKING).rename(self.folder / str(generation.number))
        sync_folder(self.folder)
        with self._locked(CURRENT):
            history = self.history()
            shown = generation.number if is_shown else history.shown
            all_made = (*history.generations, generation)
            told = [each for each in all_made[:-MOST_TOLD] if each.number == shown]
            after = History(shown, (*told, *all_made[-MOST_TOLD:]))
            self._write(after)
            for each in after.generations[:-MOST_KEPT]:  # locked, so that none of them is shown
                if each.number != shown:
                    shutil.rmtree(self.folder / str(each.number), ignore_errors=True)

    def next_number(self) -> int:
        """Return the number that the next generation gets."""
        return max((each.number for each in self.history().generations), default=0) + 1

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        from filelock import FileLock, Timeout  # late: it imports asyncio

        make_folder(self.folder)
        seconds = LOCK_SECONDS if name == CURRENT else 0
        try:
            with FileLock(self.folder / f"{Path(name).stem}.lock", timeout=seconds):
                yield
        except Timeout:
            raise InputError(
                f"{self.folder}: another process teaches this index; wait for it, or stop it"
            ) from None

    def _write(self, history: History) -> None:
        values = {
            "shown": history.shown,
            "generations": [asdict(each) for each in history.generations],
        }
        with atomic_path(self.folder / CURRENT) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
