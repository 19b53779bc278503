"""Flags that several commands share, and flags made from the fields of a config dataclass."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from deep_ranking.config import FolderConfig
from deep_ranking.datasets import LabelledImages, take_split
from deep_ranking.files import InputError

ConfigType = TypeVar("ConfigType")
T = TypeVar("T", int, float)
MAX_NUMBER = 2**32 - 1  # whole numbers beyond it overflow in libraries
METAVARS = {Path: "PATH", str: "NAME", int: "N", float: "X"}  # of fields that name none


def checked_number(
    kind: Callable[[str], T], is_allowed: Callable[[T], bool], wanted: str
) -> Callable[[str], T]:
    """Return a `type=` for argparse: a number that `is_allowed`, as the words `wanted` say."""

    def parse(text: str) -> T:
        with suppress(ValueError):
            value = kind(text)
            if isinstance(value, int) and abs(value) > MAX_NUMBER:
                raise argparse.ArgumentTypeError(
                    f"must be {MAX_NUMBER:,} or less. Received: {text}"
                )
            if is_allowed(value):
                return value
        raise argparse.ArgumentTypeError(f"must {wanted}. Received: {text}")

    return parse


positive_int = checked_number(int, lambda value: value >= 1, "be 1 or more")
non_negative_int = checked_number(int, lambda value: value >= 0, "be 0 or more")
share = checked_number(float, lambda value: 0 < value < 1, "lie between 0 and 1")


def add_path(
    parser: "argparse._ActionsContainer",
    *flags: str,
    help_text: str,
    metavar: str,
    required: bool = False,
) -> None:
    """Add a flag that names a file or a folder."""
    parser.add_argument(*flags, type=Path, required=required, metavar=metavar, help=help_text)


def add_model(
    parser: "argparse._ActionsContainer",
    help_text: str = "model file of train.py",
    required: bool = True,
) -> None:
    """Add the blog's flag for a model."""
    add_path(parser, "--model", "-m", metavar="FILE.h5", help_text=help_text, required=required)


def add_output(parser: "argparse._ActionsContainer", metavar: str, help_text: str) -> None:
    """Add the required flag for the file or folder that the command writes."""
    add_path(parser, "--output", "-o", metavar=metavar, help_text=help_text, required=True)


def add_dataset(parser: "argparse._ActionsContainer", more: str = "") -> None:
    """Add the flag for a folder of classes; `more` follows the help text."""
    help_text = f"folder with one folder for each class{more}"
    add_path(parser, "--dataset", metavar="DIR", help_text=help_text, required=True)


def add_metric(parser: "argparse._ActionsContainer", more: str = "") -> None:
    """Add the flag that chooses what is printed about two images; `more` follows its help."""
    from deep_ranking.metrics import METRICS

    parser.add_argument(
        "--metric",
        choices=METRICS,
        default=METRICS[0],
        help=f"what to print: the distance (0: alike) or the cosine (1: alike); the order is "
        f"the same{more}",
    )


def add_seed(
    parser: "argparse._ActionsContainer", help_text: str = "seed of the random draws"
) -> None:
    """Add the flag for the seed."""
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help=help_text)


def add_index_kind(parser: "argparse._ActionsContainer") -> None:
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
        metavar="KIND",
        help=f"{', '.join(KINDS)}, or a Milvus collection: PATH.db, http://HOST:PORT (default: "
        "exact, or the kind it has)",
    )


def check_files_exist(args: argparse.Namespace, *names: str) -> None:
    """Refuse a missing file before anything slow runs; flags that were not given are skipped.

    Raises:
        InputError: the path of one of these arguments does not exist.
    """
    for name in names:
        path: Path | None = getattr(args, name)
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file; check --{name}")


def add_config_arguments(
    parser: argparse.ArgumentParser, config: type, title: str, *, only: Container[str] | None = None
) -> "argparse._ArgumentGroup":
    """Add a flag for each field with a help text that the dataclass itself declares.

    Booleans get --FLAG and --no-FLAG. Optional fields take their type, and default to None.

    Args:
        parser: parser to add to.
        config: dataclass; the metadata of a field has "help", and may have "choices" and "metavar".
        title: heading of the flags in --help.
        only: names of the fields to add; None for all.

    Returns:
        The group of the flags.
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
        options: dict[str, Any] = {"default": each.default, **each.metadata}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = kind
            if "choices" not in options:
                options.setdefault("metavar", METAVARS[kind])
        group.add_argument(f"--{each.name}", **options)
    return group


def add_folder_arguments(parser: argparse.ArgumentParser, *, takes_split: bool = False) -> None:
    """Add the flags that say what the classes of a folder are.

    Args:
        parser: parser to add to.
        takes_split: whether the command takes one split of the images, which --split chooses.
    """
    names = {each.name for each in dataclasses.fields(FolderConfig)}
    only = names if takes_split else names - {"split"}
    add_config_arguments(parser, FolderConfig, "classes of the images", only=only)


def read_dataset(
    args: argparse.Namespace, folder: Path, kinds: Sequence[str], *, with_files: bool = True
) -> LabelledImages:
    """Read a folder as the flags of `add_folder_arguments` say, and print what was read.

    Args:
        args: parsed flags.
        folder: the folder.
        kinds: kinds of splits to take one of.
        with_files: whether --classes and --corrections are about this folder.

    Raises:
        InputError: as `read_folder`.
    """
    config = config_from(args, FolderConfig)
    data = config.read(folder, with_files=with_files)
    print("\n".join(data.describe()))
    taken = take_split(data, kinds, config.split)
    for note in taken.notes[len(data.notes) :]:
        print(note)
    return taken


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
