"""`--help` fits on a screen and its examples run; `--help-all` shows every flag."""

import argparse
import re
import shlex
from importlib import import_module

import pytest

from deep_ranking.cli.main import COMMANDS, EXAMPLES, main, make_parser, run_command
from deep_ranking.cli.parser import Parser

SCREEN = 60
SCRIPTS = {"triplet_sampler.py": "sample", "train.py": "train", "compare.py": "compare"}


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def parsers():
    """Return the parser of each command and of each subcommand, by what calls it."""
    found = {}
    for name in COMMANDS:
        found[name] = make_parser(name, f"deep-ranking {name}")
        for action in found[name]._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= {f"{name} {each}": parser for each, parser in action.choices.items()}
    return found


PARSERS = parsers()
every_parser = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)


def lists(text, action):
    """Return whether help has an entry of a flag or of an argument."""
    name = action.option_strings[0] if action.option_strings else action.metavar
    if isinstance(action, argparse.BooleanOptionalAction):
        name = name.replace("--", "--[no-]", 1)
    entry = rf"^  (-\w+, )?{re.escape(name)}(, --\w+|,? .*)?$"
    return re.search(entry, text, re.M) is not None


def flags_of(parser):
    return [
        each
        for each in parser._actions
        if not isinstance(each, argparse._SubParsersAction) and each.help != argparse.SUPPRESS
    ]


@every_parser
def test_help_fits_on_a_screen_and_names_the_basic_flags(parser):
    text = parser.format_help()
    assert len(text.splitlines()) <= SCREEN
    assert max(map(len, text.splitlines())) <= 80 or "http" in text
    for action in flags_of(parser):
        is_basic = parser.basic_flags is None or action.dest in parser.basic_flags
        if is_basic or action.required or action in parser._optionals._group_actions[:2]:
            assert lists(text, action), action.option_strings


@every_parser
def test_help_all_names_every_flag(parser):
    text = parser.format_help_all()
    for action in flags_of(parser):
        assert lists(text, action), action.option_strings


@every_parser
def test_the_last_line_counts_the_flags_that_only_help_all_shows(parser):
    text = parser.format_help()
    hidden = [each for each in flags_of(parser) if not lists(text, each)]
    last = text.splitlines()[-1]
    noun = "flag" if len(hidden) == 1 else "flags"
    assert (last == f"--help-all shows {len(hidden)} more {noun}.") == bool(hidden)


@pytest.mark.parametrize("name", COMMANDS)
def test_basic_flags_are_flags_of_the_command(name):
    basic = getattr(import_module(f"deep_ranking.cli.{name}"), "BASIC_FLAGS", ())
    assert set(basic) <= {each.dest for each in PARSERS[name]._actions}
    assert len(set(basic)) == len(basic)


@every_parser
def test_usage_is_what_a_call_needs(parser):
    usage = parser.format_help().split("\n\n")[0]
    assert usage.startswith(f"usage: {parser.prog} [options]") and usage.count("\n") < 2
    required = [each for each in parser._actions if each.option_strings and each.required]
    assert all(each.option_strings[0] in usage for each in required)


@every_parser
def test_texts_are_worth_their_lines(parser):
    text = " ".join(parser.format_help_all().split())
    assert "(default: False)" not in text and "(default: None)" not in text
    assert "(default: True)" not in text
    assert not re.search(r"\b(above|below)\b", text)


@every_parser
def test_every_flag_is_in_a_group_with_a_title_of_its_own(parser):
    loose = {each.dest for each in parser._optionals._group_actions}
    assert loose <= {"help", "help_all", "verbose", "quiet", "max_megapixels"}
    assert not parser._positionals._group_actions
    titles = [group.title for group in parser._action_groups if group._group_actions]
    assert len(set(titles)) == len(titles) and "options" not in titles


@every_parser
def test_metavars_mean_something(parser):
    for action in flags_of(parser):
        if action.nargs == 0 or action.choices is not None:
            continue
        assert action.metavar not in (None, "X", "PATH"), action.option_strings
        assert action.type is not float or action.metavar != "N", action.option_strings


def examples():
    """Return each example: the command that shows it, and its line."""
    found = [(None, line) for _, line in EXAMPLES]
    for name in COMMANDS:
        found += [(name, line) for _, line in import_module(f"deep_ranking.cli.{name}").EXAMPLES]
    return found


@pytest.mark.parametrize(("shown_by", "line"), examples())
def test_examples_are_calls_of_the_command(shown_by, line):
    program, first, *arguments = shlex.split(line)
    assert program == "python"
    if first == "-m":
        package, name, *arguments = arguments
        assert package == "deep_ranking"
    else:
        name = SCRIPTS[first]
    assert shown_by in (None, name)
    make_parser(name).parse_args(arguments)


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_prints_two_examples_each_on_a_line(name, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"] if name is None else [name, "--help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= SCREEN
    shown = [line for by, line in examples() if by == name]
    assert len(shown) == 2
    assert all(f"  {line}" in lines for line in shown)


def test_help_all_prints_more_and_ends(capsys):
    with pytest.raises(SystemExit) as end:
        run_command("train", ["--help-all"], prog="train.py")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: train.py [options]\n")
    assert "--plateau_factor FACTOR" in text and "- laptop: " in text
    assert "--plateau_factor" not in make_parser("train").format_help()


def test_a_single_hidden_flag_is_one_flag():
    parser = Parser(prog="paint", basic_flags=("gloss",))
    group = parser.add_argument_group("paint")
    for flag in ("--gloss", "--matt"):
        group.add_argument(flag, action="store_true", help="how it shines")
    assert parser.format_help().endswith("\n\n--help-all shows 1 more flag.\n")
    assert "--matt" in parser.format_help_all() and "--matt" not in parser.format_help()


def test_defaults_and_twins_are_short():
    parser = Parser(prog="paint")
    group = parser.add_argument_group("paint")
    group.add_argument("--gloss", action=argparse.BooleanOptionalAction, default=False, help="a")
    group.add_argument("--matt", action=argparse.BooleanOptionalAction, default=True, help="b")
    group.add_argument("--coats", "-c", default=2, metavar="N", help="c")
    group.add_argument("--color", metavar="NAME", help="d")
    lines = [" ".join(line.split()) for line in parser.format_help().splitlines()]
    assert lines[lines.index("paint:") + 1 :][:4] == [
        "--[no-]gloss a",
        "--[no-]matt b (default: on)",
        "-c, --coats N c (default: 2)",
        "--color NAME d",
    ]
