"""`compare.py`: a model and two images -> their distance."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import add_image_pair, check_files_exist
from deep_ranking.cli.tensorflow import start_tensorflow

if TYPE_CHECKING:
    from deep_ranking.calibration import Calibration

ARTICLE_GAP = 1.0
DESCRIPTION = "Print the Euclidean distance of two images under a model: 0 alike, 2 at most."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags; the first three are the blog's."""
    add_image_pair(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the distance and the settings as JSON"
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Print the distance, alone in its line, and below it what it means."""
    args = parser.parse_args(argv)
    check_files_exist(args, "model", "image1", "image2")
    start_tensorflow()
    from deep_ranking.embedding import embed_images
    from deep_ranking.metrics import row_distances
    from deep_ranking.model_file import load_model

    model = load_model(args.model)
    first, second = embed_images(model, [args.image1, args.image2])
    distance = float(row_distances(first[None], second[None])[0])
    calibration = model.calibration
    if not args.json:
        print(f"{distance:.6f}")
        print(_meaning(distance, calibration))
        return
    settings = {
        "distance": distance,
        "metric": "euclidean",
        "probability_of_same": calibration and calibration.probability(distance),
        "threshold": calibration and calibration.threshold,
        "model": str(args.model),
        "image1": str(args.image1),
        "image2": str(args.image2),
        "network": json.loads(model.network_config.to_json()),
    }
    print(json.dumps(settings, indent=2))


def _meaning(distance: float, calibration: "Calibration | None") -> str:
    if calibration is None:
        word = "similar" if distance < ARTICLE_GAP else "not similar"
        return (
            f"{word}, by the article's rule of thumb alone (below the gap of {ARTICLE_GAP:g}); "
            "for a probability, calibrate the model"
        )
    return (
        f"same class with a probability of {calibration.probability(distance):.3f} (where same and "
        "different pairs are as frequent); nearer than "
        f"{1 - calibration.share_of_same_nearer(distance):.1%} of same pairs and "
        f"{1 - calibration.share_of_different_nearer(distance):.1%} of different pairs"
    )
