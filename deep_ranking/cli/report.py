"""`report`: one HTML file that shows how good a model is, and what is odd in the images."""

import argparse
from collections.abc import Sequence

import numpy as np

from deep_ranking.cli.arguments import (
    add_dataset,
    add_model,
    add_output,
    add_path,
    add_seed,
    check_files_exist,
)
from deep_ranking.cli.library_messages import open_model
from deep_ranking.cli.output import check_output_file
from deep_ranking.datasets import class_folders
from deep_ranking.files.words import counted
from deep_ranking.metrics.evaluation import EmbeddedImages, draw_triplets, evaluate

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
    group = parser.add_argument_group("output")
    add_output(group, "FILE", "file to write, such as report.html")
    help_text = "heading (default: model and data set)"
    group.add_argument("--title", metavar="TEXT", help=help_text)
    add_seed(group)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed, evaluate, find oddities and write the page."""
    args = parser.parse_args(argv)
    check_files_exist(args, "model")
    check_output_file(args.output, "--output")
    data = class_folders(args.dataset)
    paths, labels = data.files(), np.array(data.items.names)[data.items.codes]
    from deep_ranking.training.history import read_history

    file = args.history or args.model.with_suffix(".run") / "history.csv"
    history = read_history(file) if args.history or file.exists() else []
    draw_triplets(labels)  # refuses a single class before the long work
    model = open_model(args.model)
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.reports.page import write_report

    with embedded_images(model, paths) as embeddings:
        images = EmbeddedImages(paths, labels, embeddings)
        found = write_report(
            args.output,
            evaluate(images, seed=args.seed),
            images,
            title=args.title or f"{args.model.name} on {args.dataset}",
            history=history,
            seed=args.seed,
        )
    print(
        f"{counted(len(paths), 'image')} of {counted(data.items.num_names, 'class')}: "
        f"{len(found.suspects)} likely mislabelled, "
        f"{counted(len(found.duplicates), 'near-duplicate')} across classes (30 of each at most)."
    )
    print(f"Report in {args.output}, {args.output.stat().st_size / 2**20:.1f} MiB.")
