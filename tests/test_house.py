"""The shape of the package: few rooms, short modules, no two things of one name."""

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "deep_ranking"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_ENTRIES = 16
MAX_LINES = 350
COMMAND_FUNCTIONS = {"run", "add_arguments"}  # each command in cli has its own
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def names_in(tree):
    """Names that the top level of a module defines, imports or assigns."""
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (each.asname or each.name for each in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@pytest.fixture(scope="module")
def trees():
    return {dotted(path): ast.parse(path.read_bytes()) for path in MODULES}


def test_the_package_has_few_entries():
    entries = sorted(each.name for each in PACKAGE.iterdir() if each.name != "__pycache__")
    assert len(entries) <= MAX_ENTRIES, entries


def test_no_module_is_long():
    lengths = {dotted(path): path.read_bytes().count(b"\n") for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_two_public_functions_or_classes_share_a_name(trees):
    homes = defaultdict(list)
    for module, tree in trees.items():
        allowed = COMMAND_FUNCTIONS if module.startswith("deep_ranking.cli.") else set()
        names = {node.name for node in tree.body if isinstance(node, DEFINITIONS)}
        for name in names - allowed:
            if not name.startswith("_"):
                homes[name].append(module)
    shared = [f"{name}: {', '.join(where)}" for name, where in homes.items() if len(where) > 1]
    assert not shared, "\n".join(sorted(shared))


def test_the_layers_are_the_wings():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    wings = {each.parent.name for each in PACKAGE.glob("*/__init__.py")}
    modules = {each.stem for each in PACKAGE.glob("*.py")} - {"__init__"}
    assert set(contract["layers"]) == wings
    assert len(contract["layers"]) == len(wings)
    assert set(contract["exhaustive_ignores"]) == modules


@pytest.mark.parametrize("folder", ["tests/torture", "benchmarks"])
def test_what_strings_and_functions_import_exists(trees, folder):
    """Programs in strings, and imports within functions that no test calls, are seen by no tool."""
    missing = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        names = re.findall(r"\bdeep_ranking(?:\.\w+)+", text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("deep_ranking."):
                names += [f"{node.module}.{each.name}" for each in node.names]
        for name in names:
            module, _, attribute = name.rpartition(".")
            is_attribute = module in trees and attribute in names_in(trees[module])
            if name not in trees and not is_attribute:
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []
