"""The pages are right about the commands, flags, names and targets that they mention."""

import argparse
import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import deep_ranking
from deep_ranking.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(each for each in (ROOT / "docs").rglob("*.md") if each.name != "options.md"),
]
MAX_WORDS = 1200
MAX_PICTURE_BYTES = 60_000
SCRIPTS = {"triplet_sampler.py": "sample", "train.py": "train", "compare.py": "compare"}
PROGRAM = re.compile(
    r"deep-ranking |python -m deep_ranking |python (?=(?:triplet_sampler|train|compare)\.py\b)"
)
# In prose, of programs other than the commands: every parser's own, benchmarks and the torture.
OTHER_FLAGS = {
    *("--help", "--help-all", "--verbose", "--quiet", "--max_megapixels", "--version"),
    *("--reference", "--logdir", "--others"),  # of other programs
}


def relative(path):
    return path.relative_to(ROOT).as_posix()


def parser_of(command):
    parser = argparse.ArgumentParser(prog=command, exit_on_error=False)
    import_module(f"deep_ranking.cli.{command}").add_arguments(parser)
    return parser


def flags_of(parser):
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from flags_of(each)


def code_and_prose(text):
    """Return the lines of code blocks, continued ones joined, and all other text."""
    code, prose, fenced = [], [], False
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            code.append(line.strip())
        else:
            prose.append(line)
    return code, "\n".join(prose)


def commands_in(text):
    """Yield the command and its arguments for each line of code that runs one."""
    for line in code_and_prose(text)[0]:
        for part in line.split(" | "):
            found = PROGRAM.match(part)
            if found and "COMMAND" not in part:
                program, *arguments = shlex.split(part[found.end() :], comments=True)
                yield SCRIPTS.get(program, program), arguments


def test_commands_are_found_in_code():
    text = (
        "`deep-ranking demo`\n\n"
        "    deep-ranking dataset stats x  # y\n"
        "    ls | python compare.py \\\n"
        "        -i1 a.jpg\n"
        "    python -m deep_ranking train\n"
        "    python benchmarks/x.py --no\n"
    )
    assert list(commands_in(text)) == [
        ("dataset", ["stats", "x"]),
        ("compare", ["-i1", "a.jpg"]),
        ("train", []),
    ]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_command_on_a_page_is_one_that_its_parser_takes(page, capsys):
    for command, arguments in commands_in(page.read_text(encoding="utf-8")):
        assert command in COMMANDS
        try:
            parser_of(command).parse_args(arguments)
        except (SystemExit, argparse.ArgumentError) as error:
            said = capsys.readouterr().err or error
            pytest.fail(f"deep-ranking {shlex.join([command, *arguments])}: {said}")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_flag_on_a_page_exists(page):
    known = {flag for command in COMMANDS for flag in flags_of(parser_of(command))}
    prose = code_and_prose(page.read_text(encoding="utf-8"))[1]
    named = set(re.findall(r"(?<![\w-])--[a-z]\w*(?:-\w+)*", prose))
    assert named - known - OTHER_FLAGS == set()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_make_target_on_a_page_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    text = page.read_text(encoding="utf-8")
    lines = [line for line in code_and_prose(text)[0] if line.startswith("make ")]
    lines += re.findall(r"`(make [^`]+)`", text)
    for line in lines:
        words = line.partition("#")[0].partition("&&")[0].split()[1:]
        assert {word for word in words if "=" not in word} <= set(targets), line


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_name_that_a_page_imports_is_public(page):
    text = page.read_text(encoding="utf-8")
    for names in re.findall(r"^ +from deep_ranking import (.+)$", text, re.MULTILINE):
        assert set(names.split(", ")) <= set(deep_ranking.__all__)


def test_the_readme_is_short_and_has_what_a_newcomer_needs():
    text = README.read_text(encoding="utf-8")
    assert len(text.split()) <= MAX_WORDS
    for command in ("make demo", "make test", "deep-ranking demo"):
        assert f"    {command}\n" in text or f"`{command}`" in text
    (picture,) = re.findall(r"!\[[^\]]+\]\((.+?)\)", text)
    assert (ROOT / picture).stat().st_size < MAX_PICTURE_BYTES


def test_every_command_has_a_line_in_getting_started():
    text = (ROOT / "docs" / "getting_started.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert set(COMMANDS) == {name for cell in table for name in re.findall(r"`([\w]+)`", cell)}


def test_every_public_name_is_on_the_page_of_the_api():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: deep_ranking\.(\w+)$", text, re.MULTILINE)
    assert sorted(names) == sorted(set(deep_ranking.__all__) - {"__version__"})


def test_the_tables_of_options_are_those_of_the_commands():
    options = runpy.run_path(str(ROOT / "docs" / "options.py"))
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert options["page"]() == page, "run `make options`"
    assert "| `--train_from` `LAYER` |" in page
