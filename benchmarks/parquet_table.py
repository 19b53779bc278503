"""Take Parquet tables into an index, of 1 and of 2 million rows: peak memory, and rows a second.

    python benchmarks/parquet_table.py --work DIR

Each run is a process of its own, whose peak memory (VmHWM, mapped files included) it prints. The
reference reads the same parts by pyarrow and adds them to a flat faiss index, which keeps all rows
in memory. The rows are made up: unit vectors around class means, 100 of each class, and no image
files: the tables state the contents. Then the same table is taken again, with nothing new, and a
table of 1,000 new rows. With --uri, the rows go into a Milvus server too, beside bare pymilvus.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OF_A_CLASS, ROWS_OF_PART, ROWS_OF_GROUP = 100, 100_000, 16_384
MODEL, ROW, EMBEDDING = "model.h5", "row", "embedding"
NUM_NEW, FIRST_NEW = 1_000, 1_000_000_000  # rows that come later, and the number of the first


def main() -> None:
    """Make the tables that are missing, run every way on each, and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for tables and indexes")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2_000_000])
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--uri", help="also fill the Milvus server at this address")
    parser.add_argument("--milvus_index", help="its type of index, as for `index`")
    parser.add_argument(
        "--run", nargs=3, metavar=("WAY", "TABLE", "OUTPUT"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.run:
        print(json.dumps(WAYS[args.run[0]](Path(args.run[1]), Path(args.run[2]), args)))
        return
    ways = [way for way in WAYS if args.uri or not way.startswith("Milvus")]
    print(
        f"{'way':24} {'rows':>10} {'peak MB':>8} {'read s':>8} {'all s':>8} {'rows/s':>8} "
        f"{'again s':>8} {'new s':>8}"
    )
    make_table(args.work, NUM_NEW, args.dimension, first=FIRST_NEW)
    for count in args.rows:
        table = make_table(args.work, count, args.dimension)
        for way in ways:
            output = args.work / "output.index"
            rmtree(output, ignore_errors=True)
            command = [sys.executable, __file__, *sys.argv[1:], "--run", way, table, output]
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{way}: {done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{way:24} {count:10,} {found['peak']:8,.0f} {found['taken']:8.1f} "
                f"{found['all']:8.1f} {count / found['taken']:8,.0f} "
                + " ".join(f"{found[name]:8.1f}" for name in ("again", "new") if name in found),
                flush=True,
            )


def make_table(work: Path, count: int, dimension: int, *, first: int = 0) -> Path:
    """Make a table of `count` rows in parts, numbered from `first`, if it is not there."""
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq

    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.header import CONFIG_ATTRIBUTE, read_header
    from deep_ranking.search.table.format import TableOrigin, table_schema

    folder = work / f"{count}x{dimension}.parquet"
    work.mkdir(parents=True, exist_ok=True)
    with h5py.File(work / MODEL, "w") as file:  # a header is all that is read of it
        config = NetworkConfig(weights=None, image_size=32, embedding_size=dimension)
        file.attrs[CONFIG_ATTRIBUTE] = config.to_json()
    fingerprint = read_header(work / MODEL).fingerprint
    origin = TableOrigin(fingerprint, dimension, 32, "s3://made-up/images", {}, "float32")
    schema = table_schema(origin, has_content=True)
    if folder.is_dir():
        return folder
    making = folder.with_suffix(".making")
    rmtree(making, ignore_errors=True)
    making.mkdir()
    rng = np.random.default_rng(0)
    means = rng.standard_normal((count // OF_A_CLASS, dimension), np.float32)
    for part in range(-(-count // ROWS_OF_PART)):
        numbers = range(part * ROWS_OF_PART, min(count, (part + 1) * ROWS_OF_PART))
        codes = rng.integers(len(means), size=len(numbers))
        names = range(first + numbers.start, first + numbers.stop)
        rows = means[codes] + rng.standard_normal((len(numbers), dimension), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        pairs = list(zip(codes.tolist(), names, strict=True))
        nothing = pa.nulls(len(numbers), pa.float32())
        batch = pa.record_batch(
            [
                pa.array([f"c{code:06}/{number:010}.jpg" for code, number in pairs]),
                pa.array([f"c{code:06}" for code in codes]),
                nothing,
                nothing,
                pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dimension),
                pa.array([hashlib.sha256(b"%d" % number).hexdigest() for number in names]),
            ],
            schema=schema,
        )
        path = making / f"part-{part:05}.parquet"
        with pq.ParquetWriter(path, schema, use_dictionary=["class"]) as writer:
            writer.write_batch(batch, row_group_size=ROWS_OF_GROUP)
    making.rename(folder)
    return folder


def peak_megabytes() -> float:
    """Return the most memory that this process had resident, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [each for each in lines if each.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


def taken_in(kind: str) -> Callable[..., dict[str, float]]:
    """Return the function that makes an index of some kind of a table."""

    def run(table: Path, output: Path, args: argparse.Namespace) -> dict[str, float]:
        from deep_ranking.search.index.kinds import index_settings
        from deep_ranking.search.index.milvus import MilvusIndex
        from deep_ranking.search.table import index_table

        taken: list[float] = []
        bring_up_to_date = MilvusIndex.bring_up_to_date

        def timed(index: MilvusIndex, collection: Any) -> Any:
            begin = time.perf_counter()
            changes = bring_up_to_date(index, collection)
            taken.append(time.perf_counter() - begin)
            return changes

        start = time.perf_counter()
        index = index_settings(args.uri if kind == "milvus" else kind)
        if kind == "milvus":
            MilvusIndex.bring_up_to_date = timed
            if args.milvus_index:
                index["type"] = args.milvus_index
        index_table(
            table,
            output,
            model=table.parent / MODEL,
            index=index,
            when_synced=lambda _: taken.append(time.perf_counter() - start),
        )
        found = {"peak": peak_megabytes(), "all": time.perf_counter() - start}
        found["taken"] = taken[-1]  # into the folder; or, of Milvus, from the folder to the server
        new = table.with_name(f"{NUM_NEW}x{args.dimension}.parquet")
        for name, later in (("again", table), ("new", new)):
            start = time.perf_counter()
            index_table(later, output)
            found[name] = time.perf_counter() - start
        return found

    return run


def vectors_of(table: Path) -> Iterator[np.ndarray]:
    """Yield the vectors of all parts as pyarrow reads them."""
    import pyarrow.parquet as pq

    for part in sorted(table.iterdir()):
        for batch in pq.ParquetFile(part).iter_batches(ROWS_OF_GROUP, columns=["vector"]):
            column = batch.column("vector")
            yield column.flatten().to_numpy().reshape(len(column), -1)


def faiss_add(table: Path, output: Path, args: argparse.Namespace) -> dict[str, float]:
    """Add all rows to a flat faiss index, in memory."""
    import faiss

    start = time.perf_counter()
    index = faiss.IndexFlatL2(args.dimension)
    for rows in vectors_of(table):
        index.add(np.ascontiguousarray(rows))
    seconds = time.perf_counter() - start
    return {"peak": peak_megabytes(), "taken": seconds, "all": seconds}


def bare_pymilvus(table: Path, output: Path, args: argparse.Namespace) -> dict[str, float]:
    """Insert all rows by pymilvus, in batches as large as ours; a graph is built meanwhile."""
    from pymilvus import DataType, MilvusClient

    start = time.perf_counter()
    client, name = MilvusClient(args.uri), "bare"
    if client.has_collection(name):
        client.drop_collection(name)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW, DataType.INT64, is_primary=True)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=args.dimension)
    graph = client.prepare_index_params()
    graph.add_index(
        EMBEDDING, index_type="HNSW", metric_type="L2", params={"M": 16, "efConstruction": 200}
    )
    client.create_collection(name, schema=schema, index_params=graph)
    begin = 0
    for rows in vectors_of(table):
        client.insert(name, [{ROW: begin + i, EMBEDDING: row} for i, row in enumerate(rows)])
        begin += len(rows)
    client.flush(name, timeout=3600)
    seconds = time.perf_counter() - start
    client.drop_collection(name)
    return {"peak": peak_megabytes(), "taken": seconds, "all": seconds}


WAYS: dict[str, Callable[..., dict[str, float]]] = {
    "index --from_parquet": taken_in("exact"),
    "faiss add (in memory)": faiss_add,
    "Milvus by --from_parquet": taken_in("milvus"),
    "Milvus by bare pymilvus": bare_pymilvus,
}


if __name__ == "__main__":
    main()
