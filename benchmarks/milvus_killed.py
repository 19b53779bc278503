"""Fill a Milvus server with 2,000,000 rows, kill the filling half-way, and go on: each row once.

    python benchmarks/milvus_killed.py --uri http://HOST:PORT --work DIR

`make milvus-server` gets a server: .venv-milvus/bin/milvus-server --data DIR. The table is that of
parquet_table.py: made-up rows of 256 dimensions, 100 of each class, in parts. `index --from_parquet
--index URI` takes it in, and is killed (SIGKILL) when the server has a share of the rows; then the
same command runs again. In the end the server must have the number of each row, each once, and of
1,000 drawn rows the vector, the class and the folder that the table has; else the benchmark ends
with an error. The peak memory is that of the two commands (VmHWM, mapped files included).
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import numpy as np
from parquet_table import MODEL, ROOT, ROWS_OF_PART, make_table

sys.path.insert(0, str(ROOT))
SECONDS_BETWEEN_COUNTS, NUM_COMPARED = 1.0, 1_000


def main() -> None:
    """Fill, kill, fill again, and compare; print a line for each."""
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.index.milvus import MilvusIndex

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uri", required=True, help="of the server")
    parser.add_argument("--work", type=Path, required=True, help="folder for table and index")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--kill_at", type=float, default=0.5, help="share of the rows there")
    args = parser.parse_args()
    table, output = make_table(args.work, args.rows, args.dimension), args.work / "milvus.index"
    rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "deep_ranking", "index", "--from_parquet", table]
    command += ["--model", args.work / MODEL, "--index", args.uri, "--output", output]
    began, peak, there = time.perf_counter(), 0.0, 0
    filling = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.DEVNULL)
    for megabytes in peaks(filling):
        peak = max(peak, megabytes)
        if (there := rows_there(output, args.uri)) >= args.kill_at * args.rows:
            os.kill(filling.pid, signal.SIGKILL)
    if filling.returncode != -signal.SIGKILL:
        sys.exit(f"the filling ended with {filling.returncode} before it was killed")
    seconds = time.perf_counter() - began
    print(f"killed after {seconds:.0f} s with {there:,} of {args.rows:,} rows there", flush=True)
    began = time.perf_counter()
    filling = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.DEVNULL)
    peak = max(peak, *peaks(filling))
    if filling.returncode:
        sys.exit(f"the second filling ended with {filling.returncode}")
    print(f"the same command again: {time.perf_counter() - began:.0f} s; peak {peak:,.0f} MB")
    index = Collection.open(output).open_index()
    assert isinstance(index, MilvusIndex)
    rows, count = index.rows(), index.count()
    if count != args.rows or not np.array_equal(np.sort(rows), np.arange(args.rows)):
        sys.exit(f"{count:,} rows, {len(np.unique(rows)):,} of them different")
    if num_wrong := num_differing(table, args.uri, index.name, args.rows):
        sys.exit(f"{num_wrong:,} of {NUM_COMPARED:,} drawn rows differ from the table")
    print(f"{count:,} rows, each once; {NUM_COMPARED:,} drawn ones as in the table")


def peaks(process: "subprocess.Popen[bytes]") -> Iterator[float]:
    """Yield the peak memory of a process in MB, every second until it ends."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        for line in status:
            if line.startswith("VmHWM:"):
                yield int(line.split()[1]) * 1024 / 1e6
        time.sleep(SECONDS_BETWEEN_COUNTS)


def rows_there(output: Path, uri: str) -> int:
    """Return how many rows a server has of an index that is being made."""
    from pymilvus import MilvusClient

    from deep_ranking.search.index.milvus_schema import NAME_FILE

    if not (output / NAME_FILE).is_file():
        return 0
    name = (output / NAME_FILE).read_text(encoding="utf-8").strip()
    client = MilvusClient(uri)
    if not client.has_collection(name):
        return 0
    try:
        return int(client.query(name, output_fields=["count(*)"])[0]["count(*)"])
    except Exception:  # not loaded yet
        return 0


def num_differing(table: Path, uri: str, name: str, num_rows: int) -> int:
    """Return how many of some drawn rows have another vector, class or folder than in a table."""
    import pyarrow.parquet as pq
    from pymilvus import MilvusClient

    from deep_ranking.search.index.milvus_schema import CLASSES, EMBEDDING, FOLDERS, ROW

    drawn = np.sort(np.random.default_rng(0).choice(num_rows, NUM_COMPARED, replace=False))
    fields = [ROW, EMBEDDING, CLASSES, FOLDERS]
    found = MilvusClient(uri).query(name, filter=f"{ROW} in {drawn.tolist()}", output_fields=fields)
    by_row = {each[ROW]: each for each in found}
    num_equal = 0
    for part, file in enumerate(sorted(table.iterdir())):
        of_part = drawn[drawn // ROWS_OF_PART == part]
        columns = pq.read_table(file, columns=["class", "vector"])
        for row, wanted in zip(
            of_part.tolist(), columns.take(of_part % ROWS_OF_PART).to_pylist(), strict=True
        ):
            each, label = by_row[row], [wanted["class"]]  # the folder of an image is its class
            num_equal += (
                np.array_equal(np.float32(each[EMBEDDING]), np.float32(wanted["vector"]))
                and list(each[CLASSES]) == list(each[FOLDERS]) == label
            )
    return NUM_COMPARED - num_equal


if __name__ == "__main__":
    main()
