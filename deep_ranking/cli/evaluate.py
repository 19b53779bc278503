"""`evaluate`: how good a model is, and whether it is better than no training."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.cli.arguments import add_model, add_seed, check_files_exist
from deep_ranking.cli.evaluation_tables import (
    describe_gain,
    extreme_queries,
    format_interval,
    print_classes,
    print_methods,
    print_queries,
    without_nan,
)
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.cli.output import write_json
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.words import counted
from deep_ranking.images import find_images
from deep_ranking.sampling.triplet_file import read_triplets, resolve_paths

if TYPE_CHECKING:
    import keras

    from deep_ranking.metrics.evaluation import Evaluation

DESCRIPTION = (
    "Evaluate a model on images of known classes, or on given triplets: print a table with 95 % "
    "bootstrap intervals. Use classes that the model was not trained on."
)
MODEL = "model"
BACKBONE = "untrained backbone"
VERDICT_METRIC = "map_at_r"
NUM_QUERIES_SHOWN = 5

Embedder = Callable[[list[str]], AbstractContextManager[Float32Array]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    suppress = argparse.SUPPRESS
    add_model(parser)
    for name, help_text in (
        ("dataset", "folder with one folder for each class; each image is a query to the others"),
        ("queries", "folder of the query images, one folder for each class"),
        ("gallery", "folder of the images to search, one folder for each class"),
        ("triplets", "triplet file to evaluate on instead, such as one that people labelled"),
    ):
        metavar = "FILE" if name == "triplets" else "DIR"
        parser.add_argument(
            f"--{name}", type=Path, default=suppress, metavar=metavar, help=help_text
        )
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
    parser.add_argument(
        "--json", type=Path, default=suppress, metavar="FILE", help="write everything as JSON"
    )
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
        write_json(args.json, without_nan(result))


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
        found = evaluate_triplets(images, triplets.rows, seed=args.seed)
    print(f"{counted(found.num_triplets, 'triplet')} of {counted(len(paths), 'image')}.")
    print(f"similarity precision  {format_interval(found.similarity_precision)}")
    print(f"score at top 30       {found.score_at_top_30:,}")
    return {
        "triplets": found.num_triplets,
        "similarity_precision": found.similarity_precision._asdict(),
        "score_at_top_30": found.score_at_top_30,
    }


def _evaluate_classes(args: argparse.Namespace, folders: list[str]) -> dict[str, Any]:
    listings = [find_images(getattr(args, name)) for name in folders]
    paths = [[str(listing.root / path) for path in listing.paths] for listing in listings]
    labels = [np.array(listing.classes)[listing.labels] for listing in listings]
    start_tensorflow()
    from deep_ranking.metrics.evaluation import (
        EmbeddedImages,
        compare_evaluations,
        draw_triplets,
        evaluate,
        means_by_class,
    )
    from deep_ranking.model.file import load_model

    draw_triplets(labels[0], *labels[1:])  # refuses a single class before the long work
    model = load_model(args.model)
    evaluations: dict[str, Evaluation] = {}
    for name, embed in _embedders(model, args).items():
        with ExitStack() as held:
            sets = [
                EmbeddedImages(images, of, held.enter_context(embed(images)))
                for images, of in zip(paths, labels, strict=True)
            ]
            evaluations[name] = evaluate(*sets, seed=args.seed)
    queries, classes = counted(len(paths[0]), "query"), counted(len(listings[0].classes), "class")
    searched = counted(len(paths[-1]), "image")
    rest = "each searched for among the others" if len(sets) == 1 else f"searched for in {searched}"
    print(f"{queries} of {classes}, {rest}; means with 95 % bootstrap intervals over queries.\n")
    by_class = means_by_class(evaluations[MODEL], labels[0])
    extremes = extreme_queries(evaluations[MODEL], paths[0], NUM_QUERIES_SHOWN)
    print_methods(evaluations)
    print_classes(by_class)
    print_queries(extremes)
    result = {
        "methods": {
            name: {
                "metrics": {key: value._asdict() for key, value in each.intervals.items()},
                "intervals": {key: value._asdict() for key, value in each.whole_intervals.items()},
                **each.whole,
            }
            for name, each in evaluations.items()
        },
        "classes": by_class,
        "queries": extremes,
    }
    if args.baselines:
        backbones = [each for name, each in evaluations.items() if name.startswith(BACKBONE)]
        best = max(backbones, key=lambda each: each.intervals[VERDICT_METRIC].mean)
        gain = compare_evaluations(evaluations[MODEL], best, VERDICT_METRIC, seed=args.seed)
        result["gain_over_backbone"] = {VERDICT_METRIC: gain._asdict()}
        print(f"\n{describe_gain(gain, VERDICT_METRIC)}")
    return result


def _embedders(model: "keras.Model", args: argparse.Namespace) -> dict[str, Embedder]:
    """Return for each method a function from image paths to embeddings, open for a `with` block."""
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.images.hand_made_features import BASELINES, baseline_features
    from deep_ranking.model.network import untrained_backbone

    def of_network(network: "keras.Model") -> Embedder:
        return lambda paths: embedded_images(network, paths)

    def of_baseline(name: str) -> Embedder:
        return lambda paths: nullcontext(baseline_features(name, paths, progress=True))

    embedders = {MODEL: of_network(model)}
    if args.baselines:
        weights = None if args.weights == "none" else args.weights
        config = model.network_config
        embedders[BACKBONE] = of_network(untrained_backbone(config, weights))
        size = config.seen_size
        if size != config.image_size:
            enlarged = untrained_backbone(config, weights, enlarged=True)
            embedders[f"{BACKBONE}, {size} px"] = of_network(enlarged)
        embedders |= {name: of_baseline(name) for name in BASELINES}
    return embedders
