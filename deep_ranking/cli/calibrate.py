"""`calibrate`: a model and labelled images -> probabilities, stored in the model file."""

import argparse
from collections.abc import Sequence

from deep_ranking.cli.arguments import (
    add_dataset,
    add_folder_arguments,
    add_model,
    add_seed,
    check_files_exist,
    positive_int,
    read_dataset,
)
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.datasets.splits import TO_CALIBRATE
from deep_ranking.files.installed import check_installed

DESCRIPTION = (
    "Learn from pairs of images what a model's distances mean, and store it in the model file: "
    "compare.py then prints a probability. Use classes that the model was not trained on."
)

EXAMPLES = (
    (
        "Learn from classes held back from training",
        "python -m deep_ranking calibrate --model m.h5 --dataset unseen",
    ),
    (
        "Measure more pairs, for a smoother curve",
        "python -m deep_ranking calibrate -m m.h5 --dataset unseen --num_pairs 99999",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("model and images")
    add_model(group, "model file of train.py; the calibration is stored in it")
    add_dataset(group)
    add_folder_arguments(parser, takes_split=True)
    group = parser.add_argument_group("pairs")
    group.add_argument(
        "--num_pairs",
        type=positive_int,
        default=20_000,
        metavar="N",
        help="at most so many pairs of each kind, same and different",
    )
    add_seed(group, "seed of the draw of pairs")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed the images, measure pairs, fit the calibration and store it."""
    args = parser.parse_args(argv)
    refuse_flags_without_effect(parser, argv, rules_of("calibrate", args))
    check_files_exist(args, "model")
    check_installed(parser.prog, "sklearn")
    data = read_dataset(args, args.dataset, TO_CALIBRATE)
    quieten_tensorflow()
    from deep_ranking.embedding.calibrating import calibrate

    print(calibrate(args.model, data, num_pairs=args.num_pairs, seed=args.seed))
