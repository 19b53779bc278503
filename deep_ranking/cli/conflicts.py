"""Refuse a flag that was given and cannot act beside the other flags.

Only what the command line gives counts, not what a recipe sets or an earlier run had. A rule says
when some flags act, and what to blame where they do not. `flag_table` has the rules of the
commands; those of an index, which depend on its kind, are here.
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


def index_rules(kind: str) -> list[Rule]:
    """Return the rules of `index` and `search`, by the kind of the index."""
    has_clusters = kind in ("clusters", "hierarchy")
    return [
        Rule(("--clusters",), has_clusters, f"with --index {kind}, which has no clusters"),
        # Milvus has a remedy of its own for --target_recall.
        Rule(
            ("--probes", "--target_recall"),
            kind != "exact",
            "with an exact index, which compares all images; --index chooses another kind",
        ),
    ]


def folder_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of the flags that say what the classes of an index are."""
    flags = ("--label", "--splits", "--no-splits")
    return [Rule(flags, args.classes is None, "with --classes, which names the classes")]


def search_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `search`, beside those of the kind of the index."""
    whole = args.label is None and args.folder is None
    limited = "with --class or --folder, whose images are compared one by one"
    for_people = not (args.json or args.csv)
    return [
        Rule(("--explain_cost", "--probes"), whole, limited),
        Rule(("--metric",), for_people, "with --json and --csv, which have the distance"),
    ]


def duplicates_rules(args: argparse.Namespace) -> list[Rule]:
    """Return the rules of `duplicates`."""
    flags = ("--threshold", "--json", "--html", "--move")
    return [Rule(flags, args.undo is None, "with --undo")]
