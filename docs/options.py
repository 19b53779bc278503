"""Write options.md, the tables of all flags, from the parsers of the commands.

`make options` runs this; a test fails when the page is out of date.
"""

import argparse
import sys
from pathlib import Path

from deep_ranking.cli.main import COMMANDS, make_parser
from deep_ranking.cli.parser import Parser

PAGE = Path(__file__).parent / "options.md"
INTRODUCTION = """# All options

The flags of each command, in groups as in its `--help-all`; `--help` shows those that most people
need. `make options` writes this page. Every command also takes `--verbose`, which shows messages of
libraries and the traceback of an error, and `--quiet`, which shows no progress of long work. Every
command that reads images takes `--max_megapixels N`, which allows images of up to N million pixels,
whatever memory it takes to read them; by default an image has up to 178 million, and takes up to
1 GiB."""
SCRIPTS = {"sample": "triplet_sampler.py", "train": "train.py", "compare": "compare.py"}


def page() -> str:
    """Return the page: a Markdown table of the flags of each command."""
    return "\n\n".join([INTRODUCTION, *(_table(name) for name in COMMANDS)]) + "\n"


def _table(name: str) -> str:
    parser = make_parser(name)
    lines = [f"| `{SCRIPTS.get(name, name)}` | default | what |", "| --- | --- | --- |"]
    lines += _rows(parser)
    if parser.epilog:
        lines += ["", *parser.epilog.splitlines()]
    return "\n".join(lines)


def _rows(parser: Parser, subcommand: str = "") -> list[str]:
    rows = []
    for group in parser._action_groups:
        if group is parser._optionals:  # --help and the like
            continue
        title = f"| {subcommand}*{group.title}* | | |"
        actions = group._group_actions
        if actions and isinstance(actions[0], argparse._SubParsersAction):
            for name, subparser in actions[0].choices.items():
                rows += _rows(subparser, f"`{name}` ")
        elif actions:
            rows += [title, *map(_row, actions)]
    return rows


def _row(action: argparse.Action) -> str:
    flags = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.dest}`"
    values = " ".join(_values(action))
    text = _cell(action.help or "").replace("%%", "%")
    return f"| {flags}{values and ' ' + values} | {_default(action)} | {text} |"


def _values(action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        return []
    if action.choices is not None:
        return [_cell(", ".join(f"`{each}`" for each in action.choices))]
    names = action.metavar or ("" if not action.option_strings else action.dest.upper())
    names = [names] if isinstance(names, str) else list(names)
    return [_cell(f"`{name}`") for name in names if name]


def _default(action: argparse.Action) -> str:
    value = action.default
    if value in (None, argparse.SUPPRESS, "") or (action.nargs == 0 and value is False):
        return "required" if action.required else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    return _cell(f"`{value}`")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Tables of {len(COMMANDS)} commands in {PAGE.name}.")
    sys.exit(0)
