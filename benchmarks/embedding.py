"""Images a second from JPEG files to rows on disk: this project, its limits, other networks.

    python benchmarks/embedding.py --model m.h5 --images photos --judge photos_of_other_classes

All in one run. In each round every method embeds the same images, one method after the other, in
turn from the first and from the last; a slow method takes the first quarter of them. A speed is the
median over the rounds, and a ratio the median of the ratios of all rounds, since the load of the
machine changes. Files are read once before, so that they come from the page cache. Each method is
run twice on a quarter before it is timed; starting and compiling are not in the time. Batches of
Keras have 64 images, or a quarter of a round if that is less, so that none is filled up.

- "decoding alone" reads images by as many threads as embedding does.
- "from files" reads images, embeds them, and writes the rows into a memory-mapped file, as the
  commands do (`embed_batches`). "engine works" is the share of the time that all of its threads are
  computing.
- "in memory" is the engine alone on the same images as arrays, all of its threads busy: the limit.
  "of the limit" is the speed from files divided by it.
- The other networks are read by the same reader at 224 pixels, and have random weights: they show
  speed alone (`reference_networks.py`).

With --judge, a second table has what each precision finds among images of other classes
(`precision_quality.py`).

Several models are compared with the first one's Keras too; decoding and other networks are compared
with that alone. A model that is not compiled in a precision is compiled first, and calibrated on
--images.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from deep_ranking import InputError
from deep_ranking.cli.arguments import positive_int
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.embedding.compiled.places import PRECISIONS
from deep_ranking.embedding.embed import BATCH_SIZE, EngineTime, embed_batches
from deep_ranking.files.row_store import temporary_rows
from deep_ranking.images import find_images, read_image

SLOW = 30  # images a second; a slower method takes a quarter of the images
AT_ONCE = 8  # images that a thread takes in memory, so that all threads end at the same time
NOT_MEASURED = "-"


class Run(NamedTuple):
    """A number of images, the seconds they took, and the share that the engine worked (or NaN)."""

    count: int
    seconds: float
    share: float = float("nan")

    @property
    def speed(self):
        """Images a second."""
        return self.count / self.seconds


@dataclass
class Method:
    """A way to embed images.

    Attributes:
        name: what the table calls it.
        run: embeds image files, and returns the `Run`.
        reference: the method that its speed is divided by, the Keras of the same model.
        limit: the same engine on arrays in memory; None if it is that, or has none.
        runs: one of each round.
        num_images: of a round.
    """

    name: str
    run: Callable[[list[str]], Run]
    reference: "Method | None" = None
    limit: "Method | None" = None
    runs: list[Run] = field(default_factory=list)
    num_images: int = 0


def decode(files, size):
    """Read images by as many threads as `embed_batches` does."""
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(os.cpu_count() or 1) as readers:
        start = time.perf_counter()
        for _ in readers.map(lambda file: read_image(file, size), files):
            pass
        return Run(len(files), time.perf_counter() - start)


def embed_files(files, engine):
    """Embed image files into rows on disk."""
    worked = EngineTime()
    with temporary_rows(len(files), engine.dimension) as rows:
        start, filled = time.perf_counter(), 0
        for batch in embed_batches(engine, files, worked=worked):
            rows[filled : filled + len(batch.rows)] = batch.rows
            filled += len(batch.rows)
        rows.flush()
        seconds = time.perf_counter() - start
    return Run(len(files), seconds, worked.seconds / (worked.num_threads * seconds))


def embed_arrays(files, engine):
    """Embed images that lie in memory, all threads of the engine busy; reading is not timed."""
    pixels = np.stack([read_image(file, engine.image_size) for file in files])
    size = min(engine.batch_size, AT_ONCE) if engine.num_threads else engine.batch_size
    parts = [pixels[begin : begin + size] for begin in range(0, len(pixels), size)]
    with ThreadPoolExecutor(max(1, engine.num_threads)) as threads:
        start = time.perf_counter()
        for _ in (threads.map if engine.num_threads else map)(engine.embed, parts):
            pass
        return Run(len(files), time.perf_counter() - start)


def methods_of(name, engines):
    """Return the methods of a model: each of its engines from files and in memory, Keras first.

    Args:
        name: of the model.
        engines: what each computes in, in words -> the engine.
    """
    found = []
    for words, engine in engines.items():
        from_files = Method(
            f"{name}: {words}, from files", lambda files, engine=engine: embed_files(files, engine)
        )
        in_memory = Method(
            f"{name}: {words}, in memory", lambda files, engine=engine: embed_arrays(files, engine)
        )
        found += [from_files, in_memory]
        from_files.limit = in_memory
    for each in found:
        each.reference = found[0]
    return found


def quarter_of(wanted, num_files):
    """Return how many images a slow method takes in a round: a number of whole batches.

    Args:
        wanted: images a round.
        num_files: images that there are.
    """
    quarter = min(wanted, num_files) // 4
    if not quarter:
        raise InputError(f"a round needs at least 4 images. Received: {min(wanted, num_files)}")
    return quarter if quarter < BATCH_SIZE else quarter // BATCH_SIZE * BATCH_SIZE


def measure(methods, files, rounds, quarter):
    """Time each method on the same files in each round.

    Args:
        methods: whose `runs` are filled.
        files: image files; if the rounds need more, they start again from the first.
        rounds: how many.
        quarter: images that a slow method takes in a round, a quarter of the others'.
    """
    for file in files:
        Path(file).read_bytes()
    for each in methods:
        each.run(files[:quarter])
        is_slow = each.run(files[:quarter]).speed < SLOW
        each.num_images = quarter if is_slow else 4 * quarter
    for number in range(rounds):
        places = np.arange(number * 4 * quarter, (number + 1) * 4 * quarter) % len(files)
        block = [files[place] for place in places]
        for each in methods if number % 2 == 0 else reversed(methods):
            each.runs.append(each.run(block[: each.num_images]))


def ratio(method, other):
    """Return the median over the rounds of the ratio of the speeds of two methods."""
    return statistics.median(
        mine.speed / theirs.speed for mine, theirs in zip(method.runs, other.runs, strict=True)
    )


def table_of_speeds(methods, first=None):
    """Return the table, in Markdown.

    Args:
        methods: measured ones.
        first: also compare with this one; None to leave out that column.
    """
    headings = ["method", "images a second", "times Keras", "of the limit", "engine works"]
    headings += ["images a round"] + ([] if first is None else ["times the first Keras"])
    lines = [headings, ["---"] * len(headings)]
    for each in methods:
        share = statistics.median(run.share for run in each.runs)
        cells = [
            each.name,
            f"{statistics.median(run.speed for run in each.runs):.1f}",
            NOT_MEASURED if each.reference is None else f"{ratio(each, each.reference):.2f}",
            NOT_MEASURED if each.limit is None else f"{ratio(each, each.limit):.0%}",
            NOT_MEASURED if np.isnan(share) else f"{share:.0%}",
            str(each.num_images),
        ]
        lines.append(cells + ([] if first is None else [f"{ratio(each, first):.2f}"]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def open_model(path, precisions, images):
    """Return the network of a model file, and precision -> its compiled `Embedder`.

    A precision that the model cannot be compiled in is left out, with a line.
    """
    from deep_ranking.embedding.compiled.compiling import compile_model
    from deep_ranking.embedding.embedder import Embedder
    from deep_ranking.model.file import load_model

    embedders = {}
    for precision in precisions:
        try:
            report = compile_model(path, precision=precision, images=images)
        except InputError as error:
            print(f"{path}: left out in {precision}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{path}: {report}", file=sys.stderr, flush=True)
        embedders[precision] = Embedder(path, precision=precision)
    return load_model(path), embedders


def chosen_images(folder, most):
    """Return at most so many image files of a folder, drawn from all of it."""
    files = find_images(folder).files()
    order = np.random.default_rng(0).permutation(len(files))[:most]
    return [files[number] for number in order]


def main():
    """Read the flags, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, nargs="+", required=True, metavar="FILE.h5")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--judge", type=Path, metavar="DIR", help="folder of classes")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--images_a_round", type=positive_int, default=256, metavar="N")
    parser.add_argument("--images_at_most", type=positive_int, default=1_000, metavar="N")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--without_references", action="store_true")
    args = parser.parse_args()
    start_tensorflow()
    from deep_ranking.embedding.engines.keras_model import KerasEngine

    files = chosen_images(args.images, args.images_at_most)
    quarter = quarter_of(args.images_a_round, len(files))
    opened = {str(path): open_model(path, args.precisions, files) for path in args.model}
    methods = []
    for name, (network, embedders) in opened.items():
        engines = {"Keras float32": KerasEngine(network, min(quarter, BATCH_SIZE))}
        engines |= {f"LiteRT {each}": one.engine() for each, one in embedders.items()}
        methods += methods_of(name, engines)
    first = methods[0]
    sizes = {network.network_config.image_size for network, _ in opened.values()}
    for size in sorted(sizes):
        decoding = Method(
            f"decoding alone, {size} px", lambda files, size=size: decode(files, size), first
        )
        methods.insert(0, decoding)
    with tempfile.TemporaryDirectory() as folder:
        if not args.without_references:
            from reference_networks import reference_engines

            methods += [
                Method(each.name, lambda files, each=each: embed_files(files, each), first)
                for each in reference_engines(Path(folder))
            ]
        measure(methods, files, args.rounds, quarter)
    print(table_of_speeds(methods, first if len(opened) > 1 else None), flush=True)
    if args.judge is not None:
        from precision_quality import quality

        print("\n" + quality(opened, args.judge))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
