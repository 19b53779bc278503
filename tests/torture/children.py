"""Commands of the project run as a user runs them, under limits of time and memory."""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEGABYTE = 1 << 20
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative, the signal that ended it.
        hung: whether it was stopped because its time was over.
        output: what it wrote to standard output.
        errors: what it wrote to standard error.
    """

    code: int
    hung: bool
    output: str
    errors: str

    @property
    def crashed(self) -> bool:
        """Whether it ended by a signal of its own, or showed a traceback."""
        return not self.hung and (self.code < 0 or "Traceback (most recent call" in self.errors)


def die_with_parent(number):
    """Let this process get a signal when its parent ends, so that none goes on alone (Linux)."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, number)


def start(arguments, *, megabytes=None, **options):
    """Start `python ARGUMENTS` in a process group of its own, in the project's folder.

    Args:
        arguments: what follows `python`, such as ["-m", "deep_ranking", "index", ...].
        megabytes: address space that it may take; None for any. TensorFlow itself maps about 6,000.
        options: further ones of `subprocess.Popen`.
    """

    def limit():
        die_with_parent(signal.SIGKILL)
        if megabytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (megabytes * MEGABYTE,) * 2)

    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=limit,  # noqa: PLW1509 (no thread is running here)
        **options,
    )


def wait(process, seconds):
    """Wait for a process, kill its group when its time is over, and say how it `Ended`."""
    hung = False
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        hung = True
        kill(process)
        output, errors = process.communicate()
    return Ended(
        process.returncode,
        hung,
        output.decode(errors="backslashreplace"),
        errors.decode(errors="backslashreplace"),
    )


def run(arguments, *, seconds=120, megabytes=None, **options):
    """Run `python ARGUMENTS` to its end, as `start` and `wait` do."""
    return wait(start(arguments, megabytes=megabytes, **options), seconds)


def kill(process):
    """Kill a process and all that it started, at once (SIGKILL)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
