"""`train`: a triplet file or class folders -> a model file and a run folder."""

import argparse
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from deep_ranking.cli.arguments import add_config_arguments, add_folder_arguments, config_from
from deep_ranking.cli.compile import compile_trained
from deep_ranking.cli.conflicts import given_flags, refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.cli.signals import resume_hint
from deep_ranking.cli.taught import add_taught_arguments, run_taught, taught_rules
from deep_ranking.config import (
    DataConfig,
    DrawnTripletsConfig,
    LossConfig,
    NetworkConfig,
    SamplingConfig,
    ScheduleConfig,
    TrainConfig,
    ValidationConfig,
)
from deep_ranking.config.recipes import RECIPES, TAUGHT, Recipe
from deep_ranking.files import InputError
from deep_ranking.images.augmentation import Augmentation

DESCRIPTION = (
    "Train a network on a triplet file or on folders of classes, and write it as an .h5 file. "
    "Settings, history and checkpoint go to the folder NAME.run beside it."
)

EXAMPLES = (
    (
        "Train on a folder of classes, in minutes",
        "python train.py --recipe laptop --dataset photos --output m.h5",
    ),
    (
        "Train on a triplet file, as in the article",
        "python train.py --recipe blog --triplets triplets.txt --output m.h5",
    ),
)
BASIC_FLAGS = (
    "recipe",
    "dataset",
    "triplets",
    "output",
    "epochs",
    "batch_size",
    "learning_rate",
    "train_from",
    "validation_dataset",
    "validation_share",
    "patience",
    "resume",
    "overwrite",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags: the recipe, all settings, and what to do with an earlier run."""
    group = parser.add_argument_group("recipe")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        help="settings that belong together: laptop for a folder of classes; --help-all describes "
        "the others. Other flags override single settings",
    )
    add_taught_arguments(parser)
    parser.epilog = "\n".join(["Recipes:", *_recipe_lines()])
    add_folder_arguments(parser, takes_split=True)
    groups = {}
    for config, title in (
        (DataConfig, "data"),
        (SamplingConfig, "triplets drawn from the folders of --dataset, by --strategy"),
        (DrawnTripletsConfig, "categories, relevance and neighbours of a strategy"),
        (LossConfig, "loss"),
        (ScheduleConfig, "schedule"),
        (ValidationConfig, "validation"),
        (TrainConfig, "run"),
    ):
        groups[config] = add_config_arguments(parser, config, title)
    add_config_arguments(parser, NetworkConfig, "network")
    group = add_config_arguments(parser, Augmentation, "augmentation")
    group.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="change each image at random, as the other flags of this group say",
    )
    groups[TrainConfig].add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile the model at the end, so that compare, search and index start at once",
    )
    choice = groups[TrainConfig].add_mutually_exclusive_group()
    choice.add_argument(
        "--resume",
        action="store_true",
        default=None,
        help="resume an earlier run of the same name; flags not given keep its values, and a "
        "--recipe must be the run's own",
    )
    choice.add_argument(
        "--overwrite",
        action="store_true",
        default=None,
        help="replace an earlier run of the same name",
    )


def _recipe_lines() -> Iterator[str]:
    """Yield a line about each recipe, and about what takes its place with other flags."""
    for name, recipe in RECIPES.items():
        titles = {name: recipe}
        titles |= {f"{name} with --{flag}": each for flag, each in recipe.with_flags.items()}
        for title, each in titles.items():
            yield (
                f"- {title}: {each.summary}. Takes {each.takes}; {each.gives}. Run: python "
                f"{each.command}"
            )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Train, and print where the model is."""
    args = parser.parse_args(argv)
    if args.recipe == TAUGHT.name:
        rules = taught_rules(given_flags(parser, argv), args)
        refuse_flags_without_effect(parser, argv, rules)
        run_taught(parser, args)
        return
    resume = bool(args.resume)
    settings_path = args.output.parent / f"{args.output.stem}.run" / "config.json"
    resumed = resume and settings_path.exists()
    if resumed:
        from deep_ranking.training.resuming import not_settings, read_settings

        settings = read_settings(settings_path)
        parser.set_defaults(**{name: each for name, each in settings.items() if each is not None})
        if args.recipe:
            recipe = RECIPES[args.recipe].on(settings)
            _check_recipe_of_run(parser, recipe, settings, given_flags(parser, argv))
    elif resume:
        print(f"Nothing to resume in {settings_path.parent}: starting.")
    if not resumed and args.recipe:
        print(set_recipe_as_defaults(parser, RECIPES[args.recipe], argv))
    try:
        args = parser.parse_args(argv)
        config = train_config(parser, args)
    except (TypeError, AttributeError):
        if not resumed:
            raise
        raise not_settings(settings_path) from None
    refuse_flags_without_effect(parser, argv, rules_of("train", args), recipe=args.recipe)

    start_tensorflow()
    from deep_ranking.training.run import train

    start = time.monotonic()
    with resume_hint(f"go on by train.py --output {config.output} --resume"):
        train(config, resume=resume, overwrite=bool(args.overwrite))
    cluster = config.cluster
    if cluster is not None and cluster.index:
        print(f"The model is on {cluster.name(0)}.")
        return
    if args.compile:
        compile_trained(config.output)
    print(
        f"Model in {config.output}, history and best model in {config.run_dir}, "
        f"{time.monotonic() - start:.0f} seconds."
    )


def _check_recipe_of_run(
    parser: argparse.ArgumentParser,
    recipe: Recipe,
    settings: Mapping[str, Any],
    given: Container[str],
) -> None:
    """Refuse a recipe that an earlier run did not begin with: it would change nothing."""
    from deep_ranking.training.resuming import FREE_TO_CHANGE

    for name, value in recipe.settings.items():
        known = name in settings and name not in FREE_TO_CHANGE and f"--{name}" not in given
        if known and settings[name] != value:
            parser.error(
                f"--recipe {recipe.name} has no effect with --resume: the run began with {name} "
                f"{settings[name]}, and the recipe has {value}; leave it out, or start anew by "
                "--overwrite"
            )


def train_config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> TrainConfig:
    """Return the config of a run from parsed flags, or end with a usage error."""
    if args.weights == "none":
        args.weights = None
    try:
        network = config_from(args, NetworkConfig)
        sampling = config_from(args, SamplingConfig)
        augmentation = config_from(args, Augmentation) if args.augment else None
        return config_from(
            args, TrainConfig, network=network, augmentation=augmentation, sampling=sampling
        )
    except InputError as error:
        parser.error(str(error))


def set_recipe_as_defaults(
    parser: argparse.ArgumentParser, recipe: Recipe, argv: Sequence[str] | None
) -> str:
    """Make the settings of a recipe the defaults of the flags; return what to print about it."""
    usual = {
        "image_size": parser.get_default("image_size"),
        "backbone_size": None,
        "backbone": parser.get_default("backbone"),
    }
    parser.set_defaults(**dict.fromkeys(usual))
    recipe = recipe.on(vars(parser.parse_args(argv)))
    parser.set_defaults(**recipe.settings)
    args = parser.parse_args(argv)
    text = f"Recipe {recipe.name}: {recipe.summary}. Takes {recipe.takes}; {recipe.gives}."
    sizes = recipe.sizes(args.dataset, args.image_size)
    if sizes:
        usual |= sizes
        text += (
            f"\nThe network sees images at {usual['image_size']} pixels, enlarged to "
            f"{args.backbone_size or usual['backbone_size']} for the backbone; --image_size and "
            "--backbone_size change this."
        )
    missing = {name: value for name, value in usual.items() if getattr(args, name) is None}
    parser.set_defaults(**missing)
    return text
