"""Search over eight shards against exact search on their union: equality, milliseconds, memory.

    python benchmarks/shards.py --work DIR

The rows are made up: unit vectors around class means, 100 of each class, and no image files. What
is right is found by NumPy in double precision, on a file of all rows in one piece. The reference
for time is bare faiss on the same rows: a flat index, which keeps all of them in memory. Queries
are searched one at a time, ours and the reference's in turn, so that other work on the machine
affects both equally. Memory is that of processes of their own, mapped files included.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from shutil import rmtree

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TOP, OF_A_CLASS, AT_ONCE = 20, 100, 1 << 14
UNION, MODEL = "union.f32", "model.h5"


def main() -> None:
    """Make the shards that are missing, search them and their union, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--queries", type=int, default=300, help="that are compared")
    parser.add_argument("--timed", type=int, default=100, help="of these, searched one at a time")
    parser.add_argument("--run", choices=("ours", "faiss"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(memory_of(args)))
        return
    make_shards(args)
    queries = drawn(np.random.default_rng(1), args, args.queries)
    distances, numbers = exact_on_union(args, queries)
    ours, reference = searcher_of(args), flat_index(args)
    found = ours.search(queries, TOP)
    wanted = [[path_of(args, number) for number in row] for row in numbers.tolist()]
    paths = [[each.path for each in of_query] for of_query in found]
    equal = sum(mine == right for mine, right in zip(paths, wanted, strict=True))
    off = np.abs([[each.distance for each in of_query] for of_query in found] - distances).max()
    print(f"{args.rows:,} rows of {args.dimension} in {args.shards} shards, {args.queries} queries")
    print(f"top {TOP} equal to exact search on the union: {equal} of {args.queries}")
    print(f"largest difference of a distance: {off:.1e}")
    print(f"{'':24} {'p50 ms':>8} {'p95 ms':>8} {'peak MB':>8} {'mapped':>8}")
    ways = {
        "ours": lambda query: ours.search(query, TOP),
        "faiss": lambda query: reference.search(query, TOP),
    }
    times = in_turn(ways, queries[: args.timed])
    for way, name in (("ours", "shards"), ("faiss", "faiss, flat, one piece")):
        command = [sys.executable, __file__, *sys.argv[1:], "--run", way]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        memory = json.loads(done.stdout.splitlines()[-1])
        p50, p95 = np.percentile(times[way], [50, 95])
        print(f"{name:24} {p50:8.1f} {p95:8.1f} {memory['peak']:8,.0f} {memory['mapped']:8,.0f}")


def drawn(rng, args, count):
    """Return unit vectors around class means, float32 (count, dimension)."""
    means = np.random.default_rng(2).standard_normal(
        (args.rows // OF_A_CLASS, args.dimension), np.float32
    )
    rows = means[rng.integers(len(means), size=count)]
    rows += rng.standard_normal((count, args.dimension), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def limits_of(args):
    """Return where the rows of each shard begin and end in the union."""
    return np.linspace(0, args.rows, args.shards + 1).astype(int).tolist()


def path_of(args, number):
    """Return the path of an image by its number in the union."""
    return str(args.work / "images" / f"{number % 7}" / f"{number:09}.jpg")


def shard_folders(args):
    """Return the folders of the shards."""
    return [args.work / f"shard{number}.index" for number in range(args.shards)]


def make_shards(args):
    """Make shards and the file of all rows, unless they are there for the same sizes."""
    sizes = json.dumps([args.rows, args.dimension, args.shards])
    done = args.work / "sizes.json"
    if done.exists() and done.read_text() == sizes:
        return
    rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    rng, limits = np.random.default_rng(0), limits_of(args)
    with (args.work / UNION).open("wb") as union:
        for folder, begin, end in zip(shard_folders(args), limits[:-1], limits[1:], strict=True):
            rows = drawn(rng, args, end - begin)
            union.write(rows.tobytes())
            make_shard(args, folder, begin, rows)
    done.write_text(sizes)


def make_shard(args, folder, begin, rows):
    """Make the collection of a shard as a sync would, of images that are not there."""
    import h5py

    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.header import CONFIG_ATTRIBUTE, read_header
    from deep_ranking.search.collection import Collection, Settings

    model = args.work / MODEL
    with h5py.File(model, "w") as file:  # a header is all that is read of it
        config = NetworkConfig(weights=None, image_size=32, embedding_size=args.dimension)
        file.attrs[CONFIG_ATTRIBUTE] = config.to_json()
    settings = Settings(
        fingerprint=read_header(model).fingerprint,
        dimension=args.dimension,
        image_size=32,
        dtype="float32",
        batch_size=32,
        root=str((args.work / "images").absolute()),
    )
    collection = Collection.make(folder, settings, model)
    numbers = range(begin, begin + len(rows))
    contents = [hashlib.sha256(b"%d" % number).digest() for number in numbers]
    collection.store.extend(
        (contents[first : first + AT_ONCE], rows[first : first + AT_ONCE])
        for first in range(0, len(rows), AT_ONCE)
    )
    root = args.work / "images"
    with closing(collection.images(writable=True)) as table, table.change():
        table.base.executemany(
            "INSERT INTO images VALUES (?, ?, 0, 0, ?, ?, NULL, NULL, NULL)",
            (
                (Path(path_of(args, number)).relative_to(root).as_posix().encode(),
                 b"%d" % (number % 7), content, row)
                for row, (number, content) in enumerate(zip(numbers, contents, strict=True))
            ),
        )  # fmt: skip


def exact_on_union(args, queries):
    """Return distances and numbers of the nearest rows by NumPy: float64, int64 (queries, 20)."""
    union = np.memmap(args.work / UNION, np.float32, "r", shape=(args.rows, args.dimension))
    wide = queries.astype(np.float64)
    best = np.full((len(queries), TOP), np.inf)
    numbers = np.full((len(queries), TOP), -1)
    for begin in range(0, args.rows, AT_ONCE):
        block = union[begin : begin + AT_ONCE].astype(np.float64)
        squared = (wide**2).sum(1)[:, None] + (block**2).sum(1) - 2 * wide @ block.T
        near = np.argpartition(squared, TOP, axis=1)[:, :TOP]
        best = np.concatenate([best, np.take_along_axis(squared, near, 1)], axis=1)
        numbers = np.concatenate([numbers, begin + near], axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :TOP]
        best, numbers = (np.take_along_axis(each, order, 1) for each in (best, numbers))
    return np.sqrt(best), numbers


def searcher_of(args):
    """Return what searches the shards."""
    from deep_ranking.search.searcher import Searcher
    from deep_ranking.search.shards import Shards

    return Searcher(Shards.open(shard_folders(args)))


def flat_index(args):
    """Return bare faiss on the union, in memory."""
    import faiss

    index = faiss.IndexFlatL2(args.dimension)
    union = np.memmap(args.work / UNION, np.float32, "r", shape=(args.rows, args.dimension))
    for begin in range(0, args.rows, AT_ONCE):
        index.add(np.ascontiguousarray(union[begin : begin + AT_ONCE]))
    return index


def in_turn(ways, queries):
    """Return the milliseconds of each query in each way, one at a time, the order changing."""
    times = {name: [] for name in ways}
    for name in ways:
        ways[name](queries[:1])
    for number in range(len(queries)):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            ways[name](queries[number : number + 1])
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def memory_of(args):
    """Search some queries in one way; return the peak memory and its mapped part, in MB."""
    queries = drawn(np.random.default_rng(1), args, 10)
    if args.run == "ours":
        searcher = searcher_of(args)
        for query in queries:
            searcher.search(query[None], TOP)
    else:
        flat_index(args).search(queries, TOP)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return {
        "peak": int(values["VmHWM"]) * 1024 / 1e6,
        "mapped": int(values["RssFile"]) * 1024 / 1e6,
    }


if __name__ == "__main__":
    main()
