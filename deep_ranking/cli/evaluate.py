"""`evaluate`: how good a model is, and whether it is better than no training."""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from deep_ranking.cli.arguments import add_model, add_optional_path, add_seed, check_files_exist
from deep_ranking.cli.evaluation_tables import (
    describe_gain,
    format_interval,
    print_classes,
    print_methods,
    print_queries,
)
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.cli.output import write_json
from deep_ranking.files.words import counted
from deep_ranking.images import find_images
from deep_ranking.sampling.triplet_file import read_triplets, resolve_paths

DESCRIPTION = (
    "Evaluate a model on images of known classes, or on given triplets: print a table with 95 % "
    "bootstrap intervals. Use classes that the model was not trained on."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_model(parser)
    for name, help_text in (
        ("dataset", "folder with one folder for each class; each image is a query to the others"),
        ("queries", "folder of the query images, one folder for each class"),
        ("gallery", "folder of the images to search, one folder for each class"),
        ("triplets", "triplet file to evaluate on instead, such as one that people labelled"),
    ):
        metavar = "FILE" if name == "triplets" else "DIR"
        add_optional_path(parser, f"--{name}", metavar=metavar, help_text=help_text)
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also evaluate features without training, and print whether training was worth it",
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|PATH",
        help="weights of the untrained backbone, one of the baselines",
    )
    add_optional_path(parser, "--json", metavar="FILE", help_text="write everything as JSON")
    add_seed(parser)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed, evaluate and print."""
    args = parser.parse_args(argv)
    given = [name for name in ("dataset", "queries", "gallery", "triplets") if hasattr(args, name)]
    if given not in (["dataset"], ["queries", "gallery"], ["triplets"]):
        parser.error("give --dataset, or --queries and --gallery, or --triplets")
    if args.baselines and given == ["triplets"]:
        parser.error("--baselines needs classes: give --dataset, or --queries and --gallery")
    check_files_exist(args, "model")
    result = _evaluate_triplets(args) if given == ["triplets"] else _evaluate_classes(args, given)
    if hasattr(args, "json"):
        write_json(args.json, result)


def _evaluate_triplets(args: argparse.Namespace) -> dict[str, Any]:
    triplets = read_triplets(args.triplets)
    paths = resolve_paths(triplets, None)
    start_tensorflow()
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_triplets
    from deep_ranking.model.file import load_model

    model = load_model(args.model)
    with embedded_images(model, paths) as embeddings:
        images = EmbeddedImages(paths, np.full(len(paths), ""), embeddings)
        precision, score = evaluate_triplets(images, triplets.rows, seed=args.seed)
    print(f"{counted(len(triplets), 'triplet')} of {counted(len(paths), 'image')}.")
    print(f"similarity precision  {format_interval(precision)}")
    print(f"score at top 30       {score:,}")
    return {
        "triplets": len(triplets),
        "similarity_precision": precision._asdict(),
        "score_at_top_30": score,
    }


def _evaluate_classes(args: argparse.Namespace, folders: list[str]) -> dict[str, Any]:
    listings = [find_images(getattr(args, name)) for name in folders]
    start_tensorflow()
    from deep_ranking.model.file import load_model
    from deep_ranking.reports.evaluating import GAIN_METRIC, evaluate_model

    weights = None if args.weights == "none" else args.weights
    found = evaluate_model(
        load_model(args.model), listings, baselines=args.baselines, weights=weights, seed=args.seed
    )
    queries = counted(len(listings[0].paths), "query")
    classes = counted(len(listings[0].classes), "class")
    rest = "each searched for among the others"
    if len(listings) > 1:
        rest = f"searched for in {counted(len(listings[1].paths), 'image')}"
    print(f"{queries} of {classes}, {rest}; means with 95 % bootstrap intervals over queries.\n")
    print_methods(found.methods)
    print_classes(found.classes)
    print_queries(found.queries)
    if found.gain is not None:
        print(f"\n{describe_gain(found.gain, GAIN_METRIC)}")
    return found.as_json()
