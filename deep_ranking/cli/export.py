"""`export`: a model -> SavedModel, ONNX or TensorFlow Lite, checked in its own runtime."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deep_ranking.cli.arguments import add_model, add_output, check_files_exist
from deep_ranking.cli.library_messages import open_model, shown_on_failure
from deep_ranking.embedding.export import FORMATS, check_output
from deep_ranking.files import InputError
from deep_ranking.images import find_images

DESCRIPTION = (
    "Write a model for other programs. Its input is that of the model: RGB pixels, float32 in "
    "[0, 255], of any number of images. The export is first opened in its own runtime, and appears "
    "under its name only if it computes the model's embeddings there."
)

EXAMPLES = (
    (
        "Write an ONNX file, and check it on an image too",
        "python -m deep_ranking export -m m.h5 --format onnx -o m.onnx --images a.jpg",
    ),
    (
        "Write a SavedModel, a folder",
        "python -m deep_ranking export --model m.h5 --format savedmodel --output m",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("model and output")
    add_model(group)
    group.add_argument(
        "--format",
        choices=FORMATS,
        metavar="FORMAT",
        required=True,
        help="savedmodel: a folder for TensorFlow and its servers; onnx: a file for ONNX Runtime "
        'and others (pip install "deep-ranking[export]"); tflite: a file for LiteRT on phones; '
        "litert-int8: the same in int8, calibrated on --images",
    )
    add_output(
        group,
        "FILE|DIR",
        "what to write: the folder of a SavedModel, or a file NAME.onnx or NAME.tflite",
    )
    group.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    group = parser.add_argument_group("check of the export")
    group.add_argument(
        "--images",
        action="extend",
        nargs="+",
        type=Path,
        metavar="IMAGE|DIR",
        help="images, or folders of them, on which to compare the embeddings; random images are "
        "always compared",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        metavar="DIFFERENCE",
        help="greatest allowed difference of a number in the embeddings (default: 1e-4; int8: 0.1)",
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Convert the model, check the export and print how to use it."""
    args = parser.parse_args(argv)
    check_files_exist(args, "model")
    check_output(args.output, args.format, overwrite=args.overwrite)
    images = _images(args.images or [])
    model = open_model(args.model)
    from deep_ranking.embedding.export import export_model

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
    print(done)


def _images(given: list[Path]) -> list[Path]:
    images: list[Path] = []
    for path in given:
        if path.is_dir():
            images += map(Path, find_images(path).files())
        elif path.exists():
            images.append(path)
        else:
            raise InputError(f"{path}: no such image; check --images")
    return images
