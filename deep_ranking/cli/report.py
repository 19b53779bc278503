"""`report`: one HTML file that shows how good a model is, and what is odd in the images."""

import argparse
import csv
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deep_ranking.cli.arguments import counted
from deep_ranking.cli.tensorflow import start_tensorflow
from deep_ranking.errors import InputError
from deep_ranking.images import find_images

DESCRIPTION = (
    "Write one HTML file about a model on images of known classes: metrics, pictures, likely wrong "
    "labels and near-duplicates. It holds all it needs; opening it loads nothing from anywhere."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    suppress = argparse.SUPPRESS
    for flags, metavar, help_text in (
        (("--model", "-m"), "PATH", "model file of train.py"),
        (("--dataset",), "DIR", "folder with one folder a class, best not trained on"),
        (("--output", "-o"), "FILE", "file to write, such as report.html"),
    ):
        parser.add_argument(
            *flags, type=Path, required=True, default=suppress, metavar=metavar, help=help_text
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
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides what is drawn")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed, judge, look for what is odd, write."""
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"argument --seed: must be 0 or more. Received: {args.seed}")
    if not args.model.exists():
        raise InputError(f"{args.model}: no such file; check --model")
    _check_output(args.output)
    history = _history(args)
    listing = find_images(args.dataset)
    paths = [str(listing.root / path) for path in listing.paths]
    labels = np.array(listing.classes)[listing.labels]
    start_tensorflow()
    from deep_ranking.embedding import embed_images
    from deep_ranking.evaluation import EmbeddedImages, draw_triplets, evaluate
    from deep_ranking.model_file import load_model
    from deep_ranking.report import write_report

    draw_triplets(labels)  # complains of a single class before the long work
    model = load_model(args.model)
    with tempfile.TemporaryFile() as file:
        shape = (len(paths), model.output_shape[-1])
        embeddings = np.memmap(file, np.float32, "w+", shape=shape)
        embed_images(model, paths, progress=True, out=embeddings)
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


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the history of a training run, `history.csv`: a line of names, then an epoch a line.

    Returns:
        One mapping an epoch, of what was measured in it: empty cells are left out.

    Raises:
        InputError: there is no such file, or it is no history; with the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle, restkey="", restval="")
            if "epoch" not in (reader.fieldnames or ()):
                raise InputError(f"{path}:1: expected a line of names with epoch among them")
            rows = []
            for cells in reader:
                rows.append({name: float(cell) for name, cell in cells.items() if cell})
                if not math.isfinite(rows[-1].get("epoch", math.nan)):
                    raise InputError(f"{path}:{reader.line_num}: no number of an epoch")
            return rows
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check --history") from None
    except (ValueError, TypeError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        line = f":{reader.line_num}" if not isinstance(error, UnicodeDecodeError) else ""
        raise InputError(f"{path}{line}: expected numbers; not a history of train.py") from None


def _history(args: argparse.Namespace) -> list[dict[str, float]]:
    if hasattr(args, "history"):
        return read_history(args.history)
    beside = args.model.with_suffix(".run") / "history.csv"
    return read_history(beside) if beside.exists() else []


def _check_output(path: Path) -> None:
    """Complain of what cannot be written before the long work."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no folder to write in; choose another --output")
