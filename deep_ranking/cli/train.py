"""`train.py`: triplets.txt -> deepranking.h5."""

import argparse
import json
import time
from collections.abc import Sequence

from deep_ranking.augmentation import Augmentation
from deep_ranking.cli.arguments import add_config_arguments, config_from
from deep_ranking.cli.tensorflow import start_tensorflow
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.errors import InputError

DESCRIPTION = (
    "Train a network on a triplet file, and write it as an .h5 file; settings, history, best model "
    "and checkpoint go to the folder NAME.run beside it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags: those of the three configs, and how to treat an earlier run."""
    add_config_arguments(parser, TrainConfig, "training")
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
    config = _config(parser, parser.parse_args(argv))
    args = parser.parse_args(argv)
    resume = hasattr(args, "resume")
    if resume:
        _take_settings_of_earlier_run(parser, config)
        config = _config(parser, parser.parse_args(argv))

    start_tensorflow()
    from deep_ranking.training import train

    start = time.monotonic()
    try:
        train(config, resume=resume, overwrite=hasattr(args, "overwrite"))
    except KeyboardInterrupt:
        print(f"\nStopped. Go on with: train.py --output {config.output} --resume")
        raise
    print(
        f"Model in {config.output}, history and best model in {config.run_dir}, "
        f"{time.monotonic() - start:.0f} seconds."
    )


def _config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> TrainConfig:
    if getattr(args, "weights", None) == "none":
        args.weights = None
    try:
        network = config_from(args, NetworkConfig)
        augmentation = config_from(args, Augmentation) if args.augment else None
        return config_from(args, TrainConfig, network=network, augmentation=augmentation)
    except InputError as error:
        parser.error(str(error))


def _take_settings_of_earlier_run(parser: argparse.ArgumentParser, config: TrainConfig) -> None:
    """Make the settings that the run began with the defaults of the flags."""
    path = config.run_dir / "config.json"
    if not path.exists():
        print(f"Nothing to resume in {config.run_dir}: starting.")
        return
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        network = settings.pop("network")
        augmentation = settings.pop("augmentation")
        network["weights"] = network["weights"] or "none"
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not the settings of a run; start anew by --overwrite") from None
    defaults = settings | network | (augmentation or {}) | {"augment": augmentation is not None}
    parser.set_defaults(**{name: value for name, value in defaults.items() if value is not None})
