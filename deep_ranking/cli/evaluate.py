"""`evaluate`: how good a model is, and whether it is better than no training."""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import (
    add_folder_arguments,
    add_model,
    add_path,
    add_seed,
    check_files_exist,
    read_dataset,
)
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.cli.output import check_output_file, write_json
from deep_ranking.cli.smoothing import add_smoothing
from deep_ranking.datasets.splits import TO_JUDGE
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.embedding.embedder import compiled_embedder
from deep_ranking.files.installed import check_installed
from deep_ranking.search.collection.settings import DEFAULT_NEIGHBOURS, DEFAULT_POWER

if TYPE_CHECKING:
    from deep_ranking.reports.evaluating import Evaluation
    from deep_ranking.reports.evaluating_triplets import TripletEvaluation

DESCRIPTION = (
    "Evaluate a model on images of known classes, or on given triplets: print a table with 95 % "
    "bootstrap intervals. Use classes that the model was not trained on."
)
BASIC_FLAGS = (
    "model",
    "dataset",
    "queries",
    "gallery",
    "triplets",
    "label",
    "split",
    "baselines",
    "smooth",
    "rerank",
    "json",
    "corrections",
    "atlas",
)
EXAMPLES = (
    (
        "Was training worth it, on classes never seen?",
        "python -m deep_ranking evaluate -m m.h5 --dataset unseen --baselines",
    ),
    (
        "At which rank is the right item of the shop?",
        "python -m deep_ranking evaluate -m m.h5 --queries street --gallery shop",
    ),
)


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
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="evaluate the model as compiled in float32 or int8 (default: the most exact one "
        "that there is)",
    )
    add_folder_arguments(parser, takes_split=True)
    group = parser.add_argument_group("baselines")
    group.add_argument(
        "--baselines",
        action="store_true",
        help="also evaluate features without training, and print whether training was worth it; "
        "what was computed is kept, so a run that was stopped goes on from there",
    )
    group.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|PATH",
        help="weights of the untrained backbone, one of the --baselines",
    )
    group = parser.add_argument_group("modes of search")
    add_smoothing(
        group,
        const=DEFAULT_NEIGHBOURS,
        help_text="also measure searches in rows that are smoothed, each the weighted mean of its "
        f"K nearest, itself among them (K: {DEFAULT_NEIGHBOURS} if it is not given)",
    )
    group.add_argument(
        "--rerank",
        action="store_true",
        help="also measure searches that are ranked again, as by search --rerank; with --smooth, "
        "those of smoothed rows",
    )
    group = parser.add_argument_group("output")
    add_path(group, "--json", metavar="FILE", help_text="write everything as JSON")
    add_path(
        group,
        "--atlas",
        metavar="DIR",
        help_text="write where the model errs on --dataset: a page, likely wrong labels in "
        "suspects.csv, which a person looks through for --corrections, and hard_triplets.txt",
    )
    add_path(
        group,
        "--before",
        metavar="ATLAS",
        help_text="an earlier --atlas of these images: say which of its errors are gone",
    )
    add_seed(group)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed, evaluate and print."""
    args = parser.parse_args(argv)
    given = [name for name in ("dataset", "queries", "gallery", "triplets") if getattr(args, name)]
    if given not in (["dataset"], ["queries", "gallery"], ["triplets"]):
        parser.error("give --dataset, or --queries and --gallery, or --triplets")
    if args.baselines and given == ["triplets"]:
        parser.error("--baselines needs classes: give --dataset, or --queries and --gallery")
    refuse_flags_without_effect(parser, argv, rules_of("evaluate", args))
    check_files_exist(args, "model")
    if args.json:
        check_output_file(args.json, "--json")
    if args.atlas:
        _check_atlas(args)
    model = compiled_embedder(args.model, args.precision) if args.precision else args.model
    if args.baselines:
        otherwise = "leave out --baselines"
        check_installed("--baselines", "tensorflow", "keras", "skimage", otherwise=otherwise)
    quieten_tensorflow()
    from deep_ranking.reports.evaluating import evaluate
    from deep_ranking.reports.evaluating_triplets import evaluate_on_triplets

    found: Evaluation | TripletEvaluation
    if given == ["triplets"]:
        found = evaluate_on_triplets(model, args.triplets, seed=args.seed)
    else:
        data, *gallery = [
            read_dataset(args, folder, TO_JUDGE, with_files=folder is not args.gallery)
            for folder in (args.dataset or args.queries, args.gallery)
            if folder is not None
        ]
        found = evaluate(
            model,
            data,
            gallery=gallery[0] if gallery else None,
            baselines=args.baselines,
            smooth=args.smooth or 0,
            smooth_power=args.smooth_power or DEFAULT_POWER,
            rerank=args.rerank,
            weights=None if args.weights == "none" else args.weights,
            seed=args.seed,
            progress=partial(print, flush=True) if args.baselines else None,
        )
        if args.baselines:
            print()
    print(found)
    if args.json:
        write_json(args.json, found.as_json())
    if args.atlas:
        from deep_ranking.reports.atlas.making import make_atlas

        options = {"corrections": args.corrections, "before": args.before}
        print()
        print(make_atlas(model, data, args.atlas, **options))


def _check_atlas(args: argparse.Namespace) -> None:
    """Refuse an atlas that cannot be written or compared, before the long work."""
    from deep_ranking.reports.atlas.changes import read_atlas
    from deep_ranking.reports.atlas.making import new_atlas_folder

    check_files_exist(args, "before")
    if args.before:
        read_atlas(args.before)
    new_atlas_folder(args.atlas)
