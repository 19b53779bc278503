"""Ctrl-C and SIGTERM end a command in order: what is open is closed, and one line is printed."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from deep_ranking.cli import notes

EXIT_CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stop:
    """Whether the user, or the system, has asked the program to end.

    Attributes:
        asked: whether a signal came.
        how_to_go_on: what to say of that, or nothing.
    """

    asked: bool = False
    how_to_go_on: str = ""


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let both signals raise `KeyboardInterrupt` in the block, and a second one end the program.

    A signal that the program was started to ignore, as by `nohup`, stays ignored. Libraries may
    turn the exception into another of their own: the caller sees from `Stop.asked` what it was; and
    some print it besides: what is written to standard error from then on to the end of the block
    goes nowhere, unless it was asked for by --verbose.

    Yields:
        The `Stop`.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread is told of signals
        return

    def first(*_: Any) -> None:
        stop.asked = True
        silence()
        for each in handlers:
            signal.signal(each, second)
        raise KeyboardInterrupt

    def second(*_: Any) -> None:
        os._exit(EXIT_CODE)  # nothing is lost: what is complete on the disk stays complete

    handlers = {each: signal.getsignal(each) for each in _heeded()}
    with notes.can_be_silenced() as silence:
        for each in handlers:
            signal.signal(each, first)
        try:
            yield stop
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)


def run_as_program(command: Callable[[], int]) -> NoReturn:
    """Run a command, and end the program by its exit code.

    A signal ends the program in order at any instant, also while Python starts or ends.
    """
    for each in _heeded():
        signal.signal(each, _end)
    notes.turn_aside()
    atexit.register(_ignore)  # registered first, called last: what follows takes no handler
    code = command()
    if code == EXIT_CODE:
        # All is closed. Python would wait for threads, and end by SIGINT if an import was stopped.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _heeded() -> list[signal.Signals]:
    return [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]


def _end(*_: Any) -> None:
    os.write(notes.descriptor(), b"interrupted\n")
    os._exit(EXIT_CODE)


def _ignore() -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def saying_when_stopped(how_to_go_on: str) -> Iterator[None]:
    """Let the line about an interrupt in the block say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_go_on) from None
