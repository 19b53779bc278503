"""benchmarks/cold.py: its figures, what it starts, and the collection that it makes."""

import json
import runpy
import shutil
from argparse import Namespace
from pathlib import Path

import h5py
import numpy as np
import pytest
from collections_of import make_model

from deep_ranking import InputError
from deep_ranking.model.header import COMPILED_ATTRIBUTE, read_header
from deep_ranking.search.collection import Collection
from deep_ranking.search.searcher import Searcher

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "cold.py"
benchmark = runpy.run_path(str(SCRIPT))
Command, Start = benchmark["Command"], benchmark["Start"]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """A folder with a model file that names a compiled file, m.h5, and a collection of it,
    made.index. Not to be written to.
    """
    folder = tmp_path_factory.mktemp("made")
    path = make_model(folder / "m.h5")
    with h5py.File(path, "r+") as file:
        file.attrs[COMPILED_ATTRIBUTE] = json.dumps({"float32": "0" * 64})
    benchmark["make_collection"](folder / "made.index", path, 120)
    return folder


@pytest.fixture
def model(made_once, tmp_path):
    return Path(shutil.copy(made_once / "m.h5", tmp_path))


@pytest.fixture
def index(made_once, tmp_path):
    return Path(shutil.copytree(made_once / "made.index", tmp_path / "made.index"))


def cells(table):
    return [[each.strip() for each in line.strip("|").split("|")] for line in table.splitlines()]


def test_figures_are_medians_of_each_column():
    starts = [Start(1, 9), Start(3, 1), Start(2, 5.555)]
    first = Command("a", "Keras", [], starts=starts, imports={"tensorflow", "keras"})
    second = Command("b", "-", [], starts=[Start(0.25, 0.5), Start(0.35, 0.7)])
    assert cells(benchmark["table"]([first, second]))[2:] == [
        ["a", "Keras", "2.00", "5.55", "keras, tensorflow"],
        ["b", "-", "0.30", "0.60", "no"],
    ]


def test_rounds_go_back_and_forth_after_two_starts_that_are_not_timed(monkeypatch):
    started = []

    def start(command, **changes):
        started.append((command.what, bool(changes)))
        return Start(len(started), 1)

    monkeypatch.setattr(Command, "start", start)
    commands = [Command("a", "-", []), Command("b", "-", [])]
    benchmark["measure"](commands, 2)
    assert started == [
        *[("a", False), ("a", True), ("b", False), ("b", True)],
        *[("a", False), ("b", False), ("b", False), ("a", False)],
    ]
    assert [each.wall for each in commands[0].starts] == [5, 8]


def test_a_start_is_timed_and_one_that_fails_is_an_error(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = "import os; assert os.environ['X'] == 'y'; os.environ['PYTHONDONTWRITEBYTECODE']"
    with pytest.raises(InputError, match=r"-c import os.*: KeyError: 'PYTHONDONTWRITEBYTECODE'"):
        Command("fails", "-", ["-c", code], {"X": "y"}).start()
    worked = "sum(range(2_000_000)); import time; time.sleep(0.2)"
    found = Command("works", "-", ["-c", worked]).start()
    assert found.wall > 0.2 and found.processor > 0


def test_the_hook_sees_an_import_and_no_search_for_a_module(monkeypatch, tmp_path):
    for name in ("tensorflow", "keras", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"import {name}.inner")
        (tmp_path / name / "inner.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {}
    for code in (
        "import other",
        "from importlib.util import find_spec; assert find_spec('tensorflow')",
        "import tensorflow.inner, os; os._exit(0)",
        "from importlib import import_module; import_module('keras')",
    ):
        command = Command("x", "-", ["-c", code])
        command.watch()
        found[code] = command.imports
    assert list(found.values()) == [set(), set(), {"tensorflow"}, {"keras"}]


def test_the_made_collection_is_searched_as_a_whole(index):
    collection = Collection.open(index)
    rows = np.array(collection.embeddings()[np.arange(120)])
    assert collection.describe().startswith("120 images, 3 classes")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert np.abs(rows @ rows.T - np.eye(120)).max() < 0.2  # as far apart as random rows are
    found = Searcher(collection).search(rows[7:8], 120)[0]
    assert len(found) == 120 and found[0].distance < 1e-3 and Path(found[0].path).is_file()
    assert benchmark["first_image"](index) == Path(min(each.path for each in found))
    with pytest.raises(InputError, match=r"made.index: exists"):
        benchmark["make_collection"](index, collection.model, 1)


def test_a_copy_without_a_compiled_model(index, tmp_path):
    (index / "model.0.float32.litert").touch()
    Collection.open(index).change(precision="int8")
    copy = tmp_path / "copy"
    benchmark["copy_uncompiled"](index, copy)
    assert not list(copy.glob("*.litert")) and list(index.glob("*.litert"))
    copied = Collection.open(copy)
    assert copied.settings.precision == "float32"
    assert Collection.open(index).settings.precision == "int8"
    assert read_header(copied.model).compiled == {}
    assert read_header(copied.model).fingerprint == copied.settings.fingerprint


def test_an_index_with_a_model_that_is_not_compiled_is_refused(index):
    with pytest.raises(InputError, match=r"float32\.litert: missing"):
        benchmark["check_compiled"](index)
    benchmark["forget_compiled"](Collection.open(index).model)
    with pytest.raises(InputError, match=r"not compiled in float32; run: .* --precision float32"):
        benchmark["check_compiled"](index)


def commands_of(model, index, folder):
    indexed = benchmark["first_image"](index)
    args = Namespace(
        model=model,
        index=index,
        new=Path("n.jpg"),
        indexed=indexed,
        image1=Path("1.jpg"),
        image2=Path("2.jpg"),
    )
    return benchmark["commands_of"](args, folder)


def test_keras_runs_on_what_is_not_compiled(model, index, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    commands = commands_of(model, index, folder)
    of_keras = [each for each in commands if each.model == "Keras"]
    assert [each.what for each in of_keras] == ["compare.py, two images", "search, a new image"]
    for each in of_keras:
        cache = Path(each.changes["DEEP_RANKING_CACHE"])
        assert cache.is_dir() and not list(cache.iterdir())
    copies = [Path(of_keras[0].arguments[2]), Path(of_keras[1].arguments[4]) / "model.h5"]
    assert [read_header(copy).compiled for copy in copies] == [{}, {}]
    assert read_header(model).compiled  # as it was
    assert not any(each.changes for each in commands if each.model != "Keras")
    assert not any(str(index) in each.arguments for each in commands)  # `index` writes to it


@pytest.mark.slow
def test_what_opens_no_model_imports_no_tensorflow(model, index, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    commands = [each for each in commands_of(model, index, folder) if each.model == "not opened"]
    benchmark["measure"](commands, 1)
    found = cells(benchmark["table"](commands))[2:]
    assert [[row[0], row[-1]] for row in found] == [
        ["search, an indexed image", "no"],
        ["index, an unchanged folder", "no"],
    ]
