"""Questions to people about the images of a collection, and the file that gets their answers.

Everything that the server knows of the answers is in the ratings file: what a person is asked next
follows from it, so a server that was killed goes on where it was. An answer is confirmed once it is
on the disk. It names how often its rater had answered the question `before`: one that is sent again
because its confirmation was lost, or from a second window, is noticed and not kept twice.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import (
    CANNOT_SAY,
    CHOSEN,
    PATHS,
    REPEAT,
    Answer,
    Ratings,
    Standing,
    check_rater,
    ratings_of,
)
from deep_ranking.files import InputError
from deep_ranking.files.append_log import now
from deep_ranking.files.words import counted
from deep_ranking.sampling.questions import Asked, Question, asked_before, next_question
from deep_ranking.serving.image_ids import KnownImage, find_by_ids, find_by_path
from deep_ranking.serving.kept_files import LOCK_SECONDS, told_of_file
from deep_ranking.serving.learn.taught_space import TaughtSpaces
from deep_ranking.serving.opened import OpenState, ServedCollection
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.recent import Recent
from deep_ranking.serving.teach.question_pool import QuestionPool

A, B = "A", "B"
SHOWN_KEPT = 4096  # questions whose answers are kept though a sync has taken their images
TRIES = 12  # to find a question whose images have their files
UNKNOWN = RequestError(
    404, "query, a, b: the collection does not have all of these images; ask for a new question."
)


class ShownQuestion(NamedTuple):
    """A question as a person sees it.

    Attributes:
        paths: of the query, of the image on side A, and of that on side B.
        asked: why: one of `ratings.ASKED`.
        model: fingerprint of the model that chose it.
        before: how often its rater had answered it.
    """

    paths: tuple[str, str, str]
    asked: str
    model: str
    before: int = 0

    def is_about(self, answer: Answer) -> bool:
        """Return whether an answer is to this question, with the images on either side."""
        query, *others = self.paths
        return answer.query == query and {answer.chosen, answer.other} == set(others)


class _FilesGoneError(RequestError):
    """No question was found, because the files of so many images are gone."""


class Teaching:
    """What people are asked about one collection, and what they answered.

    Args:
        served: the collection.
        path: the ratings file, which the first answer makes.
        rater: who answers where a request names nobody; "" for nobody.

    Attributes:
        spaces: in which questions are chosen; None for that of the embeddings.

    Raises:
        InputError: no question can be asked about the collection, the ratings file cannot be used
            or is about other images, or the rater's name cannot be one.
    """

    def __init__(self, served: ServedCollection, path: Path, rater: str = "") -> None:
        if rater:
            check_rater(rater)
        self.rater = rater
        self.spaces: TaughtSpaces | None = None
        self.log = AnswerLog(path, lock_seconds=LOCK_SECONDS)
        self._lock = threading.RLock()
        self._shown: Recent[tuple[str, ...], ShownQuestion] = Recent(SHOWN_KEPT)
        self._pool_lock = threading.Lock()
        self._pool: tuple[OpenState, QuestionPool] | None = None
        state = served.current()
        pool = self.pool(state)
        self.log.check()
        standing = self.log.standing()
        ratings = ratings_of({path: standing})
        self._ratings = standing, standing.last_line, ratings
        paths = ratings.paths
        if paths and not pool.index_by_path(paths):
            raise InputError(
                f"{path}: none of its {counted(len(paths), 'image')} is in {served.folder}, whose "
                f"images lie in {state.root}; give the ratings of this collection, or a new file"
            )

    def pool(self, state: OpenState) -> QuestionPool:
        """Return the images that questions are about, in a state of the collection."""
        with self._pool_lock:
            if self._pool is None or self._pool[0] is not state:
                self._pool = (state, QuestionPool(state.one_index("A list of questions")))
            return self._pool[1]

    def named(self, rater: str | None) -> str:
        """Return who answers a request that names somebody, or nobody.

        Raises:
            RequestError: nobody is named, or the name cannot be one.
        """
        name = rater or self.rater
        if not name:
            raise RequestError(422, "rater: who answers? Send a name.")
        try:
            check_rater(name)
        except InputError as error:
            raise RequestError(422, f"rater: {error}.") from None
        return name

    def ratings(self) -> Ratings:
        """Return the answers that stand.

        Raises:
            RequestError: the ratings file cannot be read.
        """
        with self._lock:
            standing = self._standing()
            known, line, ratings = self._ratings
            if known is not standing or line != standing.last_line:
                ratings = ratings_of({self.log.path: standing})
                self._ratings = standing, standing.last_line, ratings
            return ratings

    def ask(
        self, state: OpenState, rater: str, pending: Sequence[str] | None
    ) -> tuple[ShownQuestion, list[KnownImage]] | None:
        """Return the next question for a rater, and its images; None if none is left.

        Args:
            state: the collection.
            rater: who is asked.
            pending: ids of query and both images of a question that the rater is looking at: the
                next one is chosen as if it were answered.

        Raises:
            RequestError: the files of the images are gone.
        """
        pool = self.pool(state)
        try:
            return self._choose(pool, state, rater, pending)
        except _FilesGoneError:
            fewer = pool.without_gone()
            if fewer is None:
                raise
        with self._pool_lock:
            if self._pool is not None and self._pool[1] is pool:
                self._pool = (state, fewer)
        return self._choose(fewer, state, rater, pending)

    def _choose(
        self, pool: QuestionPool, state: OpenState, rater: str, pending: Sequence[str] | None
    ) -> tuple[ShownQuestion, list[KnownImage]] | None:
        ratings = self.ratings()
        known = find_by_ids(state.collection, pending or ())
        index_by_path = pool.index_by_path([*ratings.paths, *(each.path for each in known)])
        asked = asked_before(ratings, index_by_path, rater)
        if len(known) == len(PATHS) and all(each.path in index_by_path for each in known):
            asked = _with_pending(asked, [index_by_path[each.path] for each in known])
        for seed in range(TRIES):  # all raters have the same seeds, and so some of the questions
            question = self._next(pool, asked, int(ratings.decided.sum()), seed)
            if question is None:
                return None
            found = [pool.image(each) for each in (question.query, question.a, question.b)]
            images = [each for each in found if each is not None]
            if len(images) == len(PATHS):
                query, a, b = (each.path for each in images)
                model = state.collection.settings.fingerprint
                return self._showing(
                    rater, ShownQuestion((query, a, b), question.asked, model), images
                )
        raise _FilesGoneError(
            409, "The files of most images are gone since they were indexed. Is their folder there?"
        )

    def _next(
        self, pool: QuestionPool, asked: Asked, num_answers: int, seed: int
    ) -> Question | None:
        space = self.spaces.of(pool, num_answers) if self.spaces else None
        if self.spaces and space:
            try:
                return next_question(pool.embeddings, asked, space=space, seed=seed)
            except InputError as error:  # what it reads of the images is damaged
                self.spaces.give_up(error)
        return next_question(pool.embeddings, asked, seed=seed)

    def _showing(
        self, rater: str, shown: ShownQuestion, images: list[KnownImage]
    ) -> tuple[ShownQuestion, list[KnownImage]]:
        """Note that a question is shown, and how often it was answered before."""
        shown = shown._replace(before=len(self._earlier(rater, shown)))
        self._shown.keep((rater, *(each.image_id for each in images)), shown)
        return shown, images

    def keep(
        self,
        state: OpenState,
        rater: str,
        ids: Sequence[str],
        side: str | None,
        given: ShownQuestion,
    ) -> bool:
        """Keep an answer; when this returns, it is on the disk.

        Args:
            state: the collection.
            rater: who answers.
            ids: of query, A and B.
            side: the side of the image that was chosen; None for "cannot say".
            given: what the request says of the question; its paths are not used.

        Returns:
            False if this very answer was kept before.

        Raises:
            RequestError: the images are unknown, the question was answered differently meanwhile,
                or the answer cannot be kept.
        """
        shown = self._shown.find((rater, *ids)) or given
        if not shown.paths[0]:  # asked by an earlier run of the server
            found = find_by_ids(state.collection, ids)
            if len(found) < len(PATHS):
                raise UNKNOWN
            query, a, b = (each.path for each in found)
            shown = given._replace(paths=(query, a, b))
        query, a, b = shown.paths
        chosen, other = (b, a) if side == B else (a, b)
        try:
            answer = Answer(
                now(),
                rater,
                query,
                chosen,
                other,
                CANNOT_SAY if side is None else CHOSEN,
                REPEAT if given.before else shown.asked,
                side or A,
                shown.model,
            )
        except InputError as error:
            raise RequestError(422, f"query, a, b: {error}.") from None
        with self._lock:
            earlier = self._earlier(rater, shown)
            if len(earlier) > given.before:
                last = earlier[-1]
                if last.answer == answer.answer and last.chosen == chosen:
                    return False
                raise RequestError(
                    409,
                    "This question was answered already, and differently, perhaps in another "
                    "window. That answer stands; take it back to answer anew.",
                )
            with told_of_file(self.log.path, "answers"):
                self.log.add(answer)
        return True

    def take_back(self, rater: str, expected: Sequence[str] | None, state: OpenState) -> Answer:
        """Take back the last answer of a rater that stands, and return it.

        Args:
            rater: whose.
            expected: ids of query, A and B of the answer that is meant; None for any.
            state: the collection.

        Raises:
            RequestError: there is none, or another one is the last.
        """
        with self._lock:
            own = self._standing().of_rater(rater)
            if not own:
                raise RequestError(409, "There is no answer to take back.")
            if expected is not None:
                shown = self._shown.find((rater, *expected))
                paths = [each.path for each in find_by_ids(state.collection, expected)]
                if shown is None and len(paths) == len(PATHS):
                    shown = ShownQuestion((paths[0], paths[1], paths[2]), "", "")
                if shown is None or not shown.is_about(own[-1]):
                    raise RequestError(
                        409, "Another answer is your last one by now; nothing was taken back."
                    )
            with told_of_file(self.log.path, "answers"):
                return self.log.take_back(rater)

    @contextmanager
    def changing(self) -> Iterator[AnswerLog]:
        """Yield the ratings file, to which this server adds nothing else meanwhile.

        Raises:
            RequestError: it cannot be used.
        """
        with self._lock, told_of_file(self.log.path, "answers"):
            yield self.log

    def show_again(
        self, state: OpenState, rater: str, answer: Answer
    ) -> tuple[ShownQuestion, list[KnownImage]] | None:
        """Return the question of an answer, and its images; None if one of them is gone."""
        images_on = (answer.chosen, answer.other)
        a, b = images_on[::-1] if answer.side == B else images_on
        found = [find_by_path(state.collection, path) for path in (answer.query, a, b)]
        images = [each for each in found if each is not None]
        if len(images) < len(PATHS):
            return None
        return self._showing(
            rater, ShownQuestion((answer.query, a, b), answer.asked, answer.model), images
        )

    def _earlier(self, rater: str, shown: ShownQuestion) -> list[Answer]:
        with self._lock:
            return [each for each in self._standing().of_rater(rater) if shown.is_about(each)]

    def _standing(self) -> Standing:
        with told_of_file(self.log.path, "answers"):
            return self.log.standing()


def _with_pending(asked: Asked, pending: Sequence[int]) -> Asked:
    """Return what was asked, with a question that the rater is looking at."""
    return Asked(
        np.concatenate([asked.rows, np.array([pending], asked.rows.dtype)]),
        np.append(asked.on_side_a, True),
        np.append(asked.own, True),
        np.append(asked.decided, False),
    )
