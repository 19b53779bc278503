"""What smoothing and re-ranking give a search, and what they cost.

    python benchmarks/search_modes.py --embeddings grocery=WORK/seed_0.npz caltech=...

The files are those that `quality.py judge --work WORK` writes, of classes that the model never saw;
the class of an image is the folder that holds it. Two ways to search:

all    each image is searched for among the others, and its row has a part in the smoothed rows
new    half of the images of each class are the collection, the others search it

For each: mAP@R (times that of the plain rows) and recall@1 (its change) of plain and of smoothed
rows, and of ways to rank the first results again: of smoothed rows and, with `--rerank_plain`, of
plain ones. `search` smooths the query as well, and ranks smoothed rows again by query expansion
alone. K and the power are given, so nothing is chosen on these classes; `--grid` prints what others
would give.

Ways to rank again: query expansion (a second search), k-reciprocal neighbours among the first 200
(Zhong et al. 2017), diffusion among the first 200 (Iscen et al. 2017, "Efficient Diffusion on
Region Manifolds": the closed form, mutual 20 nearest, cosine to the third power, alpha 0.9), and
query expansion followed by k-reciprocal neighbours. Milliseconds are a
query's, of the second search and the re-ranking, one thread, median over the queries.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from deep_ranking.metrics.retrieval import average_precision_at_r
from deep_ranking.search.collection.settings import DEFAULT_NEIGHBOURS, DEFAULT_POWER
from deep_ranking.search.reranking import NUM_RERANKED, expanded, reciprocal_distances
from deep_ranking.search.smoothing import smooth_rows, smoothed_query

MOST_QUERIES = 1_000
NEAREST_IN_GRAPH, GRAPH_POWER, ALPHA = 20, 3, 0.9

Order = Callable[[np.ndarray, np.ndarray, int | None], np.ndarray]


def by_distance(query, rows, own):
    """Return the rows by their cosine to the query, without its own."""
    order = np.argsort(-(rows @ query), kind="stable")
    return order if own is None else order[order != own]


def by_expansion(query, rows, own):
    """Return the rows by their cosine to the expanded query."""
    return by_distance(_expanded(query, rows, own), rows, own)


def by_neighbours(query, rows, own, *, expand, distances):
    """Return the rows by their cosine, the first of them by new distances."""
    asked = _expanded(query, rows, own) if expand else query
    found = by_distance(asked, rows, own)
    first = found[:NUM_RERANKED]
    new = distances(asked, rows[first])
    return np.concatenate([first[np.argsort(new, kind="stable")], found[NUM_RERANKED:]])


def with_smoothed_query(query, rows, own, *, order, plain, neighbours, power):
    """Return the rows by an order, for the query smoothed over its nearest plain rows."""
    first = by_distance(query, plain, own)[: neighbours - 1]
    return order(smoothed_query(query, plain[first], power), rows, own)


def _expanded(query, rows, own):
    return expanded(query, rows[by_distance(query, rows, own)[:NUM_RERANKED]])


def diffused(query, nearest):
    """Return minus the mass that a diffusion from the query leaves at each row."""
    rows = np.concatenate([query[None], nearest]).astype(np.float64)
    weights = np.maximum(rows @ rows.T, 0) ** GRAPH_POWER
    np.fill_diagonal(weights, 0)
    size = min(NEAREST_IN_GRAPH, len(rows) - 1)
    least = -np.partition(-weights, size - 1, axis=1)[:, size - 1]
    graph = np.where((weights >= least[:, None]) & (weights >= least), weights, 0)
    degrees = graph.sum(axis=1) + 1e-9
    graph /= np.sqrt(degrees[:, None] * degrees)
    start = np.zeros(len(rows))
    start[0] = 1
    return -np.linalg.solve(np.identity(len(rows)) - ALPHA * graph, start)[1:]


WAYS: dict[str, Order] = {
    "query expansion": by_expansion,
    "k-reciprocal": partial(by_neighbours, expand=False, distances=reciprocal_distances),
    "diffusion": partial(by_neighbours, expand=False, distances=diffused),
    "expansion, then k-reciprocal": partial(
        by_neighbours, expand=True, distances=reciprocal_distances
    ),
}


def judged(order, *, queries, labels, rows, row_labels, own):
    """Return mean mAP@R, mean recall@1 and the median milliseconds of a query."""
    hits, seconds = [], []
    for number, query in enumerate(queries):
        start = time.perf_counter()
        found = order(query, rows, None if own is None else own[number])
        seconds.append(time.perf_counter() - start)
        hits.append(row_labels[found] == labels[number])
    hits = np.array(hits)
    defined = hits.any(axis=1)
    precision = average_precision_at_r(hits[defined])
    return precision.mean(), hits[defined, 0].mean(), 1000 * np.median(seconds)


def searches(rows, labels, rng):
    """Yield the name, queries, classes, rows, classes and own rows of both ways to search."""
    asked = np.sort(rng.permutation(len(rows))[:MOST_QUERIES])
    yield "all", rows[asked], labels[asked], rows, labels, asked
    inside = np.zeros(len(rows), bool)
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        inside[of_class[: len(of_class) // 2]] = True
    new = np.sort(rng.permutation(np.flatnonzero(~inside))[:MOST_QUERIES])
    yield "new", rows[new], labels[new], rows[inside], labels[inside], None


def print_table(name, rows, labels, args):
    """Measure one set of embeddings."""
    for how, queries, asked, gallery, of_gallery, own in searches(
        rows, labels, np.random.default_rng(0)
    ):
        start = time.perf_counter()
        smoothed = smooth_rows(gallery, args.neighbours, args.power)
        seconds = time.perf_counter() - start
        measure = partial(judged, queries=queries, labels=asked, row_labels=of_gallery, own=own)
        plain = measure(by_distance, rows=gallery)
        print(
            f"\n{name}, {how}: {len(queries):,} queries, {len(gallery):,} rows, "
            f"{len(np.unique(of_gallery))} classes; smoothed in {seconds:.1f} s\n"
        )
        print("| search | mAP@R | times plain | recall@1 | change | ms |\n" + "| --- " * 6 + "|")
        modes = [("plain rows", by_distance, gallery)]
        if args.rerank_plain:
            modes += [(f"plain rows, {way}", order, gallery) for way, order in WAYS.items()]
        smooth_too = partial(
            with_smoothed_query, plain=gallery, neighbours=args.neighbours, power=args.power
        )
        modes.append(("smoothed rows", partial(smooth_too, order=by_distance), smoothed))
        modes.append(("smoothed rows, plain query", by_distance, smoothed))
        modes += [
            (f"smoothed rows, {way}", partial(smooth_too, order=order), smoothed)
            for way, order in WAYS.items()
        ]
        for mode, order, searched in modes:
            precision, recall, milliseconds = measure(order, rows=searched)
            print(
                f"| {mode} | {precision:.3f} | {precision / plain[0]:.3f} | {recall:.3f} | "
                f"{recall - plain[1]:+.3f} | {milliseconds:.1f} |",
                flush=True,
            )
        if args.grid:
            print("\n| K | " + " | ".join(f"power {power:g}" for power in args.grid_powers) + " |")
            print("| --- " * (1 + len(args.grid_powers)) + "|")
            for count in args.grid_neighbours:
                cells = []
                for power in args.grid_powers:
                    order = partial(
                        with_smoothed_query,
                        order=by_distance,
                        plain=gallery,
                        neighbours=count,
                        power=power,
                    )
                    found = measure(order, rows=smooth_rows(gallery, count, power))
                    cells.append(f"{found[0] / plain[0]:.3f} ({found[1] - plain[1]:+.3f})")
                print(f"| {count} | {' | '.join(cells)} |", flush=True)


def main():
    """Read the flags, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--embeddings", nargs="+", required=True, metavar="NAME=FILE.npz")
    parser.add_argument("--neighbours", type=int, default=DEFAULT_NEIGHBOURS, metavar="K")
    parser.add_argument("--power", type=float, default=DEFAULT_POWER, metavar="P")
    parser.add_argument("--rerank_plain", action="store_true")
    parser.add_argument("--grid", action="store_true", help="print what other K and P give")
    parser.add_argument("--grid_neighbours", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--grid_powers", type=float, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    with threadpool_limits(1):
        for each in args.embeddings:
            name, _, file = each.partition("=")
            with np.load(file) as found:
                rows = found["embeddings"].astype(np.float32)
                labels = np.array([Path(path).parent.as_posix() for path in found["paths"]])
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            print_table(name, rows, labels, args)


if __name__ == "__main__":
    main()
