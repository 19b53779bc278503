"""`demo`: from images to distances on scikit-learn's handwritten digits, offline."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deep_ranking.cli.arguments import add_seed, positive_int
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.datasets import read_folder
from deep_ranking.files import InputError, make_folder
from deep_ranking.images import read_image
from deep_ranking.sampling import sample_triplets
from deep_ranking.sampling.triplet_file import (
    Triplets,
    read_triplets,
    resolve_paths,
    write_triplets,
)

if TYPE_CHECKING:
    import keras

DESCRIPTION = (
    "Learn handwritten digits from a random start, and measure the result on images held back and "
    "on digits that training never saw."
)

# The blog's recipe would take hours. Small images, Adam, no dropout and a small gap learn the
# digits in minutes. No flips and rotations, because they turn some digits into others.
NETWORK = NetworkConfig(image_size=32, weights=None, dropout=0.0)
NUM_STEPS = 150
LEARNING_RATE = 1e-4
GAP = 0.2
MARKER = "deep_ranking_demo"

EXAMPLES = (
    (
        "Learn the digits, and keep everything in demo_output",
        "python -m deep_ranking demo",
    ),
    (
        "Take a tenth of the time",
        "python -m deep_ranking demo --steps 15 --output_directory short",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("demonstration")
    group.add_argument(
        "--output_directory",
        type=Path,
        default=Path("demo_output"),
        metavar="DIR",
        help="folder for images, triplets and model; an earlier demo in it is replaced",
    )
    group.add_argument(
        "--steps", type=positive_int, default=NUM_STEPS, metavar="N", help="batches to train on"
    )
    add_seed(group)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Write digits, sample triplets, train, evaluate and compare."""
    args = parser.parse_args(argv)
    root = _empty_folder(args.output_directory)
    start_tensorflow()
    from deep_ranking.datasets.public import write_digits
    from deep_ranking.model.network import build_network
    from deep_ranking.training.run import train

    splits = write_digits(root / "digits", seed=args.seed)
    files = {
        name: _sample(Path(getattr(splits, name)), root / f"{name}_triplets.txt", args.seed)
        for name in ("train", "held_back", "unseen")
    }
    print(f"Handwritten digits and their triplets are in {root}.")
    config = TrainConfig(
        triplets=files["train"],
        output=root / "digits.h5",
        network=NETWORK,
        augmentation=None,
        optimizer="adam",
        learning_rate=LEARNING_RATE,
        gap=GAP,
        epochs=1,
        steps_per_epoch=args.steps,
        seed=args.seed,
    )
    print(
        f"Training the real network at {NETWORK.image_size} pixels from a random start: "
        f"{args.steps} batches of {config.batch_size // 3} triplets, {config.optimizer} at "
        f"{LEARNING_RATE:g}, gap {GAP:g}, dropout {NETWORK.dropout:g}, no augmentation."
    )
    before = build_network(NETWORK, seed=args.seed)
    evaluated = {
        "digits 0-6, images held back": read_triplets(files["held_back"]),
        "digits 7-9, never seen": read_triplets(files["unseen"]),
    }
    precision_before = [_precision(triplets, before) for triplets in evaluated.values()]
    after = train(config)
    print("\nsimilarity precision (share of triplets in order)  before   after   raw pixels")
    for (name, triplets), value in zip(evaluated.items(), precision_before, strict=True):
        trained, raw = _precision(triplets, after), _precision(triplets, None)
        verdict = "better" if trained > raw else "not better"
        print(
            f"  {name:48s} {value:6.3f}  {trained:6.3f}   {raw:10.3f}   {verdict} than raw pixels"
        )
    _compare(files["held_back"], after)
    print(f"\nModel in {config.output}; compare any two images with it:")
    print(f"  python -m deep_ranking compare --model {config.output} --image1 A.png --image2 B.png")


def _empty_folder(root: Path) -> Path:
    """Make an empty folder; refuse one with anything but an earlier demo in it."""
    marker = root / f".{MARKER}"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        if not marker.exists():
            raise InputError(f"{root}: holds other files; choose another --output_directory")
        shutil.rmtree(root)
    make_folder(root)
    marker.touch()
    return root


def _sample(images: Path, path: Path, seed: int) -> Path:
    data = read_folder(images)
    prefix = images.relative_to(path.parent).as_posix()
    blocks = sample_triplets(data.items.codes, num_positives=2, num_negatives=2, seed=seed)
    write_triplets(path, [f"{prefix}/{name}" for name in data.paths], blocks)
    return path


def _precision(triplets: Triplets, model: "keras.Model | None") -> float:
    """Return the similarity precision of the model's embeddings, or of raw pixels if it is None."""
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.metrics import similarity_precision, triplet_distances

    paths = resolve_paths(triplets, None)
    if model is None:
        rows = np.stack([read_image(path, NETWORK.image_size) for path in paths])
        embeddings = rows.reshape(len(rows), -1).astype(np.float32)
    else:
        embeddings = embed_images(model, paths)
    return similarity_precision(*triplet_distances(embeddings, triplets.rows))


def _compare(triplets_path: Path, model: "keras.Model") -> None:
    """Print the distances in the middle triplet: of a like pair and of an unlike pair."""
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.metrics import row_distances

    triplets = read_triplets(triplets_path)
    paths = resolve_paths(triplets, None)
    names = [paths[number] for number in triplets.rows[len(triplets) // 2]]
    query, positive, negative = embed_images(model, names)[:, None]
    print("\ndistance of two images (0 alike, 2 at most)")
    for kind, other, name in (("like", positive, names[1]), ("unlike", negative, names[2])):
        distance = row_distances(query, other)[0]
        print(f"  {kind:7s}{distance:.4f}   {names[0]}  {name}")
