"""`doctor`: find what is wrong with a data set, and estimate what training on it takes."""

import argparse
import json
from collections.abc import Sequence

from deep_ranking.cli.arguments import (
    add_config_arguments,
    add_dataset,
    add_model,
    add_path,
    check_files_exist,
    config_from,
)
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.cli.output import check_output_file, write_page
from deep_ranking.cli.train import set_recipe_as_defaults, train_config
from deep_ranking.config import (
    RELEVANCE,
    STRATEGIES,
    DataConfig,
    DrawnTripletsConfig,
    FolderConfig,
    NetworkConfig,
    SamplingConfig,
    ScheduleConfig,
    TrainConfig,
    ValidationConfig,
)
from deep_ranking.config.recipes import EPOCH_RECIPES
from deep_ranking.files import InputError
from deep_ranking.files.installed import check_installed

DESCRIPTION = (
    "Find what is wrong with a data set before you train on it: broken images, classes of one "
    "image, copies and near-copies inside and across classes and splits, imbalance, odd sizes and "
    "colour modes, likely mislabels. Also estimate the time and memory that training with these "
    "flags takes on this machine. Flags of the sampler and of train.py mean the same as there. The "
    "exit code is 1 if training would fail."
)

# The flags of train.py that decide which images it reads, and how much time and memory it takes.
FOLDERS = ("label", "classes", "corrections", "splits", "split", "by_content")
DATA = (
    "batches",
    "batch_size",
    "images_per_class",
    "max_images_per_class",
    "steps_per_epoch",
    "skip_broken",
    "cache_features",
    "cached_views",
)
SAMPLING = ("num_pos_images", "num_neg_images", "strategy", "num_neighbours", "balance")
SCHEDULE = ("train_from", "epochs", "optimizer")
VALIDATION = ("validation_dataset", "validation_share", "validation_split")
EXAMPLES = (
    (
        "Check a folder of classes, and look at the findings",
        "python -m deep_ranking doctor --dataset photos --html doctor.html",
    ),
    (
        "Estimate what training takes, by the settings of a recipe",
        "python -m deep_ranking doctor --dataset photos --recipe laptop",
    ),
)
BASIC_FLAGS = (
    "model",
    "json",
    "html",
    "estimate",
    "recipe",
    "batch_size",
    "epochs",
    "validation_dataset",
    "validation_share",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, and the flags of sampler and training that it respects."""
    group = parser.add_argument_group("images and checks")
    add_dataset(
        group,
        "; or with train, val, unseen ... of such folders, which are compared with each other",
    )
    add_model(
        group,
        "model file of train.py, to find images that are likely mislabelled; this embeds all "
        "images, which is the slowest check",
        required=False,
    )
    group.add_argument("--json", action="store_true", help="print everything as JSON")
    help_text = "write an HTML page with thumbnails of the findings"
    add_path(group, "--html", metavar="FILE", help_text=help_text)
    group = parser.add_argument_group("training that is planned")
    group.add_argument(
        "--estimate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="build the network and time a few steps, to estimate the time and memory of training",
    )
    help_text = "use the settings of train.py --recipe"
    group.add_argument("--recipe", choices=EPOCH_RECIPES, help=help_text)
    for config, title, names in (
        (FolderConfig, "classes of the images", FOLDERS),
        (SamplingConfig, "triplets, as in the sampler", SAMPLING),
        (DrawnTripletsConfig, "folders of in-class triplets", ("level",)),
        (DataConfig, "training: data", DATA),
        (ScheduleConfig, "training: schedule", SCHEDULE),
        (ValidationConfig, "training: validation", VALIDATION),
        (TrainConfig, "training: run", ("precision",)),
    ):
        add_config_arguments(parser, config, title, only=names)
    add_config_arguments(parser, NetworkConfig, "training: network")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Examine, print and write; raise an error at the end if training would fail."""
    args = parser.parse_args(argv)
    if not args.dataset.is_dir():
        raise InputError(f"{args.dataset}: no such folder; check --dataset")
    check_files_exist(args, "model")
    if args.html:
        check_output_file(args.html, "--html")
    if args.estimate:
        otherwise = "give --no-estimate"
        check_installed("the estimate of training", "tensorflow", "keras", otherwise=otherwise)
    from deep_ranking.reports.doctor import diagnose

    if args.recipe:
        set_recipe_as_defaults(parser, EPOCH_RECIPES[args.recipe], argv)
        args = parser.parse_args(argv)
    config, sampling = _settings(parser, args)
    refuse_flags_without_effect(parser, argv, rules_of("doctor", args), recipe=args.recipe)
    level = sampling.category_level(args.level)
    data = config_from(args, FolderConfig).read(args.dataset, level=level)
    quieten_tensorflow()
    examination = diagnose(
        data,
        config,
        sampling=sampling,
        model=args.model,
        estimate=args.estimate,
        progress=True,
    )
    if args.json:
        print(json.dumps(examination.as_json(), indent=2, allow_nan=False))
    else:
        print("\n".join([*data.describe(), examination.text()]))
    if args.html:
        from deep_ranking.reports.doctor.page import doctor_page

        write_page(args.html, doctor_page(examination), silent=args.json)
    result = examination.conclusion
    if examination.fails:
        raise InputError(f"{args.dataset}: {result}")
    if not args.json:
        print(f"{result[0].upper()}{result[1:]}.")


def _settings(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> tuple[TrainConfig, SamplingConfig]:
    """Return the planned run, and how triplets are drawn: by the run, or for a file before it."""
    if args.strategy == RELEVANCE:
        others = ", ".join(each for each in STRATEGIES if each != RELEVANCE)
        parser.error(f"--strategy: the doctor counts triplets of {others}. Received: {RELEVANCE}")
    try:
        sampling = config_from(args, SamplingConfig)
    except InputError as error:
        parser.error(str(error))
    args.augment = True
    if sampling.strategy is None:  # the sampler draws a file first; training has no such flags
        not_trained = SAMPLING + FOLDERS if args.batches == "triplets" else SAMPLING
        given = {name: getattr(args, name) for name in vars(args) if name not in not_trained}
        args = argparse.Namespace(**given)
    return train_config(parser, args), sampling
