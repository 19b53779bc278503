"""What checksums cost, and what the table of known contents saves.

Rows: 20,000 embeddings of 1024 dimensions (80 MB) in blocks of 64, as a collection keeps them. Ours
reads them through a store, whose first reading checks each block; the reference reads the same
file as a plain memory map. Contents: ours hashes files that the table knows; the reference hashes
them with hashlib. All files are in the page cache. The figures are medians of several rounds, each
of which runs ours and the reference.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deep_ranking.files import content_digest
from deep_ranking.files.row_store import RowStore

BLOCK = 64


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_rows(folder: Path, num_rows: int, dim: int, rounds: int) -> None:
    """Print the time to write all rows, and to read them."""
    rows = np.random.default_rng(0).normal(size=(num_rows, dim)).astype(np.float32)
    keys = [hashlib.sha256(row.to_bytes(8)).digest() for row in range(num_rows)]
    blocks = [(keys[n : n + BLOCK], rows[n : n + BLOCK]) for n in range(0, num_rows, BLOCK)]
    store = RowStore(folder / "store", "embeddings", dim, np.float32)
    written = seconds(lambda: store.extend(blocks))
    times: dict[str, list[float]] = {"plain map": [], "first reading": [], "second reading": []}
    for _ in range(rounds):
        plain = np.memmap(folder / "store/embeddings.bin", np.float32, "r", shape=rows.shape)
        times["plain map"].append(seconds(lambda each=plain: each[:].sum()))
        checked = store.rows()
        for name in ("first reading", "second reading"):
            times[name].append(seconds(lambda each=checked: each[:].sum()))
    medians = {name: statistics.median(each) for name, each in times.items()}
    size = rows.nbytes / 1e6
    print(f"{num_rows:,} rows of {dim} numbers, {size:.0f} MB, written in {written:.2f} s")
    for name, median in medians.items():
        ratio = median / medians["plain map"]
        print(f"  {name:>15}: {1000 * median:7.1f} ms, {ratio:5.1f} times the plain map")
    extra = medians["first reading"] - medians["second reading"]
    print(f"  checking: {size / extra:,.0f} MB a second")


def measure_contents(folder: Path, num_files: int, file_bytes: int, rounds: int) -> None:
    """Print the time to hash files, and to find the digests of known files."""
    content_digest.SETTLED_SECONDS = -60.0  # these files are new, and will not change
    os.environ["DEEP_RANKING_CACHE"] = str(folder / "cache")
    paths = [folder / f"{number}.jpg" for number in range(num_files)]
    rng = np.random.default_rng(0)
    for path in paths:
        path.write_bytes(rng.bytes(file_bytes))
    list(content_digest.content_digests(paths))
    ours, reference = [], []
    for _ in range(rounds):
        reference.append(
            seconds(lambda: [hashlib.sha256(path.read_bytes()).digest() for path in paths])
        )
        ours.append(seconds(lambda: list(content_digest.content_digests(paths))))
    a, b = statistics.median(ours), statistics.median(reference)
    print(f"{num_files:,} files of {file_bytes:,} bytes")
    print(
        f"  known contents: {1000 * a:.1f} ms; hashed: {1000 * b:.1f} ms, {b / a:.1f} times as long"
    )


def main() -> None:
    """Parse the sizes and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--file_bytes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_rows(Path(folder), args.rows, args.dim, args.rounds)
        measure_contents(Path(folder), args.files, args.file_bytes, args.rounds)


if __name__ == "__main__":
    main()
