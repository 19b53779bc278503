"""What trains nothing imports neither TensorFlow nor Keras, and works where they are missing."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from test_light_installation import WITHOUT

from deep_ranking.cli.main import run_command
from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer

PROGRAM = """
import contextlib, io, json, sys
{prelude}
from deep_ranking.cli.main import run_command
{before}
found = []
for name, arguments in json.loads(sys.stdin.read()):
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = run_command(name, arguments)
        except SystemExit as end:
            code = end.code
    modules = [each for each in ("tensorflow", "keras", "ai_edge_litert") if sys.modules.get(each)]
    found.append([code, output.getvalue(), errors.getvalue(), modules])
print(json.dumps(found))
"""


def ran(commands, *, missing, before=""):
    """Run commands in one process; of each the exit code, output, errors, and heavy modules."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(prelude=WITHOUT if missing else "", before=before)],
        input=json.dumps([[name, list(map(str, arguments))] for name, arguments in commands]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of four images; and one image more, in no class."""
    root = tmp_path_factory.mktemp("light")
    rng = np.random.default_rng(4)
    for name in ("photos/cat/{}.png", "photos/dog/{}.png"):
        for number in range(4):
            path = root / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            cells = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
            cells.resize((40, 40), Image.Resampling.BICUBIC).save(path)
    Image.fromarray(rng.integers(0, 256, (30, 30, 3), np.uint8)).save(root / "new.png")
    answer = Answer("2026-11-29T19:30:28Z", "Ann", "cat/0.png", "cat/1.png", "dog/0.png")
    AnswerLog(root / "ratings.csv").add(answer)
    (root / "pairs.csv").write_text("photos/cat/0.png,photos/dog/1.png\nnew.png,photos/cat/1.png\n")
    return root


def commands(root, model, work):
    """Each command that shall need no TensorFlow; an index first."""
    cat, dog, index = root / "photos/cat", root / "photos/dog", work / "index"
    shards = [
        ["index", ["-m", model, "--images", root / "photos", "-o", work / f"part{part}",
                   "--shard", f"{part}/2"]]
        for part in (1, 2)
    ]  # fmt: skip
    return {
        "index, new": ["index", ["-m", model, "--images", root / "photos", "-o", index]],
        "index, unchanged": ["index", ["-o", index]],
        "index, a shard": shards[0],
        "index, another": shards[1],
        "merge": ["merge", [work / "part1", work / "part2", "-o", work / "whole"]],
        "search, indexed": ["search", ["--index", index, "-i", cat / "0.png", "--json"]],
        "search, new": ["search", ["--index", index, "-i", root / "new.png", "--json"]],
        "search, merged": ["search", ["--index", work / "whole", "-i", root / "new.png", "--json"]],
        "duplicates": ["duplicates", ["--index", index]],
        "compare, two": ["compare", ["-m", model, "-i1", cat / "0.png", "-i2", dog / "1.png"]],
        "compare, folders": ["compare", ["-m", model, "-i1", cat, "-i2", dog]],
        "compare, pairs": ["compare", ["-m", model, "--pairs", root / "pairs.csv"]],
        "doctor": ["doctor", ["--dataset", root / "photos", "--no-estimate", "-m", model]],
        "evaluate": ["evaluate", ["-m", model, "--dataset", root / "photos"]],
        "ratings, a model": ["ratings", [root / "ratings.csv", "-m", model,
                                         "--dataset", root / "photos"]],
        "ratings, an index": ["ratings", [root / "ratings.csv", "--index", index]],
    }  # fmt: skip


@pytest.mark.parametrize("missing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_commands_need_no_tensorflow(tmp_path, compiled_model, photos, missing):
    """Neither where it is installed nor where it is missing, as are other large packages."""
    given = commands(photos, compiled_model, tmp_path)
    found = dict(zip(given, ran(given.values(), missing=missing), strict=True))
    for name, (code, output, errors, modules) in found.items():
        assert code == 0, (name, errors)
        assert not {"tensorflow", "keras"} & set(modules), name
        assert output and "Keras" not in errors, name
    one, other = (json.loads(found[name][1]) for name in ("search, new", "search, merged"))
    assert len(one) == 8 and one == other


def test_what_asks_for_indexed_images_opens_no_model(tmp_path, compiled_model, photos):
    arguments = commands(photos, compiled_model, tmp_path)
    name, flags = arguments["index, new"]
    assert run_command(name, list(map(str, flags))) == 0
    shutil.copy(photos / "photos/dog/2.png", tmp_path / "a copy.png")
    searches = [
        arguments["search, indexed"],
        ["search", ["--index", tmp_path / "index", "-i", tmp_path / "a copy.png", "--json"]],
        ["search", ["--index", tmp_path / "index", "-i", photos / "photos/cat", "--json"]],
    ]
    before = (
        "import deep_ranking.embedding.embedder as module\n"
        "from deep_ranking.files import hdf5\n"
        "import deep_ranking.model.header as header\n"
        "module.read_header = module.Embedder.engine = header.arrays_in = None\n"
    )
    searches.append(arguments["ratings, an index"])
    for code, _, errors, modules in ran(searches, missing=True, before=before):
        assert (code, modules) == (0, []), errors
    (new,) = ran([arguments["search, new"]], missing=True)
    assert new[3] == ["ai_edge_litert"]  # the one with which to tell that it would be noticed


def test_compiling_says_what_to_install(compiled_model):
    ((code, _, errors, _),) = ran([["compile", ["-m", compiled_model, "--anew"]]], missing=True)
    assert code == 1 and 'pip install "deep-ranking[train]"' in errors
    assert len(errors.splitlines()) == 1
