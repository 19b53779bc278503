"""`evaluate`: how good a model is, and whether it is better than no training."""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from deep_ranking.cli.arguments import add_model, add_path, add_seed, check_files_exist
from deep_ranking.cli.conflicts import evaluate_rules, refuse_flags_without_effect
from deep_ranking.cli.library_messages import open_model
from deep_ranking.cli.output import write_json
from deep_ranking.files.words import counted
from deep_ranking.images import find_images
from deep_ranking.metrics import Interval
from deep_ranking.metrics.evaluation import (
    EmbeddedImages,
    Evaluation,
    evaluate_triplets,
)
from deep_ranking.sampling.triplet_file import read_triplets, resolve_paths

DESCRIPTION = (
    "Evaluate a model on images of known classes, or on given triplets: print a table with 95 % "
    "bootstrap intervals. Use classes that the model was not trained on."
)
NUM_CLASSES_SHOWN = 10
EXAMPLES = (
    (
        "Was training worth it, on classes never seen?",
        "python -m deep_ranking evaluate -m m.h5 --dataset unseen --baselines",
    ),
    (
        "Search for the images of one folder in another",
        "python -m deep_ranking evaluate -m m.h5 --queries street --gallery shop",
    ),
)
WHOLE = ("nmi", "roc_auc", "equal_error_rate", "equal_error_threshold", "score_at_top_30")
CLASS_COLUMNS = ("similarity_precision", "recall_at_1", "map_at_r")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("model and images")
    add_model(group)
    for name, help_text in (
        ("dataset", "folder with one folder for each class; each image is a query to the others"),
        ("queries", "folder of the query images, one folder for each class"),
        ("gallery", "folder of the images to search, one folder for each class"),
        ("triplets", "triplet file to evaluate on instead, such as one that people labelled"),
    ):
        metavar = "FILE" if name == "triplets" else "DIR"
        add_path(group, f"--{name}", metavar=metavar, help_text=help_text)
    group = parser.add_argument_group("baselines")
    group.add_argument(
        "--baselines",
        action="store_true",
        help="also evaluate features without training, and print whether training was worth it",
    )
    group.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|PATH",
        help="weights of the untrained backbone, one of the --baselines",
    )
    group = parser.add_argument_group("output")
    add_path(group, "--json", metavar="FILE", help_text="write everything as JSON")
    add_seed(group)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed, evaluate and print."""
    args = parser.parse_args(argv)
    given = [name for name in ("dataset", "queries", "gallery", "triplets") if getattr(args, name)]
    if given not in (["dataset"], ["queries", "gallery"], ["triplets"]):
        parser.error("give --dataset, or --queries and --gallery, or --triplets")
    if args.baselines and given == ["triplets"]:
        parser.error("--baselines needs classes: give --dataset, or --queries and --gallery")
    refuse_flags_without_effect(parser, argv, evaluate_rules(args))
    check_files_exist(args, "model")
    result = _evaluate_triplets(args) if given == ["triplets"] else _evaluate_classes(args, given)
    if args.json:
        write_json(args.json, result)


def _evaluate_triplets(args: argparse.Namespace) -> dict[str, Any]:
    triplets = read_triplets(args.triplets)
    paths = resolve_paths(triplets, None)
    model = open_model(args.model)
    from deep_ranking.embedding.embed import embedded_images

    with embedded_images(model, paths) as embeddings:
        images = EmbeddedImages(paths, np.full(len(paths), ""), embeddings)
        precision, score = evaluate_triplets(images, triplets.rows, seed=args.seed)
    print(f"{counted(len(triplets), 'triplet')} of {counted(len(paths), 'image')}.")
    print(f"similarity precision  {_format_interval(precision)}")
    print(f"score at top 30       {score:,}")
    return {
        "triplets": len(triplets),
        "similarity_precision": precision._asdict(),
        "score_at_top_30": score,
    }


def _evaluate_classes(args: argparse.Namespace, folders: list[str]) -> dict[str, Any]:
    listings = [find_images(getattr(args, name)) for name in folders]
    model = open_model(args.model)
    from deep_ranking.reports.evaluating import GAIN_METRIC, evaluate_model

    weights = None if args.weights == "none" else args.weights
    found = evaluate_model(
        model, listings, baselines=args.baselines, weights=weights, seed=args.seed
    )
    queries = counted(len(listings[0].paths), "query")
    classes = counted(len(listings[0].classes), "class")
    rest = "each searched for among the others"
    if len(listings) > 1:
        rest = f"searched for in {counted(len(listings[1].paths), 'image')}"
    print(f"{queries} of {classes}, {rest}; means with 95 % bootstrap intervals over queries.\n")
    _print_methods(found.methods)
    _print_classes(found.classes)
    _print_queries(found.queries)
    if found.gain is not None:
        print(f"\n{describe_gain(found.gain, GAIN_METRIC)}")
    return found.as_json()


def _format_interval(interval: Interval) -> str:
    """Return a mean and its interval: "0.634 [0.622, 0.646]"."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _print_methods(evaluations: dict[str, Evaluation]) -> None:
    """Print one column for each method and one row for each metric."""
    print(" " * 24 + "".join(f"{name:>24s}" for name in evaluations))
    first = next(iter(evaluations.values()))
    for metric in (*first.intervals, *WHOLE):
        cells = (_format_metric(each, metric) for each in evaluations.values())
        print(f"{metric:24s}" + "".join(f"{cell:>24s}" for cell in cells))
    print(f"({first.whole['triplets']:,} triplets drawn; thresholds are distances)")


def _format_metric(evaluation: Evaluation, metric: str) -> str:
    if metric in evaluation.intervals:
        return _format_interval(evaluation.intervals[metric])
    value, interval = evaluation.whole[metric], evaluation.whole_intervals.get(metric)
    if interval is None:
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,} [{interval.low:,.0f}, {interval.high:,.0f}]"
    return _format_interval(interval)


def _print_classes(by_class: dict[str, dict[str, float]]) -> None:
    """Print the worst classes by mAP@R."""
    ordered = sorted(
        by_class.items(), key=lambda item: np.nan_to_num(item[1]["map_at_r"], nan=np.inf)
    )
    shown = ordered[:NUM_CLASSES_SHOWN]
    print(f"\nWorst {len(shown)} of {len(by_class)} classes")
    width = max(len(name) for name, _ in shown)
    print(" " * width + "".join(f"{column:>22s}" for column in ("queries", *CLASS_COLUMNS)))
    for name, values in shown:
        cells = "".join(f"{values[column]:22.3f}" for column in CLASS_COLUMNS)
        print(f"{name:{width}s}{values['queries']:22,.0f}{cells}")


def _print_queries(extremes: dict[str, list[dict[str, Any]]]) -> None:
    """Print the worst and the best queries."""
    for kind, queries in extremes.items():
        print(f"\n{kind.capitalize()} queries (average precision)")
        for query in queries:
            print(f"  {query['average_precision']:.3f}  {query['path']}")


def describe_gain(gain: Interval, metric: str) -> str:
    """Return whether training was worth it: `gain` is the model's lead over the backbone."""
    if gain.low > 0:
        said = "Training was worth it"
    elif gain.high < 0:
        said = "Training was not worth it: the untrained backbone is better"
    else:
        said = "Whether training was worth it cannot be told from these images"
    return f"{said} ({metric} {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])."
