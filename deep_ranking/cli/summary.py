"""`summary`: a model, or settings of a network -> a table of its layers."""

import argparse
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_ranking.cli.arguments import add_config_arguments, check_files_exist, config_from
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError

if TYPE_CHECKING:
    import keras

DESCRIPTION = (
    "Show a model's network as a table: its layers, their output, parameters and connections; or, "
    "without --model, the network that train.py would build by the same flags, with random weights."
)
# Where no terminal says how wide it is. Narrower, names are cut.
TABLE_WIDTH = 128
BYTES_A_NUMBER = {"float16": 2, "bfloat16": 2, "float64": 8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags: a model, or those of a network."""
    parser.add_argument(
        "--model",
        "-m",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="PATH",
        help="model file of train.py",
    )
    parser.add_argument(
        "--train_from",
        default=argparse.SUPPRESS,
        metavar="LAYER",
        help="show as frozen what train.py --train_from LAYER freezes (default: nothing; a model "
        "file does not say what was)",
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    add_config_arguments(parser, NetworkConfig, "network, without --model")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Build or load, print."""
    args = parser.parse_args(argv)
    config = _config(parser, args)
    if config is None:
        check_files_exist(args, "model")
    start_tensorflow()
    from deep_ranking.model.file import load_model
    from deep_ranking.model.network import build_network, set_trainable_from

    model = load_model(args.model) if config is None else build_network(config)
    set_trainable_from(model, getattr(args, "train_from", None))
    described = _described(model)
    if args.json:
        path = str(args.model) if config is None else None
        print(json.dumps({"model": path, **described}, indent=2))
        return
    with _width_of_table():
        model.summary(show_trainable=True)
    _print_text(described, "random weights" if config is not None else str(args.model))


def _config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> NetworkConfig | None:
    """The network that the flags describe, with random weights; None if they name a model."""
    if hasattr(args, "model"):
        names = [name for name in NetworkConfig.__dataclass_fields__ if hasattr(args, name)]
        given = [name for name in names if getattr(args, name) != parser.get_default(name)]
        if given:
            parser.error(f"--{given[0]}: the network is that of --model; give one of the two")
        return None
    if args.weights == "none":
        args.weights = None
    try:
        # Normalisation goes with the weights that training would start from.
        normalisation = config_from(args, NetworkConfig).normalisation
        return config_from(args, NetworkConfig, weights=None, normalisation=normalisation)
    except InputError as error:
        parser.error(str(error))


def _described(model: "keras.Model") -> dict[str, Any]:
    config = model.network_config
    return {
        "layers": [_described_layer(layer) for layer in model.layers],
        "parameters": _num_parameters(model.weights),
        "trained_parameters": _num_parameters(model.trainable_weights),
        "bytes": sum(
            math.prod(weight.shape) * BYTES_A_NUMBER.get(weight.dtype, 4)
            for weight in model.weights
        ),
        "image_size": config.image_size,
        "embedding_size": model.output_shape[-1],
        "backbone": config.backbone,
        "normalisation": config.normalisation,
        "calibrated": getattr(model, "calibration", None) is not None,
        "network": json.loads(config.to_json()),
    }


def _described_layer(layer: "keras.layers.Layer") -> dict[str, Any]:
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return {
        "name": layer.name,
        "type": type(layer).__name__,
        "output_shape": list(layer.output.shape),
        "parameters": _num_parameters(layer.weights),
        "trained": bool(layer.trainable_weights),
        "connected_to": [tensor._keras_history.operation.name for tensor in inputs],
    }


def _num_parameters(weights: Sequence[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _print_text(described: dict[str, Any], name: str) -> None:
    for label, value in (
        ("backbone", described["backbone"]),
        ("normalisation", described["normalisation"]),
        ("calibrated", "yes" if described["calibrated"] else "no"),
        ("image size", f"{described['image_size']} pixels"),
        ("embedding size", f"{described['embedding_size']:,}"),
    ):
        print(f"{label:15} {value}")
    print(
        f"{name}: {described['parameters']:,} parameters, {described['trained_parameters']:,} of "
        f"them trained, {described['bytes']:,} bytes."
    )


@contextmanager
def _width_of_table() -> Iterator[None]:
    """Say how wide the table may be where this is no terminal, and Keras would take 80 columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(shutil.get_terminal_size((TABLE_WIDTH, 24)).columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
