"""Search against bare faiss, in one run: recall, milliseconds per query, time and memory to open.

    python benchmarks/search.py --images 20000 --dim 4096

The embeddings are random: unit vectors around class means, as far apart as those of trained models.
Every method answers the same queries, one at a time and in turn, so other work on the machine
affects all methods equally.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TOP = 20


def draw(rng: np.random.Generator, means: np.ndarray, count: int, spread: float) -> np.ndarray:
    """Return unit vectors around random means, float32 (count, dim)."""
    dim = means.shape[1]
    noise = rng.normal(0, spread / np.sqrt(dim), (count, dim)).astype(np.float32)
    rows = means[rng.integers(len(means), size=count)] + noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def recall(found: np.ndarray, right: np.ndarray) -> float:
    """Return the share of the right rows that were found."""
    return float(np.mean([np.isin(r, f).mean() for f, r in zip(found, right, strict=True)]))


def bare_index(embeddings: np.ndarray, num_clusters: int):
    """Return a faiss index made as in the faiss tutorial."""
    import faiss

    dim = embeddings.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, num_clusters)
    index.train(embeddings)
    index.add(embeddings)
    return index


def set_probes(index, wanted: float, right: np.ndarray, queries: np.ndarray) -> float:
    """Set the fewest probes with which bare faiss reaches a recall; return the recall reached."""
    for probes in range(1, index.nlist + 1):
        index.nprobe = probes
        reached = recall(index.search(queries, TOP)[1], right)
        if reached >= wanted:
            break
    return reached


def in_turn(methods: dict, queries: np.ndarray) -> dict[str, np.ndarray]:
    """Return the milliseconds of each query by each method, one at a time, after a first round.

    An exact search empties the processor's caches for the next search. So the exact methods take
    turns among themselves, and so do the others; the order changes from query to query.
    """
    for search in methods.values():
        for number in range(len(queries)):
            search(queries[number : number + 1])
    times: dict[str, list[float]] = {name: [] for name in methods}
    names = list(methods)
    for pair in (names[:2], names[2:]):
        for number in range(len(queries)):
            for name in pair if number % 2 else reversed(pair):
                start = time.perf_counter()
                methods[name](queries[number : number + 1])
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: np.array(each) for name, each in times.items()}


def memory() -> tuple[int, int]:
    """Return the memory of this process and its part mapped from files, in MB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return int(values["VmRSS"]) // 1024, int(values["RssFile"]) // 1024


def opening(file: Path, dim: int) -> None:
    """Open an index and search it once, in its own process; print time and memory."""
    sys.path.insert(0, str(ROOT))
    from deep_ranking.search.index.clusters import ClusterIndex

    start = time.perf_counter()
    index = ClusterIndex(file, probes=2)
    milliseconds = (time.perf_counter() - start) * 1000
    total, mapped = memory()
    print(f"opening: {milliseconds:.1f} ms; memory of the whole process {total} MB, of which")
    print(f"{mapped} MB are mapped files, this index, faiss and NumPy among them;")
    index.search(np.ones((1, dim), np.float32), TOP)
    print("after a search {} MB, of which {} MB are mapped files".format(*memory()))


def main() -> None:
    """Draw embeddings, build the indexes, search and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--spread", type=float, default=1.0, help="noise, in lengths of a mean")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--target_recall", type=float, default=0.95)
    parser.add_argument("--kind", choices=("clusters", "hierarchy"), default="clusters")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        opening(args.open, args.dim)
        return
    sys.path.insert(0, str(ROOT))
    rng = np.random.default_rng(0)
    means = draw(rng, np.zeros((1, args.dim), np.float32), args.classes, 1)
    queries = draw(rng, means, args.queries, args.spread)
    with tempfile.TemporaryDirectory() as folder:
        embeddings = np.memmap(
            Path(folder) / "embeddings.bin", np.float32, "w+", shape=(args.images, args.dim)
        )
        embeddings[:] = draw(rng, means, args.images, args.spread)
        file = Path(folder) / "ours.faiss"
        compare(args, embeddings, queries, file)
        command = [sys.executable, __file__, "--open", file, "--dim", str(args.dim)]
        subprocess.run(command, check=True)


def compare(args: argparse.Namespace, embeddings: np.ndarray, queries: np.ndarray, file: Path):
    """Build all indexes, and print their recall and times."""
    import faiss

    from deep_ranking.search.index.clusters import ClusterIndex, HierarchyIndex
    from deep_ranking.search.index.exact import ExactIndex
    from deep_ranking.search.index.tuning import GroundTruth, fewest_probes

    rows = np.arange(args.images)
    exact = ExactIndex(embeddings, rows)
    right = exact.search(queries, TOP).rows
    ours = {"clusters": ClusterIndex, "hierarchy": HierarchyIndex}[args.kind](file)
    start = time.perf_counter()
    ours.update(embeddings, rows, np.empty(0, np.int64))
    built = time.perf_counter() - start
    ours.probes, measured = fewest_probes(ours, GroundTruth(embeddings, rows), args.target_recall)
    reached = recall(ours.search(queries, TOP).rows, right)
    start = time.perf_counter()
    bare = bare_index(np.array(embeddings), ours.num_clusters)
    bare_built = time.perf_counter() - start
    bare_reached = set_probes(bare, reached, right, queries)
    flat = faiss.IndexFlatL2(args.dim)
    flat.add(np.array(embeddings))
    times = in_turn(
        {
            "exact": lambda query: exact.search(query, TOP),
            "faiss, flat": lambda query: flat.search(query, TOP),
            args.kind: lambda query: ours.search(query, TOP),
            "faiss, inverted lists": lambda query: bare.search(query, TOP),
        },
        queries,
    )
    recalls = (1, 1, reached, bare_reached)
    print(f"{args.images:,} x {args.dim:,}, {args.queries} queries, recall@{TOP} against exact")
    for (name, each), found in zip(times.items(), recalls, strict=True):
        p50, p99 = np.quantile(each, (0.5, 0.99))
        print(f"{name:22} recall {found:.3f}   p50 {p50:8.3f} ms   p99 {p99:8.3f} ms")
    print(
        f"{args.kind}: {ours.num_clusters} clusters, {ours.probes} visited (recall on images of "
        f"the collection {measured:.3f}), built in {built:.1f} s; faiss: {bare.nprobe} visited, "
        f"built in {bare_built:.1f} s"
    )
    medians = {name: np.median(each) for name, each in times.items()}
    print(f"{medians['exact'] / medians[args.kind]:.1f} times the speed of exact")
    paired = np.median(times[args.kind] / times["faiss, inverted lists"])
    print(f"{paired:.3f} times the time of bare faiss, the median of each query's ratio")


if __name__ == "__main__":
    main()
