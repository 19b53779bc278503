"""`explain`: a model and two images -> where their similarity comes from."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import add_model, add_path, check_files_exist
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.cli.output import PICTURE_SUFFIXES, picture_format
from deep_ranking.files import atomic_path

if TYPE_CHECKING:
    from deep_ranking.reports.explain import Explanation

DESCRIPTION = (
    "Show where the similarity of two images comes from: how much the ConvNet and each shallow "
    "branch contribute, and heatmaps of the contributing places."
)

EXAMPLES = (
    (
        "Draw heatmaps into explanation.png",
        "python -m deep_ranking explain --model m.h5 --image1 a.jpg --image2 b.jpg",
    ),
    (
        "Print the contribution of each part as JSON",
        "python -m deep_ranking explain -m m.h5 -i1 a.jpg -i2 b.jpg --json",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, the same as those of `compare`."""
    group = parser.add_argument_group("model and images")
    add_model(group)
    add_path(group, "--image1", "-i1", metavar="IMAGE", help_text="an image", required=True)
    add_path(group, "--image2", "-i2", metavar="IMAGE", help_text="another image", required=True)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        "-o",
        type=Path,
        default=Path("explanation.png"),
        metavar="PICTURE",
        help=f"picture to write, one of {', '.join(PICTURE_SUFFIXES)}",
    )
    group.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Explain the similarity, write the picture and print the numbers."""
    args = parser.parse_args(argv)
    check_files_exist(args, "model", "image1", "image2")
    picture = picture_format(args.output)
    with atomic_path(args.output) as temporary:  # first: an unwritable file fails before the work
        start_tensorflow()
        from deep_ranking.reports.explain import explain

        explanation = explain(args.model, args.image1, args.image2)
        explanation.figure().savefig(temporary, format=picture, dpi=120)
    if args.json:
        _print_json(explanation, args)
    else:
        print(f"{explanation}\nPicture in {args.output}")


def _print_json(explanation: "Explanation", args: argparse.Namespace) -> None:
    by_image = {
        f"image{number + 1}": {
            name: float(values[number]) for name, values in explanation.parts_of_image.items()
        }
        for number in range(2)
    }
    numbers = {
        "distance": explanation.distance,
        "cosine": explanation.cosine,
        "parts": explanation.parts,
        "parts_of_image": by_image,
        "heatmap_layer": explanation.layer,
        "model": str(args.model),
        "image1": str(args.image1),
        "image2": str(args.image2),
        "output": str(args.output),
    }
    print(json.dumps(numbers, indent=2))
