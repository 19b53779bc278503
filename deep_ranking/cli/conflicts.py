"""Refuse a flag that was given and cannot act beside the other flags.

Only what the command line gives counts, not what a recipe sets or an earlier run had. A rule says
when some flags act, and what to blame where they do not. `flag_table` has the rules.
"""

import argparse
import copy
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Rule(NamedTuple):
    """When flags act.

    Attributes:
        flags: as they are typed, such as --no-shuffle.
        act: whether they act.
        blame: why they do not, such as "without --decay plateau".
    """

    flags: tuple[str, ...]
    act: bool
    blame: str


def refuse_flags_without_effect(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    rules: Sequence[Rule],
    *,
    recipe: str | None = None,
) -> None:
    """End with a usage error if the command line gives a flag that cannot act.

    Args:
        parser: the command's parser.
        argv: its arguments; None for the program's own.
        rules: made from the parsed flags, after recipes and earlier runs have set their values.
        recipe: name of the recipe that has set values, for the message.
    """
    given = given_flags(parser, argv)
    for rule in rules:
        idle = [] if rule.act else [flag for flag in rule.flags if flag in given]
        if idle:
            blamed = re.findall(r"--\w+", rule.blame)
            is_of_recipe = recipe is not None and given.isdisjoint(blamed)
            source = f", as --recipe {recipe} has it" if is_of_recipe else ""
            parser.error(f"{idle[0]} has no effect {rule.blame}{source}")


def given_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> set[str]:
    """Return the flags that the command line itself gives, in their long form, --no- included."""
    bare = copy.deepcopy(parser)
    for each in _with_subparsers(bare):
        each._defaults.clear()
        for action in each._actions:
            action.default = argparse.SUPPRESS
    given = vars(bare.parse_args(argv))
    return {f"--no-{name}" if value is False else f"--{name}" for name, value in given.items()}


def _with_subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _with_subparsers(subparser)
