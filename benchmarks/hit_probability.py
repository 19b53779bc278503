"""How far the probabilities of a model can be trusted, of two images and of the hits of a search.

    python benchmarks/hit_probability.py --model m.h5 --dataset unseen --calibrate_on validation \
        --foreign other

Two images: `fit_calibration` is fitted to pairs of --dataset, and to made-up pairs of five kinds.
The first table has its largest difference from scikit-learn's IsotonicRegression, fitted to the
same pairs, and from the share of same pairs among fresh pairs. That share is taken in bins of equal
width of the distance; bins of fewer than 200 pairs are left out.

Hits: half of the images of each class of --dataset are the collection, the others the queries, with
20 hits each. Two probabilities are compared with whether the hit is of the query's class:

    as for two images   what `compare` says of the distance, fitted to images of --calibrate_on,
                        without the classes of --dataset
    p(hit)              learned from the collection itself, by the classes of its images

Foreign queries: the collection is of half of the classes of --dataset, and is searched with other
images of these, with images of the other half, and with images of --foreign. All hits of the latter
two are wrong, so their p(hit) should be low. This is done on SPLITS splits of the classes, for
several shares of foreign searches. `FOREIGN_SHARE` is chosen by such tables of classes to choose
on, and judged on others.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deep_ranking.datasets import limit_classes, read_folder  # noqa: E402
from deep_ranking.datasets.splitting import hold_back_classes  # noqa: E402
from deep_ranking.files.words import counted  # noqa: E402
from deep_ranking.metrics import pair_distances, sample_pairs  # noqa: E402
from deep_ranking.metrics.reliability import reliability  # noqa: E402
from deep_ranking.model.calibration import Calibration, fit_calibration  # noqa: E402
from deep_ranking.model.hit_fitting import FOREIGN_SHARE, fit_hits_among  # noqa: E402
from deep_ranking.reports.probabilities import (  # noqa: E402
    find_hits,
    pair_probabilities,
    split_images,
)

NUM_PAIRS = 20_000  # of either kind
NUM_BINS, FEWEST_IN_BIN = 20, 200
KINDS = ("separated", "overlapping", "skewed", "few pairs", "one-sided")
RANGES = ((0.99, 1.0), (0.95, 0.99), (0.9, 1.0))
PAIR_HEADER = (
    "pairs",
    "fitted to",
    "from IsotonicRegression",
    "from shares of fresh pairs",
    "bins",
)
SHARES = (0.05, 0.1, 0.15, FOREIGN_SHARE, 0.25, 0.3)
SPLITS = 3
MOST_FOREIGN = 500
FOREIGN_HEADER = (
    "foreign searches",
    "known: expected calibration error",
    "0.9 and more: hits, right",
    "queries with such a hit",
    "other classes: mean p(hit)",
    "queries with 0.4 or more",
    "0.9 or more",
    "--foreign: mean p(hit)",
    "queries with 0.4 or more",
    "0.9 or more",
)
HIT_HEADER = (
    "probability",
    "expected calibration error",
    "0.99 and more: hits, right",
    "0.95 to 0.99",
    "0.9 and more",
)


class Images(NamedTuple):
    """Embedded images: float32 (images, dim), and their classes (images,)."""

    rows: np.ndarray
    labels: np.ndarray


def groups(
    kind: str, seed: int, count: int = 20_000
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return distances of same and of different pairs of a made-up kind of `KINDS`.

    The third is the true probability of "same" at a distance.
    """
    from scipy import stats

    rng = np.random.default_rng(seed)
    same, different = {
        "separated": (stats.norm(0.5, 0.15), stats.norm(1.3, 0.08)),
        "overlapping": (stats.norm(0.8, 0.2), stats.norm(1.0, 0.2)),
        "skewed": (stats.lognorm(0.5, scale=0.4), stats.beta(8, 2, scale=1.8)),
        "few pairs": (stats.norm(0.6, 0.1), stats.norm(1.2, 0.1)),
        "one-sided": (stats.expon(0, 0.2), stats.norm(1.2, 0.1)),
    }[kind]

    def bayes(x):
        return same.pdf(x) / (same.pdf(x) + different.pdf(x))

    return same.rvs(count, random_state=rng), different.rvs(count, random_state=rng), bayes


def from_isotonic(calibration: Calibration, same, different) -> float:
    """Return the largest difference from scikit-learn's fit to the same pairs, as many of each."""
    from sklearn.isotonic import IsotonicRegression

    both = np.concatenate([same, different])
    fitted = IsotonicRegression(increasing=False).fit(both, np.arange(len(both)) < len(same))
    return float(np.abs(pair_probabilities(calibration, both) - fitted.predict(both)).max())


def from_shares(calibration: Calibration, same, different) -> tuple[float, int]:
    """Return the largest difference from the share of same pairs in a bin, and the bins."""
    both = np.concatenate([same, different])
    is_same, stated = np.arange(len(both)) < len(same), pair_probabilities(calibration, both)
    edges = np.linspace(both.min(), both.max(), NUM_BINS + 1)
    bins = np.clip(np.searchsorted(edges, both, side="right") - 1, 0, NUM_BINS - 1)
    found = [
        abs(stated[bins == each].mean() - is_same[bins == each].mean())
        for each in range(NUM_BINS)
        if np.count_nonzero(bins == each) >= FEWEST_IN_BIN
    ]
    return float(max(found)), len(found)


def of_two_images(images: Images, seed: int) -> Iterable[tuple[str, ...]]:
    """Yield a table about calibrations of pairs."""
    codes = np.unique(images.labels, return_inverse=True)[1]
    held = hold_back_classes(codes, 0.5, seed)

    def drawn(chosen, count):
        rows = images.rows[chosen]
        found = sample_pairs(codes[chosen], count, seed=seed)
        return [pair_distances(rows, rows, *pairs.T) for pairs in found]

    everything = drawn(np.ones(len(codes), bool), 2 * NUM_PAIRS)
    cases = {
        "of the model, fresh pairs of the same classes": (
            [each[::2] for each in everything],
            [each[1::2] for each in everything],
        ),
        "of the model, fresh pairs of other classes": (
            drawn(~held, NUM_PAIRS),
            drawn(held, NUM_PAIRS),
        ),
    }
    for kind in KINDS:
        count = 60 if kind == "few pairs" else NUM_PAIRS
        cases[f"made up: {kind}"] = groups(kind, seed, count)[:2], groups(kind, seed + 1)[:2]
    for name, (fitted, fresh) in cases.items():
        calibration = fit_calibration(*fitted)
        largest, num_bins = from_shares(calibration, *fresh)
        difference = from_isotonic(calibration, *fitted)
        yield name, f"{2 * len(fitted[0]):,}", f"{difference:.4f}", f"{largest:.4f}", str(num_bins)


def of_hits(
    images: Images, known: Images | None, stored: Calibration | None, seed: int
) -> tuple[str, list[tuple[str, ...]]]:
    """Return what was searched, and a table about probabilities of hits.

    Args:
        images: split into a collection and queries.
        known: images to calibrate with; None to take the calibration stored with the model.
        stored: that calibration; None for none, so that only p(hit) is known.
        seed: of the split and the fits.
    """
    codes = np.unique(images.labels, return_inverse=True)[1]
    collection, queries = split_images(codes, seed)
    rows, classes = images.rows[collection], codes[collection]
    hits, around = find_hits(images.rows[queries], rows, classes)
    found = np.isfinite(hits.distances)
    right = (hits.classes == codes[queries, None])[found]
    calibration = stored if known is None else calibrated(known, seed)
    learned = fit_hits_among(rows, classes, seed=seed)
    stated = {}
    if calibration is not None:
        stated["as for two images"] = pair_probabilities(calibration, hits.distances[found])
    if learned is not None:
        stated["p(hit)"] = learned.probabilities(hits.distances, around)[found]
    table = [
        (
            name,
            f"{reliability(chances, right).calibration_error:.3f}",
            *(in_range(chances, right, *each) for each in RANGES),
        )
        for name, chances in stated.items()
    ]
    words = (
        f"{counted(len(queries), 'query')} in a collection of {counted(len(rows), 'image')} of "
        f"{counted(len(np.unique(classes)), 'class')}: {counted(len(right), 'hit')}, "
        f"{right.mean():.1%} of them right"
    )
    return words, table


def calibrated(known: Images, seed: int) -> Calibration:
    """Return the calibration that `calibrate` would store."""
    codes = np.unique(known.labels, return_inverse=True)[1]
    pairs = sample_pairs(codes, NUM_PAIRS, seed=seed)
    return fit_calibration(*(pair_distances(known.rows, known.rows, *each.T) for each in pairs))


def of_foreign(images: Images, other: Images | None, seed: int) -> Iterable[tuple[str, ...]]:
    """Yield a row for each share of foreign searches; figures are means over `SPLITS` splits.

    Args:
        images: classes to split into those of the collection and others.
        other: images of none of these classes; None for none.
        seed: of the first split.
    """
    codes = np.unique(images.labels, return_inverse=True)[1]
    figures: dict[float, list[list[float]]] = {share: [] for share in SHARES}
    for split in range(seed, seed + SPLITS):
        held = hold_back_classes(codes, 0.5, split)
        searched = np.flatnonzero(~held)
        collection, queries = (searched[part] for part in split_images(codes[searched], split))
        rows, classes = images.rows[collection], codes[collection]
        asked = [images.rows[queries], some(images.rows[held], split)]
        asked += [] if other is None else [some(other.rows, split)]
        found = [find_hits(each, rows, classes) for each in asked]
        right = found[0][0].classes == codes[queries, None]
        for share, of_share in figures.items():
            learned = fit_hits_among(rows, classes, seed=split, foreign_share=share)
            assert learned is not None  # classes of a benchmark have images enough
            known, *foreign = (
                learned.probabilities(hits.distances, around) for hits, around in found
            )
            assert all((np.diff(each, axis=1) <= 0).all() for each in (known, *foreign))
            of_share.append(figures_of(known, right, foreign))
    for share, of_share in figures.items():
        error, sure, correct, *others = np.mean(of_share, axis=0)
        cells = f"{sure:,.0f}, {correct / sure:.1%}" if sure else "0"
        percent = [
            f"{each:.3f}" if number % 3 == 1 else f"{each:.1%}"
            for number, each in enumerate(others)
        ]
        yield f"{share:.0%}", f"{error:.3f}", cells, *percent


def figures_of(known, right, foreign) -> list[float]:
    """Return the figures of a split, in the order of `FOREIGN_HEADER`; two for its third cell."""
    sure = known >= RANGES[-1][0]
    found = [reliability(known.ravel(), right.ravel()).calibration_error]
    found += [np.count_nonzero(sure), np.count_nonzero(sure & right), sure.any(axis=1).mean()]
    for each in foreign:
        nearest = each[:, 0]  # no other hit is likelier
        found += [each.mean(), np.mean(nearest >= 0.4), np.mean(nearest >= 0.9)]
    return found


def some(rows: np.ndarray, seed: int) -> np.ndarray:
    """Return at most `MOST_FOREIGN` of the rows."""
    return np.random.default_rng(seed).permutation(rows)[:MOST_FOREIGN]


def in_range(chances, right, least: float, below: float) -> str:
    """Return how many hits have a probability of a range, and how many of these are right."""
    chosen = (chances >= least) & ((chances < below) | (below == 1))
    if not chosen.any():
        return "0"
    return f"{np.count_nonzero(chosen):,}, {right[chosen].mean():.1%}"


def print_table(header: Iterable[str], table: Iterable[Iterable[str]]) -> None:
    """Print rows of text as a Markdown table."""
    rows = [list(header), *map(list, table)]
    rows.insert(1, ["---"] * len(rows[0]))
    for row in rows:
        print(f"| {' | '.join(row)} |")


def read_images(model, folders, args: argparse.Namespace, leave_out=()) -> Images:
    """Embed the images of folders with the same classes, without some classes."""
    from deep_ranking.embedding.embed import embed_images

    files, labels = [], []
    for folder in folders:
        data = read_folder(folder, label=args.label, splits=False)
        data = data.select(~np.isin(data.classes_of_images(), leave_out))
        if args.max_images_per_class is not None:
            data = limit_classes(data, most=args.max_images_per_class)
        files += data.files()
        labels += data.classes_of_images().tolist()
    return Images(embed_images(model, files, progress=True), np.array(labels))


def main() -> None:
    """Parse the arguments, embed each image once, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--dataset",
        type=Path,
        nargs="+",
        required=True,
        help="folder of classes not trained on; of several folders, equal classes are one",
    )
    parser.add_argument("--label", help="what the class is, as for all commands")
    parser.add_argument("--max_images_per_class", type=int, help="in each folder")
    parser.add_argument(
        "--calibrate_on",
        type=Path,
        help="folder of other classes, to calibrate with (default: the model's calibration)",
    )
    parser.add_argument(
        "--foreign", type=Path, help="folder of quite other images, none of a class of --dataset"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from deep_ranking.cli.library_messages import start_tensorflow
    from deep_ranking.model.file import load_model

    start_tensorflow()
    model = load_model(args.model)
    images = read_images(model, args.dataset, args)
    print_table(PAIR_HEADER, of_two_images(images, args.seed))
    known, how = None, "calibrated as stored in the model"
    if args.calibrate_on is not None:
        known = read_images(model, [args.calibrate_on], args, np.unique(images.labels))
        how = f"calibrated with {described(known)} of --calibrate_on"
    about, table = of_hits(images, known, getattr(model, "calibration", None), args.seed)
    print(f"\n{about}; {how}:\n")
    print_table(HIT_HEADER, table)
    other = None
    if args.foreign is not None:
        other = read_images(model, [args.foreign], args, np.unique(images.labels))
    print(
        "\nHalf of the classes are searched with them, with the other half, and with --foreign:\n"
    )
    table = of_foreign(images, other, args.seed)
    print_table(FOREIGN_HEADER if other is not None else FOREIGN_HEADER[:-3], table)


def described(images: Images) -> str:
    """Return how many images there are, and of how many classes."""
    num_classes = len(np.unique(images.labels))
    return f"{counted(len(images.labels), 'image')} of {counted(num_classes, 'class')}"


if __name__ == "__main__":
    main()
