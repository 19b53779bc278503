"""How fast Milvus stores and finds embeddings: `MilvusIndex` against bare pymilvus, in one run.

Each fills its own Milvus collection with the same random unit vectors, in the same kind of graph,
and answers the same queries, one at a time. Bare pymilvus gets every advantage: it inserts, while
`MilvusIndex` upserts so that a batch sent twice is stored once; its batches are equally large; it
stores nothing else. NumPy computes what the queries should find.

With `--data`, the data folder of a server that does nothing else, the script also prints the bytes
on its disk, including the write-ahead log.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.search.collection import Collection, Settings
from deep_ranking.search.index.kinds import HNSW
from deep_ranking.search.index.milvus import MilvusIndex
from deep_ranking.search.index.milvus_filling import BATCH_BYTES
from deep_ranking.search.index.milvus_schema import EMBEDDING, PROBES, ROW, index_type

COUNT = 20
CLUSTER_SIZE = 100


def main() -> None:
    """Run both and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--uri", default="http://127.0.0.1:19530", help="default: %(default)s")
    parser.add_argument("--data", type=Path, help="data folder of the server")
    parser.add_argument("--rows", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--dimension", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=300, help="default: %(default)s")
    args = parser.parse_args()

    matrix, queries = clustered(args.rows, args.dimension, args.queries)
    expected = np.argpartition(-queries @ matrix.T, COUNT, axis=1)[:, :COUNT]
    print(f"{args.rows:,} vectors of {args.dimension} dimensions, {args.queries} queries")
    print(f"{'':12} {'insert/s':>9} {'indexed s':>9} {'p50 ms':>7} {'p99 ms':>7} {'recall@20':>9}")
    with tempfile.TemporaryDirectory() as folder:
        before = size_of(args.data)
        index = make_ours(Path(folder), args.uri, matrix)
        client, name = index.connection.client(), ""
        try:
            start = time.perf_counter()
            index.update(matrix, np.arange(len(matrix)), np.empty(0, np.int64))
            inserted = time.perf_counter() - start
            name = index.name
            wait_for_graph(client, name)
            indexed = time.perf_counter() - start
            stored = size_of(args.data) - before
            report(
                "MilvusIndex",
                (len(matrix) / inserted, indexed),
                queries,
                expected,
                lambda query: index.search(query, COUNT).rows[0],
            )
        finally:
            with contextlib.suppress(Exception):
                client.drop_collection(name)
        measure_bare(client, matrix, queries, expected)
    if args.data:
        print(f"{stored / len(matrix):,.0f} bytes on disk a vector of {4 * args.dimension:,}")


def clustered(rows: int, dimension: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors around centers, and queries around some of the centers."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(max(1, rows // CLUSTER_SIZE), dimension)).astype(np.float32)

    def around(count: int) -> np.ndarray:
        values = centers[rng.integers(len(centers), size=count)]
        values = values + 0.7 * rng.standard_normal((count, dimension), np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    return around(rows), around(queries)


def make_ours(folder: Path, uri: str, matrix: np.ndarray) -> MilvusIndex:
    """Return an index of a collection without images."""
    (folder / "some.h5").write_bytes(b"no model is needed")
    settings = Settings(
        fingerprint="benchmark",
        dimension=matrix.shape[1],
        image_size=32,
        dtype="float32",
        batch_size=1,
        root=str(folder),
        index={"kind": "milvus", "uri": uri},
    )
    return MilvusIndex(Collection.make(folder / "collection", settings, folder / "some.h5"))


def measure_bare(
    client: Any, matrix: np.ndarray, queries: np.ndarray, expected: np.ndarray
) -> None:
    """Measure pymilvus alone in the same way."""
    from pymilvus import DataType

    name = f"bare_{time.time_ns()}"
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW, DataType.INT64, is_primary=True)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=matrix.shape[1])
    graph, graph_type = client.prepare_index_params(), index_type(HNSW, matrix.shape[1])
    graph.add_index(
        EMBEDDING,
        index_name=EMBEDDING,
        index_type=graph_type.name,
        metric_type="L2",
        params=graph_type.parameters,
    )
    try:
        start = time.perf_counter()
        client.create_collection(name, schema=schema, index_params=graph)
        size = BATCH_BYTES // (4 * matrix.shape[1])
        for begin in range(0, len(matrix), size):
            block = matrix[begin : begin + size]
            client.insert(name, [{ROW: begin + i, EMBEDDING: row} for i, row in enumerate(block)])
        client.flush(name)
        inserted = time.perf_counter() - start
        wait_for_graph(client, name)
        indexed = time.perf_counter() - start

        def search(query: np.ndarray) -> Any:
            [hits] = client.search(
                name,
                data=[query[0]],
                limit=COUNT,
                search_params={"metric_type": "L2", "params": {"ef": PROBES[HNSW]}},
                consistency_level="Bounded",
            )
            return hits.ids

        report("pymilvus", (len(matrix) / inserted, indexed), queries, expected, search)
    finally:
        with contextlib.suppress(Exception):
            client.drop_collection(name)


def wait_for_graph(client: Any, name: str) -> None:
    """Wait until the server has built the graph and uses it instead of the plain vectors."""
    while client.describe_index(name, EMBEDDING).get("pending_index_rows"):
        time.sleep(0.5)
    client.refresh_load(name)


def report(
    title: str,
    filling: tuple[float, float],
    queries: np.ndarray,
    expected: np.ndarray,
    search: Callable[[np.ndarray], Any],
) -> None:
    """Search, and print a line: speed and seconds of filling, times and recall of the searches."""
    for query in queries[:10]:
        search(query[None])
    seconds, hits = [], 0
    for query, right in zip(queries, expected, strict=True):
        start = time.perf_counter()
        found = search(query[None])
        seconds.append(time.perf_counter() - start)
        hits += len(set(map(int, found)) & set(right.tolist()))
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1000
    recall = hits / expected.size
    print(
        f"{title:12} {filling[0]:9,.0f} {filling[1]:9.1f} {p50:7.2f} {p99:7.2f} {recall:9.3f}",
        flush=True,
    )


def size_of(folder: Path | None) -> int:
    """Return the bytes that a folder takes on the disk."""
    total = 0
    for each in folder.rglob("*") if folder else []:
        with contextlib.suppress(OSError):
            total += each.stat().st_blocks * 512 if each.is_file() else 0
    return total


if __name__ == "__main__":
    main()
