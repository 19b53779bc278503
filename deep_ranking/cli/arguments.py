"""Flags that several commands share, and flags made from the fields of a config dataclass."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Container
from pathlib import Path
from typing import Any, TypeVar

from deep_ranking.files import InputError

ConfigType = TypeVar("ConfigType")


def positive_int(text: str) -> int:
    """Return a count of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more. Received: {text}")
    return value


def non_negative_int(text: str) -> int:
    """Return an integer of 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more. Received: {text}")
    return value


def add_required_path(
    parser: argparse.ArgumentParser, *flags: str, help_text: str, metavar: str = "PATH"
) -> None:
    """Add a required flag that names a file or a folder."""
    parser.add_argument(
        *flags, type=Path, required=True, default=argparse.SUPPRESS, metavar=metavar, help=help_text
    )


def add_optional_path(
    parser: "argparse._ActionsContainer", *flags: str, help_text: str, metavar: str = "PATH"
) -> None:
    """Add a flag that may name a file or a folder; without it, the attribute is absent."""
    parser.add_argument(
        *flags, type=Path, default=argparse.SUPPRESS, metavar=metavar, help=help_text
    )


def add_model(parser: argparse.ArgumentParser, help_text: str = "model file of train.py") -> None:
    """Add the blog's flag for a model."""
    add_required_path(parser, "--model", "-m", help_text=help_text)


def add_metric(parser: argparse.ArgumentParser) -> None:
    """Add the flag that chooses what is printed about two images."""
    from deep_ranking.metrics import METRICS

    parser.add_argument(
        "--metric",
        choices=METRICS,
        default=METRICS[0],
        help="what to print: the distance (0: alike) or the cosine (1: alike); the order is the "
        "same",
    )


def add_seed(parser: argparse.ArgumentParser, help_text: str = "seed of the random draws") -> None:
    """Add the flag for the seed."""
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help=help_text)


def add_index_kind(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the kind of index; its value is the settings of the index."""
    from deep_ranking.search.index.kinds import KINDS, index_settings

    def settings(text: str) -> dict[str, Any]:
        try:
            return index_settings(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    parser.add_argument(
        "--index",
        type=settings,
        default=argparse.SUPPRESS,
        metavar="KIND",
        help=f"{', '.join(KINDS)}, or a Milvus collection: PATH.db, http://HOST:PORT (default: "
        "exact, or the kind it has)",
    )


def check_files_exist(args: argparse.Namespace, *names: str) -> None:
    """Refuse a missing file before anything slow runs.

    Raises:
        InputError: the path of one of these arguments does not exist.
    """
    for name in names:
        path: Path = getattr(args, name)
        if not path.exists():
            raise InputError(f"{path}: no such file; check --{name}")


def add_config_arguments(
    parser: argparse.ArgumentParser, config: type, title: str, *, only: Container[str] | None = None
) -> None:
    """Add a flag for each field with a help text that the dataclass itself declares.

    Booleans get --FLAG and --no-FLAG. Optional fields take their type, and default to None.

    Args:
        parser: parser to add to.
        config: dataclass; the metadata of a field has "help", and may have "choices" and "metavar".
        title: heading of the flags in --help.
        only: names of the fields to add; None for all.
    """
    group = parser.add_argument_group(title)
    kinds = typing.get_type_hints(config)
    for each in dataclasses.fields(config):
        if only is not None and each.name not in only:
            continue
        if "help" not in each.metadata or each.name not in vars(config)["__annotations__"]:
            continue
        kind = kinds[each.name]
        if isinstance(kind, types.UnionType):  # X | None
            kind = next(option for option in typing.get_args(kind) if option is not type(None))
        # Without a default, a flag that was not given is absent, so the config's own None counts.
        default = argparse.SUPPRESS if each.default is None else each.default
        options: dict[str, Any] = {"default": default, **each.metadata}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = kind
            if "choices" not in options:
                options.setdefault("metavar", {Path: "PATH", str: "NAME"}.get(kind, "N"))
        group.add_argument(f"--{each.name}", **options)


def config_from(args: argparse.Namespace, config: type[ConfigType], **others: Any) -> ConfigType:
    """Return a config made from parsed flags.

    Args:
        args: flags of a parser that `add_config_arguments` of the same class has extended.
        config: the dataclass.
        **others: values of fields that have no flag.

    Raises:
        InputError: a value is out of its range.
    """
    names = [each.name for each in dataclasses.fields(config)]  # type: ignore[arg-type]
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return config(**(given | others))
