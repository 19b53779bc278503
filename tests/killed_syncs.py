"""Syncs that are killed at one line of their code after the other; run as a program by a test.

It starts without TensorFlow, and forks for each kill. The embeddings depend on the whole batch, so
that a sync that goes on with other batches than an undisturbed one gives itself away.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path

import numpy as np

from deep_ranking.files import content_digest
from deep_ranking.search.collection import Collection, syncing

TRACED = (
    "row_store.py",
    "image_table.py",
    "syncing.py",
    "folder.py",
    "writing.py",
    "content_digest.py",
)
NUM_KILLS, NUM_WHILE_WRITING = 16, 9
DIMENSION, SIZE = 6, 32


class BatchEngine:
    """Rows that depend on the whole batch, which those of an engine should not."""

    image_size, dimension, num_threads = SIZE, DIMENSION, 0
    name = key = "batches"

    def __init__(self, batch_size):
        self.batch_size = batch_size

    def embed(self, images):
        mix = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, DIMENSION)) / 255
        rows = images.reshape(len(images), -1) @ mix
        return (rows + rows.sum(0)).astype(np.float32)


def sync(folder):
    collection = Collection.open(folder)
    return syncing.sync(collection, lambda _: BatchEngine(collection.settings.batch_size))


class LineTracer:
    """Counts lines of the traced files, and kills this process at one of them."""

    def __init__(self, fatal=None):
        self.count, self.fatal = 0, fatal
        self.writing = []  # lines at which rows and keys are being written

    def __call__(self, frame, event, _):
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        if event == "line":
            self.count += 1
            if frame.f_code.co_name == "extend":
                self.writing.append(self.count)
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def traced_sync(folder, fatal=None):
    tracer = LineTracer(fatal)
    sys.settrace(tracer)
    try:
        sync(folder)
    finally:
        sys.settrace(None)
    return tracer


def state(folder):
    """All that a sync writes."""
    with contextlib.closing(sqlite3.connect(folder / "images.sqlite")) as base:
        table = base.execute("SELECT * FROM images ORDER BY path").fetchall()
    stored = ("embeddings.bin", "keys.bin", "blocks.bin")
    return *((folder / name).read_bytes() for name in stored), table


def main(start, work):
    """Kill syncs of a copy of a collection; print what differed, if anything, as JSON."""
    syncing.FILES_AT_ONCE = content_digest.FILES_AT_ONCE = 4
    content_digest.SETTLED_SECONDS = -60.0
    undisturbed = work / "undisturbed"
    shutil.copytree(start, undisturbed)
    tracer = traced_sync(undisturbed)
    wanted = state(undisturbed)
    problems, num_killed = [], 0
    picked = np.linspace(0, len(tracer.writing) - 1, NUM_WHILE_WRITING).astype(int)
    lines = {
        *np.linspace(1, tracer.count, NUM_KILLS).astype(int),
        *np.array(tracer.writing)[picked],
    }
    for fatal in sorted(map(int, lines)):
        folder = work / str(fatal)
        shutil.copytree(start, folder)
        child = os.fork()
        if not child:
            traced_sync(folder, fatal)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        num_killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        try:
            Collection.open(folder).embeddings()  # what a search opens meanwhile
            sync(folder)
            problems += [] if state(folder) == wanted else [f"line {fatal}: another result"]
        except Exception as error:
            problems.append(f"line {fatal}: {error!r}")
        shutil.rmtree(folder)
    rows = len(wanted[1]) // 40
    print(json.dumps({"killed": num_killed, "rows": rows, "problems": problems}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
