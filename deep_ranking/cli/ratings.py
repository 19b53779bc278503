"""`ratings`: what people answered, how far it can be trusted, and triplets of it."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deep_ranking.cli.arguments import add_model, add_path, check_files_exist
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.cli.output import check_output_file

DESCRIPTION = (
    'Print what people answered to "which of two images is more like a third?": how many answers, '
    "how steady each rater is, how far raters agree, and how far a model agrees with them. Write "
    "the answers as triplets to train on, or add the triplets of others."
)
EXAMPLES = (
    (
        "Does the model see what people see?",
        "python -m deep_ranking ratings answers.csv -m m.h5 --dataset photos",
    ),
    (
        "Write triplets for train.py --triplets",
        "python -m deep_ranking ratings answers.csv --dataset photos --export t.txt",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("ratings and their images")
    group.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="ratings file; several are read as one"
    )
    add_path(
        group,
        "--dataset",
        metavar="DIR",
        help_text="folder that the paths in the ratings start from; --model, --export and the "
        "triplets of --import need it",
    )
    group = parser.add_argument_group("a model beside the raters")
    add_model(group, "model whose agreement with the answers to print", required=False)
    add_path(
        group,
        "--index",
        metavar="INDEX",
        help_text="take the embeddings of this index instead, and read no image",
    )
    group = parser.add_argument_group("triplets")
    add_path(
        group,
        "--export",
        metavar="TRIPLETS",
        help_text="triplet file to write: what most raters answered to each question",
    )
    add_path(
        group,
        "--import",
        metavar="TRIPLETS",
        help_text="first add the answers of this file to FILE, which is made if it is missing: "
        "lines of query,positive,negative, or a ratings file",
    )
    group.add_argument(
        "--rater", metavar="NAME", help="who gave the answers of --import; triplets need it"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print everything as JSON")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Import, summarize, compare with the model, export, and print."""
    args = parser.parse_args(argv)
    source: Path | None = getattr(args, "import")
    if args.model and args.index:
        parser.error("give --model or --index, not both")
    for flag in ("model", "export"):
        if getattr(args, flag) and not args.dataset:
            parser.error(f"--{flag} needs --dataset, the folder that the ratings' paths start from")
    if source and len(args.files) > 1:
        parser.error("--import needs one FILE to add to")
    refuse_flags_without_effect(parser, argv, rules_of("ratings", args))
    check_files_exist(args, "model", "index", "dataset")
    if args.export:
        check_output_file(args.export, "--export")
    quieten_tensorflow()
    from deep_ranking.datasets.ratings import read_ratings
    from deep_ranking.reports.ratings.model_on_ratings import index_on_ratings, model_on_ratings
    from deep_ranking.reports.ratings.summary import summarize_ratings
    from deep_ranking.sampling.rated_triplets import export_ratings, import_ratings

    report: dict[str, Any] = {}
    said: list[str] = []
    if source:
        added = import_ratings(source, args.files[0], rater=args.rater, dataset_dir=args.dataset)
        report["imported"] = added.as_json()
        said.append(str(added))
    ratings = read_ratings(*args.files)
    summary = summarize_ratings(ratings)
    report |= summary.as_json()
    text = str(summary)
    if args.model or args.index:
        if args.index:
            found = index_on_ratings(ratings, args.index)
        else:
            found = model_on_ratings(ratings, args.model, args.dataset)
        report["model"] = found.as_json()
        text = summary.beside(found)
    said.append(text)
    if args.export:
        written = export_ratings(ratings, args.dataset, args.export)
        report["exported"] = written.as_json()
        said.append(str(written))
    print(json.dumps(report, indent=2, allow_nan=False) if args.json else "\n".join(said))
