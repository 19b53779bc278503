"""Learning from answers, as the server sees it: how far it is, what is shown, and the way back."""

import multiprocessing
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from deep_ranking.files import InputError
from deep_ranking.search.collection import Collection
from deep_ranking.serving.answers import GenerationAnswer, LearningAnswer, without_folders
from deep_ranking.serving.learn.generations import Generation, Generations
from deep_ranking.serving.learn.learning_process import (
    LEARN,
    MAKE_SPACE,
    Connection,
    Job,
    Message,
    Tools,
    run_learner,
)
from deep_ranking.serving.learn.taught_space import TaughtSpaces
from deep_ranking.serving.opened import ServedCollection
from deep_ranking.serving.problems import RequestError

ENDED = Message(
    "unavailable", problem="What learns has ended; start the server again. Answers are kept."
)
TOLD = 20  # generations in an answer
End = Callable[[], None]


def load_tools(model: Path) -> Tools:
    """Return the functions that learn; called in the process that does."""
    from deep_ranking.serving.learn.learning_tools import make_tools  # late: it imports TensorFlow

    return make_tools(model)


def start_process(job: Job) -> tuple[Connection, End]:
    """Start the process that learns; return the end of its pipe, and what ends it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_learner, args=(theirs, job), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe

    def end() -> None:
        process.terminate()  # which ends the pipe, too
        process.join()

    return ours, end


class Learning:
    """Learns from the answers on one collection, and goes over to what was learned.

    Args:
        served: the collection; it goes over to the generation that is shown.
        job: what is taught.
        start: starts what learns.

    Attributes:
        spaces: in which questions are chosen, as what learns makes them.

    Raises:
        InputError: the generation that is shown cannot be used.
    """

    def __init__(
        self,
        served: ServedCollection,
        job: Job,
        start: Callable[[Job], tuple[Connection, End]] = start_process,
    ) -> None:
        self._served, self._job = served, job
        self._generations = Generations(job.index)
        self.spaces = TaughtSpaces(job.index, self._make_space)
        self._lock = threading.Lock()
        self._showing = threading.Lock()  # what is written as shown is what is served
        self._latest = Message("preparing")
        self._is_closed = False
        shown = self._generations.shown()
        if shown:
            served.go_to(self._generations.index_of(shown))
        self._connection, self._end = start(job)
        self._listener = threading.Thread(target=self._listen, name="learning", daemon=True)
        self._listener.start()

    def state(self) -> LearningAnswer:
        """Return how far learning is, and what was learned.

        Raises:
            RequestError: what is kept of it is damaged, or the index cannot be opened.
        """
        latest = self._latest
        try:
            history = self._generations.history()
        except InputError as error:
            told = self._without_folders(str(error))
            raise RequestError(503, f"What was learned cannot be told: {told}.") from None
        try:
            own = Collection.open(self._generations.index).settings
        except InputError as error:
            raise self._served.refusal(error) from None
        usable = [
            each
            for each in history.generations[-TOLD:]
            if each.base == own.fingerprint and self._generations.is_kept(each.number)
        ]
        shown = history.named(history.shown)
        return LearningAnswer(
            status=latest.status,
            step=latest.step,
            done=latest.done,
            total=latest.total,
            problem=self._without_folders(latest.problem),
            made=latest.generation,
            shown=history.shown,
            is_behind=shown is not None and shown.state != own.hits_of,
            generations=[_answer(each) for each in reversed(usable)],
        )

    def _without_folders(self, text: str) -> str:
        job, root = self._job, self._served.current().root
        folders = (root, job.cache_dir, job.index.absolute().parent, job.ratings.parent)
        return without_folders(text, dict.fromkeys(map(str, folders), "the folder"))

    def learn(self) -> None:
        """Begin to learn.

        Raises:
            RequestError: it is not ready.
        """
        with self._lock:
            if self._latest.status != "ready":
                raise RequestError(409, _WHY_NOT[self._latest.status])
            self._latest = Message("learning", "beginning")
            try:
                self._connection.send(LEARN)
            except OSError:
                self._latest = ENDED
                raise RequestError(409, ENDED.problem) from None

    def _make_space(self) -> bool:
        """Tell what learns to make a space, unless it is busy; return whether it was told."""
        with self._lock:
            if self._latest.status != "ready":
                return False
            try:
                self._connection.send(MAKE_SPACE)
            except OSError:  # it has ended, which the listener notices
                return False
            return True

    def show(self, number: int) -> None:
        """Show another generation; 0 for the index itself.

        Raises:
            RequestError: there is none, or it cannot be opened; then what is shown stays.
        """
        try:
            with self._showing:
                before = self._generations.history().shown
                self._generations.show(number)
                try:
                    self._served.go_to(self._generations.index_of(number))
                except InputError:
                    self._generations.show(before)
                    raise
        except InputError as error:
            print(f"{self._served.name}: {error}", file=sys.stderr, flush=True)
            raise RequestError(
                409, f"generation: {number} cannot be shown; /teach/learning lists those that can."
            ) from None

    def close(self) -> None:
        """End the process that learns; what it has not finished is left out."""
        self._is_closed = True
        self._end()
        self._listener.join()

    def _listen(self) -> None:
        """Take in what the process says, until it ends."""
        with suppress(EOFError, OSError):
            while True:
                message: Message | str = self._connection.recv()
                if isinstance(message, str):
                    print(message, file=sys.stderr, flush=True)
                    continue
                if message.generation:
                    message = self._gone_over(message)
                with self._lock:
                    self._latest = message
        with self._lock:
            if self._latest.status != "unavailable":
                self._latest = ENDED
        if not self._is_closed and self._latest.problem:
            print(f"{self._served.name}: {self._latest.problem}", file=sys.stderr, flush=True)

    def _gone_over(self, message: Message) -> Message:
        """Go over to what was learned, if it is shown; return the message, or what went wrong."""
        try:
            with self._showing:
                shown = self._generations.history().shown
                if shown == message.generation:
                    self._served.go_to(self._generations.index_of(shown))
        except InputError as error:
            print(f"{self._served.name}: {error}", file=sys.stderr, flush=True)
            return message._replace(problem="What was learned cannot be opened.", generation=0)
        return message


_WHY_NOT: dict[str, Any] = {
    "preparing": "It is not ready to learn: it looks at the pictures once. Try again later.",
    "learning": "It is learning already.",
    "unavailable": "Nothing can learn here now; /teach/learning says why.",
}


def _answer(generation: Generation) -> GenerationAnswer:
    return GenerationAnswer(
        generation=generation.number,
        time=generation.time,
        answers=generation.answers,
        is_better=generation.is_better,
        words=generation.words,
        report=generation.report,
    )
