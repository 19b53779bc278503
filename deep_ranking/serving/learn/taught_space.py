"""The space in which the server's questions are chosen: that of the weights that teaching learns.

The process that learns makes it, again after every so many answers, and leaves it as
INDEX.taught/space.npz. Until then, and if the index has another model or other images since,
questions are chosen in the space of the embeddings.

Teaching always goes on from the index's own model, with all answers, whichever generation is shown.
So does the space: it says what the next learning would learn. The candidates, images near each
other, are those of the generation that is shown: people are asked about what they see.
"""

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.content_digest import Status, file_status
from deep_ranking.sampling.stored_space import MadeOf, SpaceOfImages, StoredSpace
from deep_ranking.search.collection import Collection
from deep_ranking.search.collection.own_files import SETTINGS
from deep_ranking.serving.learn.generations import Generations
from deep_ranking.serving.teach.question_pool import QuestionPool

EVERY = 25  # answers


def is_due(made_of: MadeOf | None, now: MadeOf) -> bool:
    """Return whether a space has to be made anew: of another index, or of more answers.

    Args:
        made_of: what the space was made of; None for none.
        now: what it would be made of.
    """
    return (
        made_of is None
        or not made_of.is_of(now)
        or made_of.answers // EVERY != now.answers // EVERY
    )


class TaughtSpaces:
    """The space of one index, opened again whenever it has changed.

    Args:
        index: folder of the index itself.
        request: asks what learns for a new space; returns False if that cannot be asked now.
    """

    def __init__(self, index: Path, request: Callable[[], bool]) -> None:
        self._generations = Generations(index)
        self._request = request
        self._lock = threading.Lock()
        self._requested: MadeOf | None = None
        self._files: tuple[Status | None, ...] | None = None
        self._index = MadeOf("", "", 0)
        self._space: StoredSpace | None = None
        self._placed: tuple[Int64Array, SpaceOfImages] | None = None

    def of(self, pool: QuestionPool, num_answers: int) -> SpaceOfImages | None:
        """Return the space of the images of a pool; None if there is none of the index as it is.

        If a new one is due, what learns is asked for it, once.

        Args:
            pool: the images.
            num_answers: answers so far that chose an image.
        """
        with self._lock:
            try:
                self._open()
                self._ask_if_due(replace(self._index, answers=num_answers))
                space = self._space
                if space is None or not space.made_of.is_of(self._index):
                    return None
                rows, before = self._placed or (None, None)
                if before is None or rows is not pool.rows or before.space is not space:
                    again = before.with_weights_of(space) if before and rows is pool.rows else None
                    self._placed = pool.rows, again or space.with_images(pool.contents())
                return self._placed[1] if self._placed else None
            except InputError as error:
                self._give_up(error)
                return None

    def give_up(self, error: InputError) -> None:
        """Use no space until there is another one: this one could not be used."""
        with self._lock:
            self._give_up(error)

    def _give_up(self, error: InputError) -> None:
        print(f"{error}; questions are chosen by the embeddings", file=sys.stderr, flush=True)
        self._space = self._placed = None

    def _open(self) -> None:
        """Open what has changed."""
        files = _status(self._generations.space), _status(self._generations.index / SETTINGS)
        if files == self._files:
            return
        before, self._files = self._files, files
        settings = Collection.open(self._generations.index).settings
        self._index = MadeOf(settings.fingerprint, settings.hits_of, 0)
        if before is None or before[0] != files[0]:
            self._space = None
            if files[0] is not None:
                self._space = StoredSpace.read(self._generations.space)

    def _ask_if_due(self, now: MadeOf) -> None:
        made_of = None if self._space is None else self._space.made_of
        if is_due(made_of, now) and is_due(self._requested, now) and self._request():
            self._requested = now


def _status(file: Path) -> Status | None:
    try:
        return file_status(file.stat())
    except OSError:
        return None
