"""`report`: one HTML file that shows how good a model is, and what is odd in the images."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deep_ranking.cli.arguments import add_required_path, add_seed, check_files_exist
from deep_ranking.cli.notes import start_tensorflow
from deep_ranking.files import InputError
from deep_ranking.files.words import counted
from deep_ranking.images import find_images

DESCRIPTION = (
    "Write one HTML file about a model on images of known classes: metrics, pictures, likely wrong "
    "labels and near-duplicates. It holds all it needs; opening it loads nothing from anywhere."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    suppress = argparse.SUPPRESS
    add_required_path(parser, "--model", "-m", help_text="model file of train.py")
    add_required_path(
        parser,
        "--dataset",
        metavar="DIR",
        help_text="folder with one folder a class, best not trained on",
    )
    add_required_path(
        parser, "--output", "-o", metavar="FILE", help_text="file to write, such as report.html"
    )
    parser.add_argument(
        "--history",
        type=Path,
        default=suppress,
        metavar="FILE",
        help="history.csv of the training run; by default that of NAME.run beside the model",
    )
    parser.add_argument(
        "--title", default=suppress, metavar="TEXT", help="heading; by default model and data set"
    )
    add_seed(parser)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed, judge, look for what is odd, write."""
    args = parser.parse_args(argv)
    check_files_exist(args, "model")
    _check_output(args.output)
    listing = find_images(args.dataset)
    paths = [str(listing.root / path) for path in listing.paths]
    labels = np.array(listing.classes)[listing.labels]
    start_tensorflow()
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.metrics.evaluation import EmbeddedImages, draw_triplets, evaluate
    from deep_ranking.model.file import load_model
    from deep_ranking.reports.page import write_report

    history = _history(args)
    draw_triplets(labels)  # complains of a single class before the long work
    model = load_model(args.model)
    with embedded_images(model, paths) as embeddings:
        images = EmbeddedImages(paths, labels, embeddings)
        found = write_report(
            args.output,
            evaluate(images, seed=args.seed),
            images,
            title=getattr(args, "title", f"{args.model.name} on {args.dataset}"),
            history=history,
            seed=args.seed,
        )
    print(
        f"{counted(len(paths), 'image')} of {counted(len(listing.classes), 'class')}: "
        f"{len(found.suspects)} likely mislabelled, "
        f"{counted(len(found.duplicates), 'near-duplicate')} across classes (30 of each at most)."
    )
    print(f"Report in {args.output}, {args.output.stat().st_size / 2**20:.1f} MiB.")


def _history(args: argparse.Namespace) -> list[dict[str, float]]:
    from deep_ranking.training.history import read_history

    if hasattr(args, "history"):
        return read_history(args.history)
    beside = args.model.with_suffix(".run") / "history.csv"
    return read_history(beside) if beside.exists() else []


def _check_output(path: Path) -> None:
    """Complain of what cannot be written before the long work."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder to write in; choose another --output")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write in its folder; choose another --output")
