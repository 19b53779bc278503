"""`train.py`: triplets.txt -> deepranking.h5."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from deep_ranking.cli.arguments import add_config_arguments, config_from
from deep_ranking.cli.notes import start_tensorflow
from deep_ranking.cli.stopping import saying_when_stopped
from deep_ranking.config import (
    DataConfig,
    LossConfig,
    NetworkConfig,
    SamplingConfig,
    ScheduleConfig,
    StreamConfig,
    TrainConfig,
    ValidationConfig,
)
from deep_ranking.config.recipes import RECIPES, Recipe
from deep_ranking.files import InputError, read_text_file
from deep_ranking.images import find_images, fitting_size
from deep_ranking.images.augmentation import Augmentation

DESCRIPTION = (
    "Train a network on a triplet file or on folders of classes, and write it as an .h5 file; "
    "settings, history, best model and checkpoint go to the folder NAME.run beside it. Those who "
    "just want it to work: --recipe laptop --dataset DIR --output m.h5."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags: recipe, those of the configs, and how to treat an earlier run."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default=argparse.SUPPRESS,
        help="; ".join(f"{each.name}: {each.summary}" for each in RECIPES.values())
        + "; other flags change single settings of it",
    )
    parser.epilog = "Recipes. " + " ".join(
        f"{each.name}: python {each.command} (takes {each.takes}; {each.gives})."
        for each in RECIPES.values()
    )
    for config, title in (
        (DataConfig, "data"),
        (SamplingConfig, "triplets drawn from the folders of --dataset, by --strategy"),
        (StreamConfig, "what strategies go by"),
        (LossConfig, "loss"),
        (ScheduleConfig, "schedule"),
        (ValidationConfig, "validation"),
        (TrainConfig, "run"),
    ):
        add_config_arguments(parser, config, title)
    add_config_arguments(parser, NetworkConfig, "network")
    add_config_arguments(parser, Augmentation, "augmentation")
    parser.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="change each image at random, by the flags above",
    )
    earlier = parser.add_argument_group("an earlier run of the same name")
    choice = earlier.add_mutually_exclusive_group()
    choice.add_argument(
        "--resume",
        action="store_true",
        default=argparse.SUPPRESS,
        help="go on with it; flags not given are as it began",
    )
    choice.add_argument(
        "--overwrite", action="store_true", default=argparse.SUPPRESS, help="start anew"
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Train, and say where the model is."""
    args = parser.parse_args(argv)
    resume = hasattr(args, "resume")
    goes_on = resume and _take_settings_of_earlier_run(parser, args.output.with_suffix(".run"))
    if not goes_on and hasattr(args, "recipe"):
        take_settings_of_recipe(parser, RECIPES[args.recipe], argv)
    try:
        config = train_config(parser, parser.parse_args(argv))
    except (TypeError, AttributeError):
        if not goes_on:
            raise
        raise _no_settings(args.output.with_suffix(".run") / "config.json") from None

    start_tensorflow()
    from deep_ranking.training.run import train

    start = time.monotonic()
    with saying_when_stopped(f"go on by train.py --output {config.output} --resume"):
        train(config, resume=resume, overwrite=hasattr(args, "overwrite"))
    print(
        f"Model in {config.output}, history and best model in {config.run_dir}, "
        f"{time.monotonic() - start:.0f} seconds."
    )


def train_config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> TrainConfig:
    """Make the config of a run of what was parsed, or end with a usage error."""
    if getattr(args, "weights", None) == "none":
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


def take_settings_of_recipe(
    parser: argparse.ArgumentParser, recipe: Recipe, argv: Sequence[str] | None
) -> None:
    """Make the settings of a recipe the defaults of the flags."""
    usual = {"image_size": parser.get_default("image_size"), "backbone_size": None}
    parser.set_defaults(**dict.fromkeys(usual) | recipe.settings)
    args = parser.parse_args(argv)
    print(f"Recipe {recipe.name}: {recipe.summary}. Takes {recipe.takes}; {recipe.gives}.")
    if recipe.max_image_size is not None and hasattr(args, "dataset"):
        if args.image_size is None:
            listing = find_images(args.dataset)
            paths = [listing.root / path for path in listing.paths]
            usual["image_size"] = fitting_size(paths, recipe.max_image_size)
        image_size = args.image_size or usual["image_size"]
        usual["backbone_size"] = max(image_size, min(2 * image_size, recipe.max_backbone_size))
        print(
            f"Images are seen at {image_size} pixels, by the backbone enlarged to "
            f"{args.backbone_size or usual['backbone_size']}; --image_size and --backbone_size "
            "change it."
        )
    missing = {name: value for name, value in usual.items() if getattr(args, name) is None}
    parser.set_defaults(**missing)


def _take_settings_of_earlier_run(parser: argparse.ArgumentParser, run_dir: Path) -> bool:
    """Make the settings that the run began with the defaults of the flags; False if none has."""
    path = run_dir / "config.json"
    if not path.exists():
        print(f"Nothing to resume in {run_dir}: starting.")
        return False
    text = read_text_file(path, hint="start anew by --overwrite")
    try:
        settings = json.loads(text)
        network = settings.pop("network")
        augmentation = settings.pop("augmentation")
        sampling = settings.pop("sampling", {})  # which runs of earlier versions do not have
        network["weights"] = network["weights"] or "none"
        defaults = settings | network | sampling | (augmentation or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _no_settings(path) from None
    defaults["augment"] = augmentation is not None
    parser.set_defaults(**{name: value for name, value in defaults.items() if value is not None})
    return True


def _no_settings(path: Path) -> InputError:
    return InputError(f"{path}: not the settings of a run; start anew by --overwrite")
