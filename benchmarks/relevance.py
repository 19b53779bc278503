"""Sampling by relevance, and the share of negatives from other classes: the paper's figure.

    python benchmarks/relevance.py --dataset DIR --weights PATH --output figure.png

After Wang et al. 2014, section 6.4: similarity precision and score at top 30 against the share of
out-of-class negatives, for two ways to draw the other images, everything else being equal:

    weighted   as `--strategy relevance` does: the query i by its total relevance r_i, the positive
               and the in-class negative by min(T_p, r_ij);
    uniform    query, positive and in-class negative each with the same chance as any other image
               of the class.

Both draw all classes equally often, and require r_ij - r_in >= T_r of in-class negatives. So
"uniform" does use relevance, but not as a weight. (It is the same strategy, with totals of 1 and a
T_p below all relevances.) Relevance is that of `--relevance backbone`, the cosine of the pooled
features of ImageNet's VGG16. A linear embedding is trained on these features alone. It starts as
the identity, uses the paper's loss of squared distances, and sees equally many triplets each time.
A third of the classes is held back, different ones for each seed, and everything is evaluated on
these.

What decides what is similar? Not the relevance of training, from any layer: that would reward the
model for knowing its teacher. Two kinds of triplets, both independent of it, are evaluated
separately:

    out-of-class   The positive is of the query's class, the negative of another. People gave these
                   labels, but nobody was asked about the triplet itself, and most are easy.
    in-class       All three images are of one class; the positive is more relevant by the cosine of
                   colour and texture (LAB histogram and HOG, without training), by at least
                   --judge_gap. This replaces people, and badly: it sees neither poses nor parts. Of
                   40 such triplets of Caltech-101 that we looked at, we agreed with 21, could not
                   decide on 17 and disagreed on 2. It can compare settings, but not say how good
                   they are.

The score at top 30 ranks all images held back; the paper ranks the 1,000 images that a text search
found. The score counts triplets, equally many for each seed.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SAMPLINGS = ("weighted", "uniform")
KINDS = ("in-class", "out-of-class")
METRICS = ("similarity precision", "score at top 30")
UNIFORM_CAP = 1e-9  # below any relevance: min(T_p, r_ij) is the same for all
HELD_BACK = 1 / 3
BATCH_TRIPLETS = 256


def read_features(args: argparse.Namespace):
    """Return labels, the backbone's features, and features of colour and texture."""
    from deep_ranking.config import NetworkConfig
    from deep_ranking.datasets import limit_classes, read_folder
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.images.hand_made_features import baseline_features
    from deep_ranking.model.network import untrained_backbone

    data = read_folder(args.dataset)
    names = np.array(data.items.names)[data.items.codes]
    data = limit_classes(data.select(~np.isin(names, args.leave_out)), most=args.images_per_class)
    made_of = [str(args.image_size), str(args.weights), *data.paths]
    if args.work is not None and (args.work / "features.npz").exists():
        with np.load(args.work / "features.npz") as kept:
            if kept["made_of"].tolist() == made_of:
                return data.items.codes, kept["backbone"], kept["hand_made"]
    config = NetworkConfig(image_size=args.image_size, weights=None)
    backbone = embed_images(untrained_backbone(config, args.weights), data.files(), progress=True)
    parts = [
        baseline_features(name, data.files(), progress=True) for name in ("LAB histogram", "HOG")
    ]
    lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    units = [part / np.maximum(length, 1e-12) for part, length in zip(parts, lengths, strict=True)]
    hand_made = np.concatenate(units, axis=1) / np.sqrt(len(units))
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
        file = args.work / "features.npz"
        np.savez(file, made_of=made_of, backbone=backbone, hand_made=hand_made)
    return data.items.codes, backbone, hand_made


def draw(rows, labels, *, count, seed, share, gap, sampling):
    """Return triplets drawn by the cosine of rows: int32 (count, 3)."""
    from deep_ranking.sampling import ByRelevance
    from deep_ranking.sampling.relevance import RowCosine

    relevance = RowCosine(rows)
    weighted = sampling == "weighted"
    strategy = ByRelevance(
        relevance,
        relevance.totals(labels) if weighted else np.ones(len(labels)),
        labels,
        triplets_per_image=max(1, count // len(labels)),
        cap=1.0 if weighted else UNIFORM_CAP,
        gap=gap,
        out_of_class_share=share,
        balance=True,
    )
    blocks, drawn = [], 0
    for block in strategy.stream(seed):
        blocks.append(block)
        drawn += len(block)
        if drawn >= count:
            return np.concatenate(blocks)[:count]


def train(rows, triplets, *, gap, learning_rate):
    """Return a linear embedding of rows, trained on triplets of them: float32 (dim, dim)."""
    import keras

    from deep_ranking.losses import RankingLoss

    number = keras.Input((), dtype="int32")
    lookup = keras.layers.Embedding(*rows.shape, weights=[rows], trainable=False)
    linear = keras.layers.Dense(rows.shape[1], use_bias=False, kernel_initializer="identity")
    embedding = keras.layers.UnitNormalization()(linear(lookup(number)))
    model = keras.Model(number, embedding)
    model.compile(keras.optimizers.Adam(learning_rate), RankingLoss(gap, distance="squared"))
    labels = np.zeros(triplets.size, np.float32)  # not used
    batch_size = 3 * BATCH_TRIPLETS
    model.fit(triplets.ravel(), labels, batch_size=batch_size, shuffle=False, verbose=0)
    kernel = keras.ops.convert_to_numpy(linear.kernel)
    keras.backend.clear_session()
    return kernel


def judge(rows, tests) -> list[float]:
    """Return both metrics for each kind of triplets."""
    from deep_ranking.metrics import similarity_precision, triplet_distances
    from deep_ranking.metrics.triplets import score_at_top_k, triplet_ranks

    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for triplets in tests:
        found.append(similarity_precision(*triplet_distances(rows, triplets)))
        found.append(score_at_top_k(*triplet_ranks(rows, triplets), k=30))
    return found


def measure(args: argparse.Namespace) -> Iterator[tuple[tuple[str, float], list[float]]]:
    """Train and evaluate; yield (sampling, share), ("backbone", 0) for none, and the metrics."""
    from tqdm import tqdm

    from deep_ranking.datasets import hold_back_classes

    labels, backbone, hand_made = read_features(args)
    print(f"{len(labels):,} images of {len(np.unique(labels)):,} classes", file=sys.stderr)
    settings = list(product(SAMPLINGS, args.shares))
    with tqdm(total=len(args.seeds) * len(settings), desc="trainings", disable=None) as bar:
        for seed in args.seeds:
            held = hold_back_classes(labels, HELD_BACK, seed)
            tests = [
                draw(
                    hand_made[held],
                    labels[held],
                    count=args.judge_triplets,
                    seed=seed,
                    share=share,
                    gap=args.judge_gap,
                    sampling="uniform",
                )
                for share in (0.0, 1.0)
            ]
            yield ("backbone", 0.0), judge(backbone[held], tests)
            for sampling, share in settings:
                triplets = draw(
                    backbone[~held],
                    labels[~held],
                    count=args.triplets,
                    seed=seed,
                    share=share,
                    gap=args.relevance_gap,
                    sampling=sampling,
                )
                kernel = train(
                    backbone[~held], triplets, gap=args.gap, learning_rate=args.learning_rate
                )
                yield (sampling, share), judge(backbone[held] @ kernel, tests)
                bar.update()


def print_table(found, shares) -> None:
    """Print means over seeds, and weighted minus uniform with the error of that difference."""
    columns = [f"{kind}: {metric}" for kind, metric in product(KINDS, METRICS)]
    print("| sampling | out-of-class share | " + " | ".join(columns) + " |")
    print("| --- " * (len(columns) + 2) + "|")

    def cells(values, sign="", errors=None):
        for column, value in enumerate(values):
            digits = ".0f" if column % 2 else ".4f"
            error = "" if errors is None else f" ± {errors[column]:{digits}}"
            yield f"{value:{sign}{digits}}{error}"

    rows = [("untrained backbone", "-", ("backbone", 0.0))]
    rows += [
        (sampling, f"{share:.0%}", (sampling, share))
        for sampling, share in product(SAMPLINGS, shares)
    ]
    for name, share, key in rows:
        print(f"| {name} | {share} | {' | '.join(cells(np.mean(found[key], axis=0)))} |")
    for share in shares:
        gains = np.subtract(*(found[sampling, share] for sampling in SAMPLINGS))
        errors = gains.std(axis=0, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else None
        line = " | ".join(cells(gains.mean(axis=0), "+", errors))
        print(f"| weighted less uniform | {share:.0%} | {line} |")


def draw_figure(found, shares):
    """Draw each metric on each kind of triplets against the share.

    The classes held back are harder with one seed than with another. So the bars show the change
    from each seed's own backbone, added to the mean of the backbones.
    """
    from matplotlib.figure import Figure

    from deep_ranking.reports.plots import plot_samplings

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    own = np.array(found["backbone", 0.0])  # (seeds, metrics)
    before = own.mean(axis=0)
    moved = {
        sampling: np.array([found[sampling, share] - own for share in shares]) + before
        for sampling in SAMPLINGS
    }  # (shares, seeds, metrics)
    for column, (kind, metric) in enumerate(product(KINDS, METRICS)):
        curves = {sampling: values[..., column].T for sampling, values in moved.items()}
        ax = plot_samplings(shares, curves, metric, before=before[column], ax=axes[column])
        ax.set_title(f"{kind} triplets of classes held back")
    return figure


def main() -> None:
    """Parse the arguments, measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--dataset", type=Path, required=True, help="folder of classes, for both")
    parser.add_argument("--weights", default="imagenet", help="of the backbone, as for train.py")
    parser.add_argument("--output", type=Path, required=True, help="picture to write")
    parser.add_argument("--work", type=Path, help="folder to keep features in")
    parser.add_argument("--leave_out", nargs="+", default=[], help="classes to leave out")
    parser.add_argument("--images_per_class", type=int, default=60, help="at most")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.2, 0.4, 0.6, 0.8, 1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--triplets", type=int, default=64_000, help="to train on")
    parser.add_argument("--judge_triplets", type=int, default=5_000, help="of each kind")
    parser.add_argument("--gap", type=float, default=0.5, help="of the loss")
    parser.add_argument("--learning_rate", type=float, default=0.0003)
    parser.add_argument("--relevance_gap", type=float, default=0.05, help="T_r")
    parser.add_argument("--judge_gap", type=float, default=0.15, help="T_r of in-class triplets")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from deep_ranking.cli.library_messages import start_tensorflow
    from deep_ranking.files import InputError

    start_tensorflow()
    start = time.monotonic()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, float], list[list[float]]] = {}
    try:
        for key, values in measure(args):
            found.setdefault(key, []).append(values)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    print_table(found, args.shares)
    draw_figure(found, args.shares).savefig(args.output, dpi=120)
    print(f"\n{args.output}, in {time.monotonic() - start:.0f} seconds.")


if __name__ == "__main__":
    main()
