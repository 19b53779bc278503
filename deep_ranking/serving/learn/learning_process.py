"""What learns from answers, in a process of its own: the server stays without TensorFlow.

It begins with the features of the collection's images, which it computes once and keeps in the
cache folder. Then it waits, with TensorFlow ready, to be told to learn: a new model, the rows of
all images by its head, a new index, and the model compiled, by which the server embeds uploads. In
between it makes the space in which questions are chosen, see `taught_space`.

The module imports little until its process ignores Ctrl-C, which reaches the server too: the server
ends this process, and it ends when the server is gone.
"""

import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from deep_ranking.sampling.stored_space import MadeOf

Status = Literal["preparing", "ready", "learning", "unavailable"]
OWN_OUTPUT = "The server's own output says why."
NICE = 10
LEARN, MAKE_SPACE = "learn", "make a space"  # what the process can be told


class Message(NamedTuple):
    """What the process says of itself; each message replaces the one before.

    Attributes:
        status: "unavailable" once it has ended.
        step: what it does, in words.
        done: images or steps of it that are done.
        total: of how many; 0 where nobody knows.
        problem: why it could not prepare, or the last learning failed, in a sentence.
        generation: that was made just now; 0 for none.
    """

    status: Status
    step: str = ""
    done: int = 0
    total: int = 0
    problem: str = ""
    generation: int = 0


class TeachingReport(Protocol):
    """What teaching reports; its `repr` says it in words."""

    @property
    def is_better(self) -> bool:
        """Whether the new model agrees with people more than before."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        ...


class Tools(NamedTuple):
    """The functions of `training.taught` that learn.

    Attributes:
        teach: model, output, ratings, root of the images, labelled images or None, cache folder
            -> a report; it writes the output.
        features: model, files, cache folder -> cached features.
        embed: model, features -> float32 (files, dim), NaN for a file that cannot be read.
        compile: compiles a model, so that the server can embed uploads by it.
        write_space: model, features, answered questions, file, what it is made of -> the file.
    """

    teach: Callable[..., TeachingReport]
    features: Callable[[Path, list[Path], Path], Any]
    embed: Callable[[Path, Any], Any]
    compile: Callable[[Path], Any]
    write_space: Callable[[Path, Any, Any, Path, "MadeOf"], None]


@dataclass(frozen=True)
class Job:
    """What is taught, and by what.

    Attributes:
        index: folder of the index.
        ratings: the ratings file.
        cache_dir: folder of cached features.
        tools: returns the functions that learn, of the model to go on from; TensorFlow starts when
            they are asked for.
    """

    index: Path
    ratings: Path
    cache_dir: Path
    tools: Callable[[Path], Tools]


class Connection(Protocol):
    """One end of a pipe."""

    def send(self, message: Any, /) -> None:
        """Send to the other end."""

    def recv(self) -> Any:
        """Return what the other end sent; EOFError once it is closed."""


def run_learner(connection: Connection, job: Job) -> None:
    """Do as `learn_when_told` does, as the whole work of a process of low priority."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICE)
    # One processor is left to searches.
    threads = str(max(1, (os.cpu_count() or 1) - 1))
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = threads
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    learn_when_told(connection, job)


def learn_when_told(connection: Connection, job: Job) -> None:
    """Prepare, then do what the other end of a pipe says, `LEARN` or `MAKE_SPACE`, until it closes.

    Args:
        connection: the end of a pipe; each `Message` goes there, and as text what whoever runs
            the server should read: this process's own standard error may be discarded.
        job: what is taught.
    """
    from deep_ranking.files import progress_bar

    try:
        _learn_when_told(connection, job)
    except (EOFError, BrokenPipeError):
        pass  # the server is gone
    finally:
        progress_bar.listener = None


def _learn_when_told(connection: Connection, job: Job) -> None:
    from deep_ranking.files import InputError, progress_bar
    from deep_ranking.serving.learn.learning_steps import (
        Prepared,
        learn_generation,
        prepare_to_learn,
    )
    from deep_ranking.serving.learn.making_space import SpaceMaker

    latest = Message("preparing")

    def tell(message: Message) -> None:
        nonlocal latest
        latest = message
        connection.send(message)

    def count(_: str, done: int, total: int | None) -> None:
        if latest.status == "ready":  # nobody waits for a space
            return
        known = total is not None and done < total  # what follows the last one is not counted
        tell(latest._replace(done=done if known else 0, total=(total or 0) if known else 0))

    def attempt(work: Callable[[], Message], otherwise: Status) -> None:
        try:
            tell(work())
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            tell(Message(otherwise, problem=sentence(error)))

    def sentence(error: Exception) -> str:
        if isinstance(error, InputError):
            return str(error)
        connection.send(traceback.format_exc())
        return OWN_OUTPUT

    progress_bar.listener = count
    tell(Message("preparing", "starting TensorFlow"))
    prepared: list[Prepared] = []

    def begin() -> Message:
        prepared.append(prepare_to_learn(job, lambda step: tell(Message("preparing", step))))
        return Message("ready")

    def go_on() -> Message:
        number = learn_generation(
            job,
            prepared[0],
            lambda step: tell(Message("learning", step)),
            connection.send,
        )
        return Message("ready", generation=number)

    attempt(begin, "unavailable")
    if not prepared:
        return
    spaces = SpaceMaker(job, prepared[0])
    told = MAKE_SPACE
    while True:
        if told == MAKE_SPACE:
            try:
                spaces.make()
            except Exception as error:  # questions are chosen without it
                connection.send(f"{job.index}: no new space: {sentence(error)}")
        else:
            attempt(go_on, "ready")
        told = connection.recv()
