"""Images a second of `embed`: by this process and by Ray, from a disk and from an S3 server.

    python benchmarks/cluster_embedding.py --model m.h5 --images photos
    python benchmarks/cluster_embedding.py --model m.h5 --images photos --kill

All in one run. In each round every way embeds the same images into a new table, one way after the
other, in turn from the first and from the last. A speed is the median over the rounds, and a ratio
the median of the ratios of all rounds, since the load of the machine changes. The time is that of
the whole call: listing, opening the model in this process or in the actors, writing the parts.
"Once running" counts from when each worker has written its first part, by the times of the files:
what many images take. Ray itself is started once, before; how long that takes is printed.

The S3 server is moto's, on the loopback, in a process of its own on the same processors: it takes
them from the embedding. So its speeds are no measure of S3; that Ray's is as good as this process's
is what they show. All tables must be equal, or the benchmark ends with an error.

With --kill, nothing is compared in speed: one of Ray's actors is killed (SIGKILL) when half of the
parts are there, and the table must have each image once, with the bytes that `index` gives it.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from embedding import chosen_images

from deep_ranking import InputError, embed_table, index_images
from deep_ranking.cli.arguments import positive_int
from deep_ranking.search.bulk_embedding.ray_engine import PartActor

BUCKET = "bucket"


class Run(NamedTuple):
    """Images a second of a whole call, and once it was running."""

    whole: float
    running: float


@contextmanager
def s3_server():
    """Start an S3 server, which the environment then names; yield a file system of it."""
    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        yield s3fs.S3FileSystem(skip_instance_cache=True)
    finally:
        server.terminate()
        server.wait()


def rows_of(table):
    """Return paths, vectors and contents of a table in parts."""
    parts = [pq.read_table(part) for part in sorted(table.glob("part-*.parquet"))]
    return pa.concat_tables(parts).replace_schema_metadata()


def measure(ways, rounds, model, part_size):
    """Return the `Run` of each way in each round.

    Args:
        ways: name -> images and engine.
        rounds: how many.
        model: the model file.
        part_size: images of a part.
    """
    runs = {name: [] for name in ways}
    expected = None
    for number in range(rounds):
        for name in ways if number % 2 == 0 else reversed(ways):
            images, options = ways[name]
            with tempfile.TemporaryDirectory() as folder:
                table = Path(folder) / "t.parquet"
                began = time.perf_counter()
                embed_table(images, table, model=model, part_size=part_size, **options)
                seconds = time.perf_counter() - began
                rows = rows_of(table)
                written = sorted(part.stat().st_mtime for part in table.glob("part-*.parquet"))
            first = options.get("workers", 1)
            after = rows.num_rows - first * part_size
            runs[name].append(
                Run(rows.num_rows / seconds, after / (written[-1] - written[first - 1]))
            )
            expected = rows if expected is None else expected
            if not rows.equals(expected):
                raise InputError(f"{name}: another table than the first way's")
            print(f"{name}: {seconds:.1f} s, {runs[name][-1]}", file=sys.stderr, flush=True)
    return runs


def table_of_speeds(runs):
    """Return the table, in Markdown: each way, beside this process on the same images."""
    headings = ["way", "images a second", "of this process's", "once running", "of this process's"]
    lines = [headings, ["---"] * len(headings)]
    for name, mine in runs.items():
        theirs = runs[name.replace("Ray", "this process")]
        cells = [name]
        for my, their in zip(zip(*mine, strict=True), zip(*theirs, strict=True), strict=True):
            ratio = statistics.median(one / other for one, other in zip(my, their, strict=True))
            cells += [f"{statistics.median(my):.1f}", f"{ratio:.2f}"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bytes_of_index(images, model, folder):
    """Return the bytes of each image's row, by its path, in an index of them made in a folder."""
    collection = index_images(folder, model=model, images=images, precision="float32").collection
    rows = collection.embeddings()
    with closing(collection.images()) as table:
        return {each.path: rows[each.row].tobytes() for each in table.images()}


def kill_an_actor(table, num_parts, ended):
    """Wait until a table has so many parts, and kill an actor; return the parts there were.

    Where the run has ended before, which `ended` tells, none is killed.
    """
    while (there := len(list(table.glob("part-*.parquet")))) < num_parts:
        if ended.wait(0.02):
            return there
    processes = subprocess.check_output(["ps", "-axwwo", "pid=,args="], text=True).splitlines()
    # Ray gives the process of an actor a title with the name of its class.
    actors = [each for each in processes if "ray::" in each and PartActor.__name__ in each]
    os.kill(int(actors[0].split()[0]), signal.SIGKILL)
    return there


def embed_and_kill(name, images, expected, model, part_size, **options):
    """Embed by Ray, kill an actor half-way, and print what became of it.

    Args:
        name: of the way.
        images: where they are.
        expected: the bytes of each image's row, by its path.
        model: the model file.
        part_size: images of a part.
        **options: of `embed_table`.

    Raises:
        InputError: an image is missing, is there twice, or has other bytes.
    """
    num_parts = -(-len(expected) // part_size)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as aside:
        table = Path(folder) / "t.parquet"
        ended = Event()
        killing = aside.submit(kill_an_actor, table, num_parts // 2, ended)
        began = time.perf_counter()
        try:
            embed_table(images, table, model=model, part_size=part_size, **options)
        finally:
            ended.set()
        seconds = time.perf_counter() - began
        there, rows = killing.result(), rows_of(table)
    vectors = rows.column("vector").combine_chunks().flatten().to_numpy()
    vectors = vectors.reshape(rows.num_rows, -1)
    paths = rows.column("path").to_pylist()
    found = {path: row.tobytes() for path, row in zip(paths, vectors, strict=True)}
    if len(paths) != len(expected) or found != expected:
        raise InputError(f"{name}: another table than `index` makes")
    print(
        f"{name}: an actor killed at {there} of {num_parts} parts; {len(paths):,} images, each "
        f"once, with the bytes of `index`, in {seconds:.0f} s.",
        flush=True,
    )


def main():
    """Read the flags, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FILE.h5")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--images_at_most", type=positive_int, default=1_000, metavar="N")
    parser.add_argument("--part_size", type=positive_int, default=50, metavar="N")
    parser.add_argument("--workers", type=positive_int, default=2, metavar="N")
    parser.add_argument("--kill", action="store_true", help="kill an actor half-way, and check")
    args = parser.parse_args()
    import ray

    with tempfile.TemporaryDirectory() as folder, s3_server() as store:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for number, file in enumerate(chosen_images(args.images, args.images_at_most)):
            name = f"{number}{Path(file).suffix}"
            (photos / name).write_bytes(Path(file).read_bytes())
        store.mkdir(BUCKET)
        store.put(f"{photos}/", f"{BUCKET}/", recursive=True)
        began = time.perf_counter()
        ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=128 << 20)
        print(f"Ray started in {time.perf_counter() - began:.1f} s.")
        with_ray = {"engine": "ray", "workers": args.workers}
        ways = {
            "this process, from a disk": (photos, {}),
            "Ray, from a disk": (photos, with_ray),
            "this process, from S3": (f"s3://{BUCKET}", {}),
            "Ray, from S3": (f"s3://{BUCKET}", with_ray),
        }
        if args.kill:
            expected = bytes_of_index(photos, args.model, Path(folder) / "photos.index")
            for name, (images, options) in ways.items():
                if options:
                    embed_and_kill(name, images, expected, args.model, args.part_size, **options)
        else:
            print(table_of_speeds(measure(ways, args.rounds, args.model, args.part_size)))
        ray.shutdown()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
