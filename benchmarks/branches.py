"""What bounds the shallow branches of the article: ways to get more out of their geometry.

    python benchmarks/branches.py --dataset grocery/photos --label parent

Nothing is trained: the features of the untrained backbone and of a branch are whitened jointly on
half of the classes, and judged by mAP@R on the other half; figures are means over both halves and
--halvings. The scale of a branch beside the backbone is the one that does best on the judged
classes themselves. So each figure is an upper bound of what choosing the scale can give.

A way is a geometry (how the image is shrunk, the side and the stride of the patches), first weights
of the 96 filters of each branch, how a place answers, and how places are pooled. The last rows
change one thing at a time towards the branch `colour`: more places, smaller patches, more words.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.cluster import MiniBatchKMeans

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deep_ranking import InputError
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.config import NetworkConfig
from deep_ranking.datasets import read_folder
from deep_ranking.images import read_image
from deep_ranking.metrics.retrieval import average_precision_at_r
from deep_ranking.model.branch_words import random_patches

SCALES = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5)
SHRINKAGE = 4.0  # as that of `--embedding_start whitened`
PATCHES_PER_IMAGE = 60


@dataclass(frozen=True)
class Level:
    """One branch: shrink the image, filter patches at a stride, pool windows of answers.

    A `window` of 0 pools the whole image.
    """

    shrink: int
    patch: int
    stride: int
    window: int
    step: int


@dataclass(frozen=True)
class Way:
    """Levels, and what is done in each of them."""

    levels: tuple[Level, ...]
    filters: str = "k-means"  # or "random"
    answer: str = "linear"  # "rectified", "triangle", "shares"
    pools: tuple[str, ...] = ("max",)
    num_filters: int = 96


BLOG = (Level(1, 8, 16, 3, 4), Level(1, 8, 32, 7, 2))
PAPER = (Level(4, 8, 4, 3, 4), Level(8, 8, 4, 7, 2))
WHOLE = Way((), answer="shares", pools=("root mean square",))
WAYS = {
    f"{name}{what}": replace(way, levels=levels)
    for name, levels in (("blog", BLOG), ("paper", PAPER))
    for what, way in {
        ", random filters, linear, maximum (as built)": Way((), filters="random"),
        ", k-means words, linear, maximum": Way(()),
        ", k-means words, rectified, maximum": Way((), answer="rectified"),
        ", k-means words, triangle, maximum": Way((), answer="triangle"),
        ", k-means words, triangle, mean beside maximum": Way(
            (), answer="triangle", pools=("max", "mean")
        ),
        ", k-means words, roots of shares over the whole image": WHOLE,
    }.items()
} | {
    "patches of 8 x 8 at every second pixel": replace(WHOLE, levels=(Level(1, 8, 2, 0, 0),)),
    "patches of 8 x 8 of a quarter, every pixel": replace(WHOLE, levels=(Level(4, 8, 1, 0, 0),)),
    "single pixels at the blog's places, stride 16": replace(
        WHOLE, levels=(Level(1, 1, 16, 0, 0),)
    ),
    "single pixels of a quarter, every pixel": replace(WHOLE, levels=(Level(4, 1, 1, 0, 0),)),
    "the same, 128 words": replace(WHOLE, levels=(Level(4, 1, 1, 0, 0),), num_filters=128),
}


def vectors(way, images):
    """Return the vectors of a way's branch, of unit length: float32 (images, features)."""
    parts = [level_vectors(way, level, images) for level in way.levels]
    return np.concatenate(parts, axis=1) / np.sqrt(len(parts))


def level_vectors(way, level, images):
    """Return the vectors of one level: float32 (images, features), rows of unit length."""
    import keras

    unit = images.astype(np.float32) / 255
    if level.shrink > 1:
        unit = np.asarray(keras.layers.AveragePooling2D(level.shrink, padding="same")(unit))
    rng = np.random.default_rng(0)
    patches = random_patches(unit, level.patch, PATCHES_PER_IMAGE, rng=rng)
    centre = patches.reshape(-1, 3).mean(axis=0)
    # Colours whitened, as those of `branch_words`.
    variances, axes = np.linalg.eigh(np.cov(patches.reshape(-1, 3).T))
    whitening = ((axes / np.sqrt(variances + 0.01 * variances.mean())) @ axes.T).astype(np.float32)
    coloured = (unit - centre) @ whitening
    patches = random_patches(coloured, level.patch, PATCHES_PER_IMAGE, rng=rng)
    if way.filters == "random":
        fan = level.patch**2 * 3 + level.patch**2 * way.num_filters
        words = rng.uniform(-1, 1, (way.num_filters, patches.shape[1])) * np.sqrt(6 / fan)
    else:
        clusters = MiniBatchKMeans(way.num_filters, batch_size=4096, n_init=3, random_state=0)
        words = clusters.fit(patches).cluster_centers_
    kernel = words.T.reshape(level.patch, level.patch, 3, way.num_filters).astype(np.float32)
    ones = np.ones((*kernel.shape[:3], 1), np.float32)
    nearest = np.min(squared(patches[::7], words.astype(np.float32)), axis=1).mean()
    rows = []
    for begin in range(0, len(coloured), 64):
        batch = coloured[begin : begin + 64]
        settings = {"strides": level.stride, "padding": "same"}
        linear = np.asarray(keras.ops.conv(batch, kernel, **settings))
        lengths = np.asarray(keras.ops.conv(batch**2, ones, **settings))
        answers = answer(way.answer, linear, lengths, np.sum(words**2, axis=1), nearest)
        rows.append(pooled(way, level, answers))
    found = np.concatenate(rows)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def squared(rows, words):
    """Return the squared distances of rows to words."""
    return np.sum(rows**2, 1)[:, None] - 2 * rows @ words.T + np.sum(words**2, 1)


def answer(kind, linear, lengths, of_words, nearest):
    """Return how places answer: float (images, rows, columns, filters)."""
    if kind == "linear":
        return linear
    if kind == "rectified":
        return np.maximum(linear, 0)
    distances = np.maximum(lengths - 2 * linear + of_words, 0)
    if kind == "triangle":  # Coates, Ng and Lee 2011
        distances = np.sqrt(distances)
        return np.maximum(distances.mean(axis=-1, keepdims=True) - distances, 0)
    shares = np.exp((distances.min(axis=-1, keepdims=True) - distances) / (2 * nearest))
    return np.sqrt(shares / shares.sum(axis=-1, keepdims=True))


def pooled(way, level, answers):
    """Return the pooled answers: float (images, features)."""
    import keras

    if level.window == 0 or "root mean square" in way.pools:
        return np.sqrt(np.mean(answers**2, axis=(1, 2)))
    kinds = {"max": keras.layers.MaxPooling2D, "mean": keras.layers.AveragePooling2D}
    parts = [
        np.asarray(kinds[pool](level.window, strides=level.step, padding="same")(answers))
        for pool in way.pools
    ]
    parts = [part.reshape(len(part), -1) for part in parts]
    lengths = [np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9) for part in parts]
    return np.concatenate([a / b for a, b in zip(parts, lengths, strict=True)], axis=1)


@dataclass(frozen=True)
class Half:
    """Classes that whiten and classes that judge, by the images' numbers."""

    seen: np.ndarray
    judged: np.ndarray
    labels: np.ndarray


def halves(labels, num_halvings) -> Iterator[Half]:
    """Yield both halves of the classes, for each halving."""
    rng = np.random.default_rng(0)
    classes = np.unique(labels)
    for _ in range(num_halvings):
        half = np.isin(labels, rng.permutation(classes)[: len(classes) // 2])
        for seen in (half, ~half):
            yield Half(np.flatnonzero(seen), np.flatnonzero(~seen), labels)


def products(part, half):
    """Return the inner products of a part's features from which any whitened metric follows."""
    known, unknown = part[half.seen], part[half.judged]
    labels = half.labels[half.seen]
    deviations = np.concatenate(
        [known[labels == each] - known[labels == each].mean(axis=0) for each in np.unique(labels)]
    ) / np.sqrt(len(known))
    centred = unknown - known.mean(axis=0)
    return centred @ centred.T, centred @ deviations.T, deviations @ deviations.T, part.shape[1]


def map_at_r(parts, half):
    """Return mAP@R of the judged classes after whitening on the seen ones (Woodbury's identity)."""
    judged, across, within = (sum(s * each[at] for s, each in parts) for at in range(3))
    ridge = SHRINKAGE * np.trace(within) / sum(each[3] for _, each in parts)
    similarity = judged - across @ np.linalg.solve(within + ridge * np.eye(len(within)), across.T)
    lengths = np.sqrt(np.diag(similarity))
    similarity = similarity / lengths[:, None] / lengths
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
    labels = half.labels[half.judged]
    return float(np.nanmean(average_precision_at_r(labels[order] == labels[:, None])))


def main() -> None:
    """Parse the arguments, compute features, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--dataset", type=Path, required=True, help="folder of classes")
    parser.add_argument("--label", default=None, help="as for train.py")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--backbone_size", type=int, default=224)
    parser.add_argument("--weights", default="imagenet", help="as for train.py")
    parser.add_argument("--most", type=int, default=25, help="images of each class")
    parser.add_argument("--halvings", type=int, default=3)
    args = parser.parse_args()
    start_tensorflow()
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.model.network import untrained_backbone

    data = read_folder(args.dataset, **({"label": args.label} if args.label else {}))
    codes = data.items.codes
    chosen = np.concatenate(
        [np.flatnonzero(codes == each)[: args.most] for each in np.unique(codes)]
    )
    paths, labels = [data.files()[number] for number in chosen], codes[chosen]
    images = np.stack([read_image(path, args.image_size) for path in paths])
    config = NetworkConfig(
        image_size=args.image_size,
        backbone=args.backbone,
        backbone_size=args.backbone_size,
        weights=args.weights,
    )
    backbone = embed_images(untrained_backbone(config, args.weights, enlarged=True), paths)
    found = list(halves(labels, args.halvings))
    of_backbone = [products(backbone, half) for half in found]
    alone = np.mean(
        [map_at_r([(1, each)], half) for each, half in zip(of_backbone, found, strict=True)]
    )
    print(f"{len(paths):,} images of {len(np.unique(labels))} classes, {args.image_size} pixels")
    print("| way | features | branch alone | best beside the backbone | times | at the scale |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| none | - | - | {alone:.3f} | 1 | - |", flush=True)
    for name, way in WAYS.items():
        branch = vectors(way, images)
        of_branch = [products(branch, half) for half in found]
        by_itself = np.mean(
            [map_at_r([(1, each)], half) for each, half in zip(of_branch, found, strict=True)]
        )
        joined = {
            scale: np.mean(
                [
                    map_at_r([(1, of_backbone[at]), (scale**2, of_branch[at])], half)
                    for at, half in enumerate(found)
                ]
            )
            for scale in SCALES
        }
        best = max(joined, key=joined.get)
        print(
            f"| {name} | {branch.shape[1]} | {by_itself:.3f} | {joined[best]:.3f} | "
            f"{joined[best] / alone:.3f} | {best:g} |",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
