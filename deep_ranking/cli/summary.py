"""`summary`: a model, or settings of a network -> a table of its layers."""

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from deep_ranking.cli.arguments import (
    add_config_arguments,
    add_model,
    check_files_exist,
    config_from,
)
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError

DESCRIPTION = (
    "Show a model's network as a table: its layers, their output, parameters and connections. "
    "Without --model, show the network that train.py would build with the same flags, with random "
    "weights."
)
TABLE_WIDTH = 128  # where there is no terminal; a narrower table cuts names
EXAMPLES = (
    (
        "Show the layers of a model",
        "python -m deep_ranking summary --model m.h5",
    ),
    (
        "Show the network that train.py would build",
        "python -m deep_ranking summary --backbone resnet50 --hidden_layers 0",
    ),
)
BASIC_FLAGS = (
    "model",
    "train_from",
    "json",
    "image_size",
    "backbone_size",
    "pooling",
    "hidden_layers",
    "hidden_size",
    "embedding_size",
    "multiscale",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags: a model, or the settings of a network."""
    group = parser.add_argument_group("model and output")
    add_model(group, required=False)
    group.add_argument(
        "--train_from",
        metavar="LAYER",
        help="show as frozen what train.py --train_from LAYER freezes (default: nothing; a model "
        "file does not record what was frozen)",
    )
    group.add_argument("--json", action="store_true", help="print everything as JSON")
    add_config_arguments(parser, NetworkConfig, "network, without --model")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Build or load the network, and print it."""
    args = parser.parse_args(argv)
    refuse_flags_without_effect(parser, argv, rules_of("summary", args))
    config = None if args.model else _config(parser, args)
    check_files_exist(args, "model")
    start_tensorflow()
    from deep_ranking.model.file import load_model
    from deep_ranking.model.network import build_network, set_trainable_from
    from deep_ranking.model.summary import network_summary

    model = load_model(args.model) if config is None else build_network(config)
    set_trainable_from(model, args.train_from)
    summary = network_summary(model)
    if args.json:
        path = str(args.model) if config is None else None
        print(json.dumps({"model": path, **summary}, indent=2))
        return
    with _table_width():
        model.summary(show_trainable=True)
    _print_text(summary, "random weights" if config is not None else str(args.model))


def _config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> NetworkConfig:
    """Return the network that the flags describe, with random weights."""
    if args.weights == "none":
        args.weights = None
    try:
        # Normalisation follows the weights that training would start from.
        normalisation = config_from(args, NetworkConfig).normalisation
        return config_from(args, NetworkConfig, weights=None, normalisation=normalisation)
    except InputError as error:
        parser.error(str(error))


def _print_text(summary: dict[str, Any], name: str) -> None:
    for label, value in (
        ("backbone", summary["backbone"]),
        ("normalisation", summary["normalisation"]),
        ("calibrated", "yes" if summary["calibrated"] else "no"),
        ("image size", f"{summary['image_size']} pixels"),
        ("embedding size", f"{summary['embedding_size']:,}"),
    ):
        print(f"{label:15} {value}")
    print(
        f"{name}: {summary['parameters']:,} parameters, {summary['trained_parameters']:,} of them "
        f"trained, {summary['bytes']:,} bytes."
    )


@contextmanager
def _table_width() -> Iterator[None]:
    """Set the width of the table for the block; without a terminal Keras would use 80 columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(shutil.get_terminal_size((TABLE_WIDTH, 24)).columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
