"""Commands of the project in forked children of a process that has imported what they need.

TensorFlow takes seconds to start, and a process that has run anything on it cannot be forked. So a
part of the torture gets a process of its own, which imports all and runs nothing.
"""

import contextlib
import fcntl
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from importlib import import_module
from pathlib import Path

from torture.children import ROOT, Ended, die_with_parent
from torture.tally import Tally

PIPE_BYTES = 1 << 20
PACKAGE = str(ROOT / "deep_ranking")
IMPORTED = (
    "deep_ranking.cli.library_messages",  # first: it silences the libraries that follow
    "tensorflow",
    "faiss",
    "deep_ranking.training.run",
    "deep_ranking.metrics.evaluation",
    "deep_ranking.embedding.embed",
    "deep_ranking.reports.page",
    "deep_ranking.embedding.export",
    "deep_ranking.reports.plots",
    "deep_ranking.model.calibration",
    "deep_ranking.datasets.public.folder",
    "deep_ranking.search.indexing",
    "deep_ranking.search.duplicates",
    "deep_ranking.search.set_aside",
    "matplotlib.backends.backend_agg",
    "encodings.utf_8_sig",  # another user may not read where Python lies
)


def in_own_process(function, tally, *arguments):
    """Run `function(tally, *arguments)` in a process that forks can start from.

    However this one ends, that one and its children end too.
    """
    # The semaphores of killed children are as good as gone, and no news.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    context = multiprocessing.get_context("spawn")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_prepared, args=(writing, function, arguments))
    process.start()
    writing.close()
    try:
        found = reading.recv()
    except EOFError:
        raise RuntimeError("the process of this part ended without an answer") from None
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()
    if isinstance(found, str):
        raise RuntimeError(found)
    tally.add(found)


def _prepared(answer, function, arguments):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal; the parent sends the other
    signal.signal(signal.SIGTERM, _stop)
    die_with_parent(signal.SIGTERM)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    try:
        for name in IMPORTED:
            module = import_module(name)
            if name == IMPORTED[0]:
                module.start_tensorflow()
        tally = Tally()
        function(tally, *arguments)
        answer.send(tally)
    except KeyboardInterrupt:
        pass  # what was mounted is so no longer, and the children end with this process
    except Exception:
        answer.send(traceback.format_exc())


def _stop(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _begin_child():
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Child:
    """A command in a forked child.

    Args:
        argv: command and arguments of `python -m deep_ranking`.
        before: called in the child, before the command.
        after: called in the child, after it.
    """

    def __init__(self, argv, *, before=None, after=None):
        self.code = None
        sys.stdout.flush()
        sys.stderr.flush()
        # No file: what it may write is to be limited, and what it says is not.
        self._output, output = os.pipe()
        fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.pid = os.fork()
        if not self.pid:
            _begin_child()
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout, sys.stderr = (os.fdopen(each, "w", closefd=False) for each in (1, 2))
            self._run([str(each) for each in argv], before, after)
        os.close(output)

    def _run(self, argv, before, after):
        code = 70
        try:
            os.setpgid(0, 0)
            if before is not None:
                before()
            try:
                code = import_module("deep_ranking.cli.main").main(argv)
            except SystemExit as error:
                code = error.code
            if after is not None:
                after()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds):
        """Wait until it has ended, or so many seconds are over; True if it has ended."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= deadline:
                return False
            else:
                time.sleep(0.002)
        return True

    def kill(self):
        """Kill it at once (SIGKILL)."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait(60)

    def end(self, seconds=120):
        """Wait for its end, and say how it `Ended`."""
        hung = not self.wait(seconds)
        self.kill()
        with os.fdopen(self._output, errors="backslashreplace") as file:
            return Ended(self.code, hung, "", file.read())


class Lines:
    """Counts how often each line of the project's code is passed, and kills the process at one.

    Args:
        fatal: file, line and after how many times; None for never.
        counts: file that takes the counts.
    """

    def __init__(self, *, fatal=None, counts=None):
        self.fatal, self.file = fatal, counts
        self.counts, self.passed = Counter(), 0

    def start(self):
        """Begin, in the child."""
        sys.settrace(self._trace)
        threading.settrace(self._trace)

    def stop(self):
        """Write the counts."""
        sys.settrace(None)
        lines = [f"{file}\t{line}\t{count}\n" for (file, line), count in self.counts.items()]
        self.file.write_text("".join(lines))

    def _trace(self, frame, event, _):
        """Look at calls, and follow only those that matter."""
        file = frame.f_code.co_filename
        if self.fatal is not None:
            return self._approach if file == self.fatal[0] else None
        return self._count if file.startswith(PACKAGE) else None

    def _count(self, frame, event, _):
        if event == "line":
            self.counts[frame.f_code.co_filename, frame.f_lineno] += 1
        return self._count

    def _approach(self, frame, event, _):
        if event == "line" and frame.f_lineno == self.fatal[1]:
            self.passed += 1
            if self.passed == self.fatal[2]:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._approach


def lines_of(file):
    """Read what `Lines` wrote: (file, line, count) of each line, in sorted order."""
    rows = [row.split("\t") for row in file.read_text().splitlines()]
    return sorted((name, int(line), int(count)) for name, line, count in rows)


def run(argv, *, before=None, seconds=120) -> Ended:
    """Run a command in a forked child to its end."""
    return Child(argv, before=before).end(seconds)


def call(function, *arguments):
    """Call a function in a forked child, for what starts threads; give what it returns.

    Raises:
        RuntimeError: with what it raised.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        _begin_child()
        try:
            answer = True, function(*arguments)
        except BaseException as error:
            answer = False, repr(error)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    succeeded, value = pickle.loads(answer)
    if not succeeded:
        raise RuntimeError(value)
    return value


def tree(folder: Path):
    """Give the bytes of all files below a folder, but for those that lock and log."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock", "holder")
    }
