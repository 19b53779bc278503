"""Cost of smoothed rows: seconds to build and to update, milliseconds a query, with and without.

    python benchmarks/smoothing.py --rows 6000
    python benchmarks/smoothing.py --rows 100000 --index exact clusters

The embeddings are made up: unit rows around class means. The collection is real, so the figures
hold all that `index --smooth` does after the images are embedded. The update adds 100 images and
removes 100. Its rows are compared with those of the same collection smoothed afresh.
"""

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ROWS_AT_ONCE = 4096


def made_up(rng: np.random.Generator, means: np.ndarray, count: int, spread: float) -> np.ndarray:
    """Return unit rows around random means, float32 (count, dim)."""
    rows = rng.normal(0, spread / np.sqrt(means.shape[1]), (count, means.shape[1]))
    rows += means[rng.integers(len(means), size=count)]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def content(number: int) -> bytes:
    """Return the SHA-256 that stands for an image."""
    return hashlib.sha256(str(number).encode()).digest()


def make_collection(folder: Path, embeddings: np.ndarray, index: dict):
    """Make a collection of given embeddings; no image is in it yet."""
    import h5py

    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.header import CONFIG_ATTRIBUTE, read_header
    from deep_ranking.search.collection import Collection, Settings

    model = folder.with_suffix(".h5")
    with h5py.File(model, "w") as file:
        file.attrs[CONFIG_ATTRIBUTE] = NetworkConfig(weights=None).to_json()
    settings = Settings(
        fingerprint=read_header(model).fingerprint,
        dimension=embeddings.shape[1],
        image_size=32,
        dtype="float32",
        batch_size=64,
        root=str(folder),
        index=index,
    )
    collection = Collection.make(folder, settings, model)
    blocks = range(0, len(embeddings), ROWS_AT_ONCE)
    collection.store.extend(
        (
            [
                content(number)
                for number in range(begin, min(begin + ROWS_AT_ONCE, len(embeddings)))
            ],
            embeddings[begin : begin + ROWS_AT_ONCE],
        )
        for begin in blocks
    )
    return collection


def hold(collection, numbers: range) -> None:
    """Record that the collection has these images, as a sync does."""
    from deep_ranking.search.collection.records import FoundFile

    with closing(collection.images(writable=True)) as images, images.change():
        images.clear()
        for number in numbers:
            images.record(FoundFile(f"{number}.jpg", 1, 1), content(number))
            images.set_row(content(number), number)


def seconds_of(action) -> tuple[float, object]:
    """Return how long an action takes, and what it returns."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def milliseconds_a_query(searchers: list, queries: np.ndarray) -> list[float]:
    """Return the median time of a search for 20 images by each, one query at a time, in turn."""
    times: list[list[float]] = [[] for _ in searchers]
    for searcher in searchers:
        searcher.search(queries, 20)  # reads and checks the rows
    for query in queries:
        for searcher, each in zip(searchers, times, strict=True):
            each.append(seconds_of(lambda one=searcher, row=query: one.search(row[None], 20))[0])
    return [1000 * statistics.median(each) for each in times]


def measure(kind: str, embeddings: np.ndarray, queries: np.ndarray, args) -> list[str]:
    """Build, search and update one collection; return the cells of its line."""
    from deep_ranking.search.indexing import update_index
    from deep_ranking.search.searcher import Searcher
    from deep_ranking.search.smoothed_collection import update_smoothing
    from deep_ranking.search.smoothed_rows import read_smoothed

    with tempfile.TemporaryDirectory() as place:
        collection = make_collection(Path(place) / "index", embeddings, {"kind": kind})
        hold(collection, range(args.rows))
        plain_seconds, (index, _) = seconds_of(lambda: update_index(collection))
        how = {"smooth": args.smooth, "power": args.smooth_power}
        seconds, report = seconds_of(lambda: update_smoothing(collection, index, **how))
        searchers = [Searcher(collection, smooth=smooth) for smooth in (False, True)]
        plain, smooth = milliseconds_a_query(searchers, queries)
        size = sum(file.stat().st_size for file in (Path(place) / "index").glob("smoothed*"))
        hold(collection, range(args.changes, len(embeddings)))
        index, _ = update_index(collection)
        update_seconds, updated = seconds_of(lambda: update_smoothing(collection, index))
        rows = collection.rows()
        incremental = read_smoothed(collection).rows[rows]
        update_smoothing(collection, index, smooth=0)
        update_smoothing(collection, index, **how)
        afresh = read_smoothed(collection).rows[rows]
        difference = np.abs(incremental - afresh).max(axis=1)
        found = "-" if report.recall is None else f"{report.recall:.3f}"
        return [
            kind,
            f"{args.rows:,}",
            f"{plain_seconds:.1f}",
            f"{seconds:.1f}",
            f"{plain:.2f}",
            f"{smooth:.2f}",
            found,
            f"{size / 1e6:,.0f}",
            f"{update_seconds:.1f}",
            f"{updated.num_recomputed:,}",
            f"{difference.max():.1e}",
            f"{(difference > 1e-5).sum():,}",
        ]


HEADINGS = (
    "index",
    "rows",
    "index s",
    "smooth s",
    "plain ms",
    "smooth ms",
    "recall@20",
    "MB",
    "update s",
    "recomputed",
    "largest diff",
    "rows > 1e-5",
)


def main() -> None:
    """Measure each kind of index, and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=6_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--class_size", type=int, default=60)
    parser.add_argument("--spread", type=float, default=1.0, help="noise, in lengths of a mean")
    parser.add_argument("--changes", type=int, default=100, help="images added, and removed")
    parser.add_argument("--smooth", type=int, default=20)
    parser.add_argument("--smooth_power", type=float, default=3.0)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--index", nargs="+", default=["exact", "clusters"])
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    means = made_up(rng, np.zeros((1, args.dim)), max(1, args.rows // args.class_size), 1)
    embeddings = made_up(rng, means, args.rows + args.changes, args.spread)
    queries = made_up(rng, means, args.queries, args.spread)
    print("  ".join(f"{name:>12}" for name in HEADINGS))
    for kind in args.index:
        print(
            "  ".join(f"{cell:>12}" for cell in measure(kind, embeddings, queries, args)),
            flush=True,
        )


if __name__ == "__main__":
    main()
