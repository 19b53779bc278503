"""What each strategy costs: triplets per second, memory, and the time to write against a copy.

Called by `sampling.py --strategies`. The listings are made up: classes of equal size, ten images
in each item. The inputs of the strategies are made up too: relevance is the cosine of random rows
of 32 floats, and neighbours are ten random images of other classes. Each measurement has its own
process, and each image has one positive with four negatives.

"file" is the time from the labels to the file on the disk, "lines" the time to write the same
triplets once they are drawn, "bytes" the time to copy the file; all are flushed to the disk. Memory
includes the made-up rows and neighbours.
"""

import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deep_ranking import write_triplets
from deep_ranking.config import STRATEGIES, SamplingConfig
from deep_ranking.sampling import make_strategy
from deep_ranking.sampling.relevance import RowCosine

IMAGES_AN_ITEM = 10
DIMENSION = 32
NUM_NEIGHBOURS = 10
REPEATS = 5
TARGET_RATIO = 3


@dataclass(frozen=True)
class Measured:
    """Medians of some runs.

    Attributes:
        triplets: number of triplets drawn.
        drawing: seconds to draw them, without writing.
        writing: seconds to draw them and write the file.
        lines: seconds to write triplets that are drawn already.
        copying: seconds to copy the file.
        megabytes: peak memory of the process.
    """

    triplets: int
    drawing: float
    writing: float
    lines: float
    copying: float
    megabytes: float


def measure(name, num_images, num_classes):
    """Return what was `Measured` of a strategy in this process, which should be a new one."""
    classes = (np.arange(num_images) * num_classes // num_images).astype(np.int32)
    items = (np.arange(num_images) // IMAGES_AN_ITEM).astype(np.int32)
    categories = classes[items * IMAGES_AN_ITEM]
    names = [
        f"images/class_{category:05}/item_{item:06}/image_{number:07}.jpg"
        for number, (category, item) in enumerate(zip(categories, items, strict=True))
    ]
    rng = np.random.default_rng(0)
    given = {}
    if name == "relevance":
        rows = rng.standard_normal((num_images, DIMENSION), np.float32) + np.float32(0.5)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        given["rows"] = RowCosine(rows)
    if name == "hard":
        step = rng.integers(num_images // 3, num_images // 2, (num_images, NUM_NEIGHBOURS))
        given["neighbours"] = ((np.arange(num_images)[:, None] + step) % num_images).astype(
            np.int32
        )
    config = SamplingConfig(strategy=name, num_pos_images=1, num_neg_images=4)

    def strategy():
        relevance = None
        if "rows" in given:
            relevance = (given["rows"], given["rows"].totals(categories))
        return make_strategy(
            config,
            items if name == "in-class" else categories,
            categories=categories if name == "in-class" else None,
            relevance=relevance,
            neighbours=given.get("neighbours"),
        )

    seconds = {"drawing": [], "writing": [], "lines": [], "copying": []}

    def timed(what, action):
        start = time.perf_counter()
        result = action()
        seconds[what].append(time.perf_counter() - start)
        return result

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "triplets.txt"
        for _ in range(REPEATS):
            count = timed("drawing", lambda: sum(map(len, strategy().triplets(0))))
            timed("writing", lambda: write_triplets(path, names, strategy().triplets(0)))
            timed("copying", lambda: copy(path, folder / "copy.txt"))
            (folder / "copy.txt").unlink()
            path.unlink()
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
        blocks = list(strategy().triplets(0))
        for _ in range(REPEATS):
            timed("lines", lambda: write_triplets(path, names, blocks))
    medians = {what: statistics.median(runs) for what, runs in seconds.items()}
    return Measured(count, **medians, megabytes=megabytes)


def copy(source, target):
    """Copy a file, and flush the copy to the disk as the sampler does."""
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())


def measure_strategies(sizes, num_classes):
    """Measure all strategies with these numbers of images, and print."""
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"{num_classes:,} classes; a process each; medians of {REPEATS} runs\n")
    print(
        f"{'strategy':14}{'images':>11}{'triplets':>12}{'a second':>12}{'file':>10}{'lines':>10}"
        f"{'ratio':>7}{'bytes':>10}{'ratio':>7}{'memory':>11}"
    )
    slow = []
    for name in STRATEGIES:
        for size in sizes:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                run = pool.submit(measure, name, size, num_classes).result()
            ratio = run.writing / run.copying
            print(
                f"{name:14}{size:11,}{run.triplets:12,}{run.triplets / run.drawing:12,.0f}"
                f"{run.writing:8.3f} s{run.lines:8.3f} s{run.writing / run.lines:7.1f}"
                f"{run.copying:8.3f} s{ratio:7.1f}{run.megabytes:8,.0f} MB",
                flush=True,
            )
            if name == "out-of-class" and ratio > TARGET_RATIO:
                slow.append(f"{ratio:.1f} at {size:,}")
    print(
        f"\nTarget of out-of-class, a file in {TARGET_RATIO} times its bytes: "
        + (f"MISSED ({', '.join(slow)})." if slow else "met.")
    )
