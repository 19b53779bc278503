"""`explain`: a model and two images -> where their similarity comes from.

By gradients it tells the parts of a network in Keras, in a figure of matplotlib. By occlusion it
works with a compiled model, in a light installation, and Pillow draws the picture.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import add_model, add_path, check_files_exist
from deep_ranking.cli.compile import say_if_not_compiled
from deep_ranking.cli.library_messages import quieten_tensorflow, start_tensorflow
from deep_ranking.cli.output import (
    PICTURE_SUFFIXES,
    PIXEL_SUFFIXES,
    checked_suffix,
    picture_format,
)
from deep_ranking.files import atomic_path

if TYPE_CHECKING:
    from deep_ranking.reports.explain import Explanation
    from deep_ranking.reports.occlusion import Occlusion

GRADIENTS, OCCLUSION = "gradients", "occlusion"
DESCRIPTION = (
    "Show where the similarity of two images comes from: how much the ConvNet and each shallow "
    "branch contribute, and heatmaps of the contributing places. With "
    "--method occlusion, which places count: each is covered in turn, with any engine and without "
    "TensorFlow."
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
    group.add_argument(
        "--method",
        choices=(GRADIENTS, OCCLUSION),
        default=GRADIENTS,
        help="gradients of the network in Keras, or occlusion of one place after the other",
    )
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
    if args.method == OCCLUSION:
        _cover(args)
    else:
        _follow_gradients(args)


def _cover(args: argparse.Namespace) -> None:
    """Cover the places of both images in turn."""
    quieten_tensorflow()
    from PIL import Image

    from deep_ranking.images.thumbnails import fitted_pixels
    from deep_ranking.reports.heat_picture import HEIGHT, heat_pictures
    from deep_ranking.reports.occlusion import explain_by_occlusion

    kind = Image.registered_extensions()[checked_suffix(args.output, PIXEL_SUFFIXES)]
    with atomic_path(args.output) as temporary:
        found = explain_by_occlusion(args.model, args.image1, args.image2)
        pictures = [fitted_pixels(each, 2 * HEIGHT) for each in (args.image1, args.image2)]
        Image.fromarray(heat_pictures(pictures, found.heat)).save(temporary, kind)
    if args.json:
        _print_places(found, args)
        return
    print(f"{found}\nPicture in {args.output}")
    say_if_not_compiled(args.model)


def _print_places(found: "Occlusion", args: argparse.Namespace) -> None:
    images = {
        f"image{number + 1}": {
            "file": str(file),
            "heat": found.heat[number].tolist(),
            "drops": found.drops[number].tolist(),
            "words": found.words(number),
        }
        for number, file in enumerate((args.image1, args.image2))
    }
    numbers = {"distance": found.distance, "cosine": found.cosine, "model": str(args.model)}
    print(json.dumps({**numbers, **images, "output": str(args.output)}, indent=2))


def _follow_gradients(args: argparse.Namespace) -> None:
    """Take the similarity apart by parts of the network, and by places."""
    picture = picture_format(args.output, otherwise=f"give --method {OCCLUSION}")
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
