"""`demo`: from images to distances on scikit-learn's handwritten digits, offline."""

import argparse
import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deep_ranking.cli.arguments import add_seed, positive_int
from deep_ranking.cli.compile import compile_trained
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.config import TrainConfig
from deep_ranking.config.recipes import find_recipe
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
    "Learn handwritten digits by the recipe laptop, and measure the result on images held back and "
    "on digits that training never saw."
)

# Small textures tell drawings apart better than a backbone that learned photographs.
RECIPE = "laptop"
MULTISCALE = "texture"
MARKER = "deep_ranking_demo"

EXAMPLES = (
    (
        "Learn the digits, and keep everything in demo_output",
        "python -m deep_ranking demo",
    ),
    (
        "Train longer, and see what it changes",
        "python -m deep_ranking demo --epochs 10 --output_directory longer",
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
        "--epochs",
        type=positive_int,
        default=find_recipe(RECIPE).settings["epochs"],
        metavar="N",
        help="times to train on all images",
    )
    add_seed(group)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Write digits, sample triplets, train, evaluate and compare."""
    args = parser.parse_args(argv)
    root = _empty_folder(args.output_directory)
    start_tensorflow()
    from deep_ranking.datasets.public import write_digits
    from deep_ranking.model.network import untrained_backbone
    from deep_ranking.search.indexing import index_images
    from deep_ranking.training.run import train

    splits = write_digits(root / "digits", seed=args.seed)
    evaluated = {
        "digits 0-6, images held back": _sample(splits.held_back, root, args.seed),
        "digits 7-9, never seen": _sample(splits.unseen, root, args.seed),
    }
    print(f"Handwritten digits, and triplets to judge by, are in {root}. Training on 0 to 6:")
    output = root / "digits.h5"
    print(
        f"  deep-ranking train --recipe {RECIPE} --multiscale {MULTISCALE} --dataset "
        f"{splits.train} --output {output} --epochs {args.epochs} --seed {args.seed}"
    )
    config = TrainConfig.from_recipe(
        RECIPE,
        multiscale=MULTISCALE,
        dataset=splits.train,
        output=output,
        epochs=args.epochs,
        seed=args.seed,
        cache_dir=root / "features",
    )
    model = train(config)
    compile_trained(output)
    backbone = untrained_backbone(config.network, config.network.weights, enlarged=True)
    print("\nshare of triplets in order              untrained backbone  raw pixels  trained model")
    for name, path in evaluated.items():
        triplets = read_triplets(path)
        untrained, raw, trained = (
            _precision(triplets, embed) for embed in (backbone, config.network.image_size, model)
        )
        verdict = "better" if trained > max(raw, untrained) else "not better"
        print(f"  {name:38s}{untrained:18.3f}{raw:12.3f}{trained:15.3f}   {verdict}")
    _compare(triplets, model)
    index = root / "index"
    with contextlib.redirect_stdout(io.StringIO()):  # the command says it in more words
        index_images(index, model=output, images=root / "digits")
    print(f"\nModel in {output}, and all digits in {index}, by:")
    print(f"  deep-ranking index --model {output} --images {root / 'digits'} --output {index}")
    print("Find those that are most like ones never seen; or look at them in a browser:")
    print(
        f"  deep-ranking search --index {index} --image {splits.unseen / '9'} --picture found.png"
    )
    print(f"  deep-ranking serve --index {index}")


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


def _sample(images: Path, root: Path, seed: int) -> Path:
    """Write triplets of a folder beside the images' root; return their file."""
    data = read_folder(images)
    path = root / f"{images.name}_triplets.txt"
    prefix = images.relative_to(root).as_posix()
    blocks = sample_triplets(data.items.codes, num_positives=2, num_negatives=2, seed=seed)
    write_triplets(path, [f"{prefix}/{name}" for name in data.paths], blocks)
    return path


def _precision(triplets: Triplets, by: "keras.Model | int") -> float:
    """Return the similarity precision of a model's embeddings, or of raw pixels at a size."""
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.metrics import similarity_precision, triplet_distances

    paths = resolve_paths(triplets, None)
    if isinstance(by, int):
        rows = np.stack([read_image(path, by) for path in paths])
        embeddings = rows.reshape(len(rows), -1).astype(np.float32)
    else:
        embeddings = embed_images(by, paths)
    return similarity_precision(*triplet_distances(embeddings, triplets.rows))


def _compare(triplets: Triplets, model: "keras.Model") -> None:
    """Print the distances in the middle triplet: of a like pair and of an unlike pair."""
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.metrics import row_distances

    paths = resolve_paths(triplets, None)
    names = [paths[number] for number in triplets.rows[len(triplets) // 2]]
    query, positive, negative = embed_images(model, names)[:, None]
    print("\ndistance of two images (0 alike, 2 at most)")
    for kind, other, name in (("like", positive, names[1]), ("unlike", negative, names[2])):
        distance = row_distances(query, other)[0]
        print(f"  {kind:7s}{distance:.4f}   {names[0]}  {name}")
