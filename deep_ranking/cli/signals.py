"""Ctrl-C and SIGTERM: a command closes what is open, prints one line and exits with code 130."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from deep_ranking.cli import library_messages

EXIT_CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interruption:
    """Whether the user or the system has asked the program to end."""

    requested: bool = False


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Make the first signal in the block raise `KeyboardInterrupt`, and the second end the program.

    A signal that the program was started to ignore, as by `nohup`, stays ignored. A library may
    turn the `KeyboardInterrupt` into another exception, or print it: `Interruption.requested` tells
    the caller what it was, and the rest of the block writes nothing to standard error, except with
    --verbose.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption  # only the main thread receives signals
        return

    def first(*_: Any) -> None:
        interruption.requested = True
        silence()
        for each in handlers:
            signal.signal(each, second)
        raise KeyboardInterrupt

    def second(*_: Any) -> None:
        os._exit(EXIT_CODE)  # safe: every complete file on the disk stays complete

    handlers = {each: signal.getsignal(each) for each in _signals_to_handle()}
    with library_messages.stderr_silencer() as silence:
        for each in handlers:
            signal.signal(each, first)
        try:
            yield interruption
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)


@contextmanager
def resume_hint(hint: str) -> Iterator[None]:
    """Add a hint on how to resume to the line that is printed if the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(hint) from None


def run_as_program(command: Callable[[], int]) -> NoReturn:
    """Run a command, and end the program with its exit code.

    A signal ends the program in order at any instant, also while Python starts or ends.
    """
    for each in _signals_to_handle():
        signal.signal(each, _end_program)
    library_messages.discard()
    atexit.register(_ignore_signals)  # registered first, so called last: nothing handles one later
    code = command()
    if code == EXIT_CODE:
        # Python would wait for threads, and would end by SIGINT if the signal stopped an import.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _signals_to_handle() -> list[signal.Signals]:
    return [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]


def _end_program(*_: Any) -> None:
    os.write(library_messages.stderr_descriptor(), b"interrupted\n")
    os._exit(EXIT_CODE)


def _ignore_signals() -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
