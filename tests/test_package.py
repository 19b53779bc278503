"""What is published: the version, its changes, and the packages that it needs."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from datetime import date
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

import deep_ranking

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", re.MULTILINE)


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def test_the_version_is_the_newest_of_the_changelog():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = HEADING.findall(changes)
    assert releases[0][0] == deep_ranking.__version__
    assert changes.count("\n## ") == 1 + len(releases)  # and what is unreleased
    assert [day for _, day in releases] == sorted((day for _, day in releases), reverse=True)


def test_the_tab_key_completes_every_public_name():
    code = "import deep_ranking as d\nassert set(d.__all__) <= set(dir(d)), dir(d)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def required_by(name):
    """The requirements of a file, without their reasons."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line.partition("#")[0].strip() for line in lines if not line.startswith("#")]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_extra_train_makes_the_light_set_whole(project):
    light, whole = required_by("requirements-search.txt"), required_by("requirements.txt")
    extras = project["project"]["optional-dependencies"]
    assert sorted(light + extras["train"]) == sorted(whole)
    assert extras["search"] == []  # what searching needs is installed without any extra
    files = project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"]
    assert files == ["requirements-search.txt"]


def test_what_the_package_imports_is_declared(project):
    """An import that only another package brings would fail when that one stops to."""
    extras = project["project"]["optional-dependencies"].values()
    declared = {name_of(each) for each in chain(required_by("requirements-search.txt"), *extras)}
    imported = set()
    for path in (ROOT / "deep_ranking").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    homes = packages_distributions()
    for module in imported - sys.stdlib_module_names - {"deep_ranking"}:
        distributions = set(map(name_of, homes[module]))
        assert distributions & declared, f"{module} is of {distributions}"


@pytest.fixture
def release(tmp_path):
    (tmp_path / "deep_ranking").mkdir()
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changes\n\n## [Unreleased]\n\n### Added\n\n- A.\n\n## [0.9.0] - 2026-01-02\n\n- B.\n"
    )
    (tmp_path / "deep_ranking" / "__init__.py").write_text('"""D."""\n\n__version__ = "0.9.0"\n')
    cut = runpy.run_path(str(ROOT / "tools" / "release.py"))["cut"]
    return lambda version: cut(tmp_path, version, date(2026, 2, 3))


def test_a_release_is_cut_from_what_is_unreleased(release, tmp_path):
    release("0.10.0")
    assert (tmp_path / "CHANGELOG.md").read_text() == (
        "# Changes\n\n## [Unreleased]\n\n## [0.10.0] - 2026-02-03\n\n### Added\n\n- A.\n\n"
        "## [0.9.0] - 2026-01-02\n\n- B.\n"
    )
    package = (tmp_path / "deep_ranking" / "__init__.py").read_text()
    assert package == '"""D."""\n\n__version__ = "0.10.0"\n'
    with pytest.raises(ValueError, match="lists no change"):
        release("0.11.0")


@pytest.mark.parametrize("version", ["", "1.0", "v1.0.0", "0.9.0", "0.8.9"])
def test_a_release_of_no_new_version_changes_nothing(release, tmp_path, version):
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("*.*"))]
    with pytest.raises(ValueError, match="VERSION must be"):
        release(version)
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.*"))] == before
