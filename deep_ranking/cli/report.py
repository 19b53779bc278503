"""`report`: one HTML file that shows how good a model is, and what is odd in the images."""

import argparse
from collections.abc import Sequence

from deep_ranking.cli.arguments import (
    add_dataset,
    add_folder_arguments,
    add_model,
    add_output,
    add_path,
    add_seed,
    check_files_exist,
    read_dataset,
)
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.cli.output import check_output_file
from deep_ranking.datasets.splits import TO_JUDGE
from deep_ranking.files.installed import check_installed

DESCRIPTION = (
    "Write one HTML file about a model on images of known classes: metrics, pictures, likely wrong "
    "labels and near-duplicates. The file is self-contained: opening it loads nothing else."
)

EXAMPLES = (
    (
        "Write a page about classes that training did not see",
        "python -m deep_ranking report -m m.h5 --dataset unseen -o unseen.html",
    ),
    (
        "Give it a heading of your own",
        "python -m deep_ranking report -m m.h5 --dataset bags -o r.html --title Bags",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("model and images")
    add_model(group)
    add_dataset(group, "; best with classes not trained on")
    add_path(
        group,
        "--history",
        metavar="FILE",
        help_text="history.csv of the training run (default: the one in NAME.run beside the model)",
    )
    add_folder_arguments(parser, takes_split=True)
    group = parser.add_argument_group("output")
    add_output(group, "FILE", "file to write, such as report.html")
    help_text = "heading (default: model and data set)"
    group.add_argument("--title", metavar="TEXT", help=help_text)
    add_seed(group)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed, evaluate, find oddities and write the page."""
    args = parser.parse_args(argv)
    refuse_flags_without_effect(parser, argv, rules_of("report", args))
    check_files_exist(args, "model", "history")
    check_output_file(args.output, "--output")
    check_installed(parser.prog, "tensorflow", "keras", "sklearn", "matplotlib")
    data = read_dataset(args, args.dataset, TO_JUDGE)
    quieten_tensorflow()
    from deep_ranking.reports.reporting import report

    print(
        report(
            args.model,
            data,
            args.output,
            history=args.history,
            title=args.title,
            seed=args.seed,
        )
    )
