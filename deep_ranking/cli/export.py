"""`export`: a model -> a SavedModel, ONNX or TensorFlow Lite, checked in its own runtime."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deep_ranking.cli.arguments import add_required_path, check_files_exist
from deep_ranking.cli.library_messages import shown_on_failure, start_tensorflow
from deep_ranking.embedding.export import DEFAULT_TOLERANCE, FORMATS, check_output
from deep_ranking.files import InputError
from deep_ranking.files.words import byte_size, counted
from deep_ranking.images import list_images

DESCRIPTION = (
    "Write a model for other programs. It takes RGB pixels, float32 in [0, 255], of any number of "
    "images, as the model does. It is opened in the runtime that it is for, and appears under its "
    "name only if it gives the model's embeddings there."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    suppress = argparse.SUPPRESS
    add_required_path(parser, "--model", "-m", help_text="model file of train.py")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        default=suppress,
        help="savedmodel: a folder for TensorFlow and its servers; onnx: a file for ONNX Runtime "
        'and others; tflite: a file for LiteRT on phones (the last two: pip install "deep-ranking'
        '[export]")',
    )
    add_required_path(
        parser,
        "--output",
        "-o",
        help_text="folder of a SavedModel, or a file NAME.onnx or NAME.tflite, to write",
    )
    parser.add_argument(
        "--images",
        action="extend",
        nargs="+",
        type=Path,
        default=suppress,
        metavar="PATH",
        help="images, or folders of them, to compare the embeddings of as well; random images "
        "always are",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        metavar="X",
        help="greatest difference allowed between two numbers of the embeddings",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="put it in the place of an earlier export"
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Convert, check, print."""
    args = parser.parse_args(argv)
    check_files_exist(args, "model")
    check_output(args.output, args.format, overwrite=args.overwrite)
    images = _images(getattr(args, "images", []))
    start_tensorflow()
    from deep_ranking.embedding.export import export_model
    from deep_ranking.model.file import load_model

    model = load_model(args.model)
    with shown_on_failure():
        done = export_model(
            model,
            args.output,
            format=args.format,
            images=images,
            tolerance=args.tolerance,
            overwrite=args.overwrite,
            progress=lambda line: print(f"{line} ...", flush=True),
        )
    print(
        f"greatest difference to the model {done.difference:.2g}, on "
        f"{counted(done.num_images, 'image')} (allowed: {args.tolerance:g})"
    )
    print(f"from Python: {done.usage}")
    print(f"{done.format} in {done.path}, {byte_size(done.num_bytes)}.")


def _images(given: list[Path]) -> list[Path]:
    images: list[Path] = []
    for path in given:
        if path.is_dir():
            images += [path / name for name in list_images(path)[0]]
        elif path.exists():
            images.append(path)
        else:
            raise InputError(f"{path}: no such image; check --images")
    return images
