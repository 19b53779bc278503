"""How fast triplets are sampled: this project against the blog's algorithm, in one run.

Both start from a listing in memory (without the walk through the folders), draw triplets by the
same rule and write a `triplets.txt` to a temporary folder. The names are made up.

The blog's algorithm shuffles all images for every (query, positive) pair, uses the first negatives
of another class, keeps the whole list in memory and writes it at the end. Its time grows with the
square of the data. So it is measured on queries spread evenly over the data set, as many as fit in
`--seconds`, and scaled up to all queries. There are two readings of it:

* "lists": pure Python. For every pair it collects the names of all other classes in a list,
  shuffles the list by `random.shuffle`, and uses the first ones.
* "array": the fastest reading of the algorithm, and the one that the targets refer to. For every
  pair NumPy shuffles an array of image numbers in place; a loop goes through it until it has found
  enough images of another class, seldom more than a step or two beyond. Nothing is collected.

Both are faster than the original wherever the algorithm is not the cost: image names are listed
once and grouped by class once, a table tells whether an image is of another class, and only the
query's own class is shuffled for its positives.

With `--strategies`, every strategy is measured instead: see `sampling_strategies.py`.
"""

import argparse
import multiprocessing
import os
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deep_ranking import __version__, sample_triplets, write_triplets

TARGET_RATIO = 300
TARGET_SECONDS = 2.0
TARGET_MEGABYTES = 1000


@dataclass(frozen=True)
class MadeUpListing:
    """A listing as a walk through class folders would find it.

    Attributes:
        names: image paths, class after class.
        labels: int32 (images,), not decreasing.
    """

    names: list[str]
    labels: np.ndarray


@dataclass(frozen=True)
class Measured:
    """A run of the blog's algorithm on some of the queries.

    Attributes:
        seconds: the time they took, including writing.
        queries: number of queries.
    """

    seconds: float
    queries: int


@dataclass(frozen=True)
class Usage:
    """Time and memory of a process.

    Attributes:
        seconds: time of sampling and writing.
        megabytes: peak memory, including interpreter, NumPy and listing.
    """

    seconds: float
    megabytes: float


def make_listing(num_images, num_classes):
    """Return a listing of `num_images` made-up names in classes of equal size, give or take one."""
    labels = (np.arange(num_images) * num_classes // num_images).astype(np.int32)
    names = [
        f"images/class_{label:05}/image_{number:07}.jpg"
        for number, label in enumerate(labels.tolist())
    ]
    return MadeUpListing(names, labels)


def sample_ours(listing, num_positives, num_negatives, path):
    """Sample and write with this project."""
    blocks = sample_triplets(
        listing.labels, num_positives=num_positives, num_negatives=num_negatives, seed=0
    )
    write_triplets(path, listing.names, blocks)


def negatives_by_lists(listing) -> Callable[[int, int], list[str]]:
    """Return a function (class, count) -> negatives that collects and shuffles lists of names."""
    named_labels = list(zip(listing.names, listing.labels.tolist(), strict=True))

    def draw(own_class, count):
        others = [name for name, label in named_labels if label != own_class]
        random.shuffle(others)
        return others[:count]

    return draw


def negatives_by_array(listing) -> Callable[[int, int], list[str]]:
    """Return a function (class, count) -> negatives that shuffles an array of image numbers."""
    numbers = np.arange(len(listing.names))
    labels = listing.labels.tolist()

    def draw(own_class, count):
        np.random.shuffle(numbers)
        negatives = []
        for number in map(int, numbers):
            if labels[number] != own_class:
                negatives.append(listing.names[number])
                if len(negatives) == count:
                    break
        return negatives

    return draw


def sample_blog(listing, num_positives, num_negatives, path, *, draw_negatives, seconds):
    """Sample and write by the blog's algorithm, for as many queries as `seconds` allow.

    Args:
        listing: the images.
        num_positives: positives for each query.
        num_negatives: negatives for each pair.
        path: file to write.
        draw_negatives: function (class, count) -> names.
        seconds: time limit; at least one query is sampled.

    Returns:
        What was `Measured`, without the time to make tables at the start.
    """
    members: list[list[str]] = [[] for _ in range(int(listing.labels[-1]) + 1)]
    for name, label in zip(listing.names, listing.labels.tolist(), strict=True):
        members[label].append(name)
    order = spread_evenly(len(listing.names))

    triplets = []
    queries = 0
    start = time.perf_counter()
    while queries < len(order):
        query = listing.names[order[queries]]
        label = int(listing.labels[order[queries]])
        positives = [name for name in members[label] if name != query]
        random.shuffle(positives)
        for positive in positives[:num_positives]:
            for negative in draw_negatives(label, num_negatives):
                triplets.append((query, positive, negative))
        queries += 1
        if time.perf_counter() - start > seconds:
            break
    with open(path, "w", encoding="utf-8") as handle:
        for query, positive, negative in triplets:
            handle.write(f"{query},{positive},{negative}\n")
    return Measured(time.perf_counter() - start, queries)


def spread_evenly(count):
    """Return 0 ... count - 1 in an order whose every beginning is spread evenly over the whole."""
    golden = (5**0.5 - 1) / 2
    return np.argsort((np.arange(count) * golden) % 1).tolist()


def measure_in_child(num_images, num_classes, num_positives, num_negatives):
    """Return the `Usage` of one run of ours in this process, which should be a new one."""
    listing = make_listing(num_images, num_classes)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sample_ours(listing, num_positives, num_negatives, Path(folder) / "triplets.txt")
        seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return Usage(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Sample triplets with this project and with the blog's algorithm.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for flag, default, text in (
        ("--images", 100_000, "images of the comparison"),
        ("--classes", 200, "classes, of equal size"),
        ("--num_pos_images", 1, "positives for each image"),
        ("--num_neg_images", 1, "negatives for each pair"),
        ("--large_images", 1_000_000, "images for the row of ours alone; 0 leaves it out"),
        ("--repeats", 5, "runs of each, in turn; the median counts"),
    ):
        parser.add_argument(flag, type=int, default=default, metavar="N", help=text)
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        metavar="S",
        help="time for each reading of the blog's",
    )
    parser.add_argument(
        "--strategies",
        action="store_true",
        help="measure each strategy, at 10,000, --images and --large_images images",
    )
    args = parser.parse_args()
    smallest = min(args.classes - 1, args.num_pos_images, args.num_neg_images, args.repeats)
    if smallest < 1 or args.images < 2 * args.classes or args.seconds <= 0:
        parser.error("expected 2 classes or more of 2 images or more, and counts of 1 or more")
    if args.large_images and args.large_images < 2 * args.classes:
        parser.error("--large_images: expected 0, or 2 images a class or more")
    return args


def compare(listing, counts, repeats, seconds):
    """Run ours and both readings of the blog's algorithm in turn.

    Args:
        listing: the images.
        counts: positives for each query, negatives for each pair.
        repeats: runs of each.
        seconds: time limit for all runs of a reading together.

    Returns:
        Seconds of each run of ours; for each reading, what each run `Measured`.
    """
    readings = {"lists": negatives_by_lists(listing), "array": negatives_by_array(listing)}
    ours = []
    blog = {reading: [] for reading in readings}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for _ in range(repeats):
            start = time.perf_counter()
            sample_ours(listing, *counts, folder / "ours.txt")
            ours.append(time.perf_counter() - start)
            for reading, draw in readings.items():
                run = sample_blog(
                    listing,
                    *counts,
                    folder / "blog.txt",
                    draw_negatives=draw,
                    seconds=seconds / repeats,
                )
                blog[reading].append(run)
    return ours, blog


def main():
    """Measure and print."""
    args = parse_arguments()
    if args.strategies:
        from sampling_strategies import measure_strategies

        sizes = [size for size in (10_000, args.images, args.large_images) if size]
        measure_strategies(sizes, args.classes)
        return
    counts = (args.num_pos_images, args.num_neg_images)
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"deep_ranking {__version__}"
    )
    print(
        f"{args.classes:,} classes, {counts[0]} positives a query, {counts[1]} negatives a pair; "
        f"medians of {args.repeats} runs"
    )
    print()

    large = None
    if args.large_images:
        # First: a child starts with the parent's peak memory, which is still small.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            large = pool.submit(measure_in_child, args.large_images, args.classes, *counts).result()
    listing = make_listing(args.images, args.classes)
    ours, blog = compare(listing, counts, args.repeats, args.seconds)

    seconds = statistics.median(ours)
    print(f"{'':24}{'images':>10}{'queries':>11}{'measured':>11}{'all queries':>14}{'ratio':>9}")
    print(f"{'ours':24}{args.images:10,}{args.images:11,}{seconds:9.2f} s{seconds:12.2f} s")
    ratios = {}
    for reading, runs in blog.items():
        queries = statistics.median_low(run.queries for run in runs)
        measured = statistics.median(run.seconds for run in runs)
        scaled = statistics.median(run.seconds * args.images / run.queries for run in runs)
        ratios[reading] = scaled / seconds
        print(
            f"{f'the blog, {reading}':24}{args.images:10,}{queries:11,}{measured:9.2f} s"
            f"{scaled:12.2f} s{ratios[reading]:9,.0f}"
        )
    checks = [
        (ratios["array"] >= TARGET_RATIO, f"{ratios['array']:,.0f} times (target {TARGET_RATIO})"),
        (seconds < TARGET_SECONDS, f"{seconds:.2f} s (target under {TARGET_SECONDS:.0f} s)"),
    ]
    if large:
        print(
            f"{'ours, in a new process':24}{args.large_images:10,}{args.large_images:11,}"
            f"{large.seconds:9.2f} s{large.seconds:12.2f} s   peak memory {large.megabytes:,.0f} MB"
        )
        checks.append(
            (
                large.megabytes < TARGET_MEGABYTES,
                f"{large.megabytes:,.0f} MB (target under {TARGET_MEGABYTES:,} MB)",
            )
        )
    print()
    print('For the blog, "all queries" is scaled up from the measured queries.')
    print("The targets are for the default sizes, against the faster reading, the array.")
    verdict = "met" if all(met for met, _ in checks) else "MISSED"
    print(f"Targets {verdict}: " + ", ".join(text for _, text in checks) + ".")


if __name__ == "__main__":
    main()
