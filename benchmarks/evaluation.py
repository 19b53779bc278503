"""Time and memory of `evaluate` on 20,000 embeddings of 4096 dimensions.

Ours computes every figure of `deep_ranking.metrics.evaluation.evaluate_embeddings`: all per-query
metrics, the triplet figures, NMI, verification and bootstrap. The embeddings are random, around
class centres, in a memory-mapped file, as the command keeps them. The reference only finds the 31
nearest images of each query, by scikit-learn's brute force; every other figure would cost extra.
Each runs in its own process; peak memory is the figure of the operating system.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

NUM_NEIGHBOURS = 31


def write_embeddings(path: Path, num_images: int, num_classes: int, dim: int) -> np.ndarray:
    """Write unit rows around one random centre for each class; return the labels."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, num_classes, num_images))
    centres = rng.normal(size=(num_classes, dim)).astype(np.float32)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (num_images, dim))
    for begin in range(0, num_images, 1000):
        part = labels[begin : begin + 1000]
        noise = rng.normal(scale=4, size=(len(part), dim)).astype(np.float32)
        block = centres[part] + noise
        rows[begin : begin + 1000] = block / np.linalg.norm(block, axis=1, keepdims=True)
    rows.flush()
    return labels


def run_ours(path: Path, labels: np.ndarray) -> str:
    """Evaluate, and return one figure as a check that the work was done."""
    from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings

    rows = np.load(path, mmap_mode="r")
    names = np.array([f"class {label:04}" for label in range(labels.max() + 1)])[labels]
    found = evaluate_embeddings(EmbeddedImages([str(row) for row in range(len(rows))], names, rows))
    return f"mAP@R {found.intervals['map_at_r'].mean:.4f}"


def run_reference(path: Path, labels: np.ndarray) -> str:
    """Find the nearest images of each query, and return recall@1."""
    from sklearn.neighbors import NearestNeighbors

    rows = np.load(path, mmap_mode="r")
    index = NearestNeighbors(n_neighbors=NUM_NEIGHBOURS, algorithm="brute").fit(rows)
    nearest = index.kneighbors(rows, return_distance=False)
    return f"recall@1 {(labels[nearest[:, 1]] == labels).mean():.4f}"


def _measure(job, path, labels, results) -> None:
    start = time.perf_counter()
    found = job(path, labels)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    results.put((seconds, peak, found))


def main() -> None:
    """Parse the arguments, run both and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--reference", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.npy"
        labels = write_embeddings(path, args.images, args.classes, args.dim)
        print(f"{args.images:,} embeddings of {args.dim} in {args.classes} classes")
        print(f"{'':44s} seconds  peak MB")
        jobs = [("ours: every figure of evaluate_embeddings", run_ours)]
        if args.reference:
            jobs.append(("scikit-learn: the 31 nearest alone", run_reference))
        for name, job in jobs:
            results = context.Queue()
            process = context.Process(target=_measure, args=(job, path, labels, results))
            process.start()
            seconds, peak, found = results.get()
            process.join()
            print(f"{name:44s} {seconds:7.1f}  {peak:7.0f}   {found}")


if __name__ == "__main__":
    main()
