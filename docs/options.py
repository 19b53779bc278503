"""Write options.md, the tables of all flags, from the parsers of the commands.

`make options` runs this; a test fails when the page is out of date.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from deep_ranking.cli.main import COMMANDS

PAGE = Path(__file__).parent / "options.md"
INTRODUCTION = """# All options

The flags of each command, as in its `--help`; `make options` writes this page. Every command also
takes `--verbose`, which shows messages of libraries and the traceback of an error."""
SCRIPTS = {"sample": "triplet_sampler.py", "train": "train.py", "compare": "compare.py"}


def page() -> str:
    """Return the page: a Markdown table of the flags of each command."""
    return "\n\n".join([INTRODUCTION, *(_table(name) for name in COMMANDS)]) + "\n"


def _table(name: str) -> str:
    command = import_module(f"deep_ranking.cli.{name}")
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    lines = [f"| `{SCRIPTS.get(name, name)}` | default | what |", "| --- | --- | --- |"]
    for title, action in _actions(parser):
        flags = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.dest}`"
        values = " ".join(_values(action))
        text = _cell(action.help or "").replace("%%", "%")
        lines.append(f"| {title}{flags}{values and ' ' + values} | {_default(action)} | {text} |")
    return "\n".join(lines)


def _actions(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.Action]]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                found += [(f"`{name}` ", each) for _, each in _actions(subparser)]
        elif not isinstance(action, argparse._HelpAction):
            found.append(("", action))
    return found


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
