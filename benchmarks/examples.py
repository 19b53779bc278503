"""What plus and minus examples give a search, by several ways to combine them.

    python benchmarks/examples.py --model m.h5 --dataset photos

Each image of --dataset is a query. The person who asks looks at the first 20 results, and takes the
nearest ones of other classes as minus examples. Plus examples are the nearest images of the query's
class; with --plus any, any of its class, as if the person had several pictures to begin with. Then
the search is made again. All figures are of the same images: those that no row of the table uses as
an example for this query.

    ours        mean of query and plus examples, less a share of the mean of the minus examples,
                as `search --like` and the server have it
    Rocchio     query + p mean(plus) - m mean(minus); p = 0.75 and m = 0.15 are usual for words
                (Manning, Raghavan and Schuetze, Introduction to Information Retrieval, 2008)
    nearest     by the similarity to the nearest of the query and the plus examples, less a share
                of the similarity to the nearest minus example

Weights that are "chosen" are those with the best mAP@R of two plus and two minus examples on half
of the classes. The table is of the other half.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deep_ranking.datasets import read_folder  # noqa: E402
from deep_ranking.datasets.splitting import hold_back_classes  # noqa: E402
from deep_ranking.search.feedback import UNLIKE_SHARE, moved_queries  # noqa: E402

PAGE, MOST = 20, 2  # results that the person sees, and examples of either kind
COUNTS = ((0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (2, 2))  # plus and minus examples
PLUS_WEIGHTS = (0.5, 0.75, 1.0, 1.5, 2.0)
MINUS_WEIGHTS = (0.0, 0.15, 0.3, 0.4, 0.5, 0.75)
USUAL = (0.75, 0.15)


def ours(query, plus, minus, rows, share):
    """Return the similarity of all rows to the moved query."""
    return rows @ moved_queries(query[None], plus, minus, unlike_share=share)[0]


def rocchio(query, plus, minus, rows, weights):
    """Return the similarity to a query that Rocchio's method moved."""
    moved = query
    for examples, weight in zip((plus, minus), (weights[0], -weights[1]), strict=True):
        if len(examples):
            moved = moved + weight * examples.mean(axis=0)
    return rows @ moved


def nearest(query, plus, minus, rows, share):
    """Return the similarity to the nearest plus example, less a share of that to a minus one."""
    similar = (rows @ np.concatenate([query[None], plus]).T).max(axis=1)
    if len(minus):
        similar = similar - share * (rows @ minus.T).max(axis=1)
    return similar


CHOSEN = {
    "ours": (ours, MINUS_WEIGHTS),
    "Rocchio": (rocchio, list(product(PLUS_WEIGHTS, MINUS_WEIGHTS))),
    "nearest": (nearest, MINUS_WEIGHTS),
}


def examples_of(query, images, seed):
    """Return the numbers of the plus and minus examples; a seed draws any plus examples."""
    rows, codes = images
    order = np.argsort(-(rows @ rows[query]), kind="stable")
    order = order[order != query]
    right = codes[order] == codes[query]
    plus, minus = order[right], order[:PAGE][~right[:PAGE]]
    if seed is not None:
        plus = np.random.default_rng((seed, query)).permutation(plus)
    return plus[:MOST], minus[:MOST]


def map_at_r(similar, is_right):
    """Return mAP@R of one ranking (Musgrave et al. 2020): float in 0 to 1."""
    right = is_right[np.argsort(-similar, kind="stable")][: np.count_nonzero(is_right)]
    ranks = np.arange(1, len(right) + 1)
    return float((right * np.cumsum(right) / ranks).mean())


def judged(images, way, weights, counts, seed=None):
    """Return mean mAP@R over all queries that leave two images of their class to be found."""
    rows, codes = images
    figures = []
    for query in range(len(rows)):
        plus, minus = examples_of(query, images, seed)
        rest = np.ones(len(rows), bool)
        rest[[query, *plus, *minus]] = False
        is_right = (codes == codes[query])[rest]
        if np.count_nonzero(is_right) < 2:
            continue
        chosen = rows[plus[: counts[0]]], rows[minus[: counts[1]]]
        figures.append(map_at_r(way(rows[query], *chosen, rows[rest], weights), is_right))
    return float(np.mean(figures))


def main():
    """Embed the images, choose the weights, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FILE.h5")
    parser.add_argument("--dataset", type=Path, required=True, help="folder of classes")
    parser.add_argument("--label", help="what the class is, as for all commands")
    parser.add_argument("--plus", choices=("nearest", "any"), default="nearest")
    parser.add_argument("--seed", type=int, default=0, help="of the halves of the classes")
    args = parser.parse_args()
    from deep_ranking import Embedder

    data = read_folder(args.dataset, label=args.label, splits=False)
    found, is_readable = Embedder(args.model)(data.files())
    rows, labels = found[is_readable], data.classes_of_images()[is_readable]
    codes = np.unique(labels, return_inverse=True)[1]
    held = hold_back_classes(codes, 0.5, args.seed)
    others, half = ((rows[part], codes[part]) for part in (held, ~held))
    seed = args.seed if args.plus == "any" else None
    shown = {f"ours {UNLIKE_SHARE}": (ours, UNLIKE_SHARE), f"Rocchio {USUAL}": (rocchio, USUAL)}
    for name, (way, choices) in CHOSEN.items():
        figures = [judged(others, way, each, COUNTS[-1], seed) for each in choices]
        best = choices[int(np.argmax(figures))]
        shown[f"{name} {best}, chosen"] = way, best
    counted = [f"{plus} plus, {minus} minus" for plus, minus in COUNTS[1:]]
    print(
        f"{len(half[1]):,} images of {len(np.unique(half[1]))} classes; weights chosen on "
        f"{len(np.unique(others[1]))} others. mAP@R:\n"
    )
    print(f"| way | query alone | {' | '.join(counted)} |")
    print(f"| {' | '.join(['---'] * (len(COUNTS) + 1))} |")
    for name, (way, weights) in shown.items():
        cells = [f"{judged(half, way, weights, each, seed):.3f}" for each in COUNTS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
