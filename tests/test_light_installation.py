"""What runs without TensorFlow and the other large packages, and what the rest says there.

`make light` runs these tests in an environment that has none of them. Elsewhere a program that the
tests start takes them away.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from collections_of import make_collection
from PIL import Image

ROOT = Path(__file__).parents[1]
MODEL = os.environ.get("DEEP_RANKING_LIGHT_MODEL")
LACKING = (
    *("tensorflow", "keras", "scipy", "sklearn", "skimage", "matplotlib", "imagehash", "pandas"),
    *("tensorboard", "tf2onnx", "onnx", "onnxruntime", "jax", "torch", "networkx"),
)
WITHOUT = f"""
import sys
from importlib.machinery import PathFinder

class Light(PathFinder):
    @classmethod
    def find_spec(cls, name, *args):
        return None if name.partition(".")[0] in {LACKING} else super().find_spec(name, *args)

sys.meta_path = [Light if each is PathFinder else each for each in sys.meta_path]
"""

# Wings that need nothing large, and modules of the others that the light commands import.
IMPORTS = """
import json, pkgutil
from importlib import import_module
import deep_ranking
wings = "files images datasets config metrics sampling search reports.ratings cli"
names = [
    each.name
    for wing in wings.split()
    for each in pkgutil.walk_packages(
        import_module(f"deep_ranking.{wing}").__path__, f"deep_ranking.{wing}."
    )
]
names += [
    f"deep_ranking.{name}"
    for name in (
        "model.calibration model.hit_calibration model.header reports.doctor.page "
        "reports.evaluating reports.comparing reports.page.duplicate_groups "
        "reports.page.label_errors"
    ).split()
]
for name in names:
    import_module(name)
public = [name for name in deep_ranking.__all__ if name in {
    "Collection", "InputError", "Searcher", "diagnose", "find_duplicates", "find_images",
    "move_back", "read_folder", "read_image", "sample", "sample_triplets",
}]
for name in public:
    getattr(deep_ranking, name)
print(json.dumps([len(names), len(public)]))
"""

COMMANDS = """
import contextlib, io, json
from deep_ranking.cli.main import main
found = []
for argv in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as error:
            code = error.code
    found.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


ROWS = """
import json
from pathlib import Path
import numpy as np
from collections_of import make_collection
from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.indexing import update_index
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.smoothed_collection import update_smoothing

rng = np.random.default_rng(0)
labels = np.repeat(np.arange(6), 20)
rows = np.eye(8)[labels] + 0.15 * rng.normal(size=(120, 8))
rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
by_path = {}
for number, label in enumerate(labels.tolist()):
    path = Path("rows", f"class {label}", f"{number}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(number))
    by_path[str(path.relative_to("rows"))] = rows[number]
collection = make_collection(Path("learned"), Path("rows").absolute(), by_path)
update_index(collection)
update_smoothing(collection, open_index(collection), smooth="choose")
collection = Collection.open(collection.folder)
results = Searcher(collection).search(rows[:3], 5, rerank=True)
judged = evaluate_embeddings(EmbeddedImages(list(by_path), labels, rows))
print(json.dumps({
    "learned from": collection.hit_calibration.num_queries,
    "chance": results[0][0].hit_probability,
    "classes": sorted({each.label for found in results for each in found}),
    "nmi": judged.whole["nmi"],
    "roc_auc": judged.whole_intervals["roc_auc"].mean,
}))
"""


def run_without(program, folder, given=""):
    """Run a program that can import none of the large packages; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + program],
        input=given,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_commands(folder, *commands):
    """Run commands in one program; return the exit code, output and errors of each."""
    return run_without(COMMANDS, folder, json.dumps([each.split() for each in commands]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images in classes, an index of them, a shard, and a model without layers."""
    folder = tmp_path_factory.mktemp("light")
    rng = np.random.default_rng(0)
    rows = {}
    for name in ("ape", "bee", "cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(5):
            cells = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
            path = f"{name}/{number}.png"
            cells.resize((48, 48)).save(folder / "photos" / path)
            row = rng.normal(size=8)
            rows[path] = row / np.linalg.norm(row)
    rows["bee/4.png"] = rows["ape/1.png"]
    for name in ("index", "shard"):
        make_collection(folder / name, folder / "photos", rows)
    settings = folder / "shard" / "collection.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "shard": [1, 1]}))
    return folder


def test_modules_of_the_light_commands_import_nothing_large(tmp_path):
    num_modules, num_names = run_without(IMPORTS, tmp_path)
    assert num_modules > 100 and num_names == 11


def test_what_needs_no_network_runs(folder):
    found = run_commands(
        folder,
        "duplicates --index index --html page.html --json found.json",
        "merge shard --output whole",
        "doctor --dataset photos --no-estimate --html doctor.html",
        "sample --input_directory photos --split 0.8 0.2 --output_directory .",
        "dataset stats photos",
    )
    for code, _, errors in found:
        assert code == 0, errors
    assert "1 group, 2 images" in found[0][1]
    assert "20 embeddings of 1 shard in index exact" in found[1][1]
    assert "Nothing stops training" in found[2][1]
    for name in ("page.html", "doctor.html"):
        assert "<img" in (folder / name).read_text()
    assert (folder / "triplets.txt").stat().st_size


def test_rows_are_searched_learned_from_smoothed_and_judged(tmp_path):
    found = run_without(ROWS, tmp_path)
    assert found["learned from"] == 120
    assert found["chance"] > 0.8
    assert found["classes"] == ["class 0"]
    assert 0.7 < found["nmi"] <= 1 and 0.9 < found["roc_auc"] <= 1


@pytest.mark.skipif(MODEL is None, reason="`make light` names a compiled model")
def test_a_compiled_model_embeds_compares_and_searches(folder, tmp_path):
    assert MODEL is not None
    model = tmp_path / "m.h5"
    for file in Path(MODEL).parent.glob(f"{Path(MODEL).stem}.*"):
        shutil.copy(file, tmp_path / file.name.replace(Path(MODEL).stem, "m", 1))
    new, known = folder / "new.png", folder / "photos/cat/1.png"
    Image.open(known).rotate(90).save(new)
    found = run_commands(
        folder,
        f"compare --model {model} --image1 {new} --image2 {known}",
        f"index --output light.index --model {model} --images photos",
        f"search --index light.index --image {new} --json",
        f"search --index light.index --image {known} --json",
        "duplicates --index light.index",
        f"evaluate --model {model} --dataset photos",
        f"explain -m {model} -i1 {new} -i2 {known} --method occlusion --output {tmp_path}/a.png",
        f"compile --model {model} --precision int8",
    )
    for code, _, errors in found[:-1]:
        assert (code, errors) == (0, "")
    assert 0 < float(found[0][1].split()[0]) <= 2
    assert "20 images: 20 embedded now" in found[1][1]
    assert '"rank": 1' in found[2][1]
    assert "cat/1.png" in found[3][1].split('"rank": 2')[0]
    assert "recall_at_1" in found[5][1]
    assert "image 2: " in found[6][1] and (tmp_path / "a.png").stat().st_size
    assert found[7][0] == 1 and "needs tensorflow" in found[7][2]


TRAIN = 'pip install "deep-ranking[train]"'


WHAT_NEEDS_MORE = [
    (
        (
            "train --dataset photos --output m.h5",
            "train --triplets index.h5 --output m.h5",
            "export --model index.h5 --format savedmodel --output saved",
            "demo",
            "summary",
            "report --model index.h5 --dataset photos --output page.html",
        ),
        f"error: deep-ranking NAME needs tensorflow, not installed here: {TRAIN}\n",
    ),
    (
        ("calibrate --model index.h5 --dataset photos",),
        f"error: deep-ranking calibrate needs scikit-learn, not installed here: {TRAIN}\n",
    ),
    (
        ("explain -m index.h5 -i1 photos/ape/1.png -i2 photos/ape/2.png --output a.png",),
        f"error: a picture needs matplotlib, not installed here: {TRAIN}; or give --method "
        "occlusion\n",
    ),
    (
        ("search --index index --image photos/ape/1.png --picture a.png",),
        f"error: a picture needs matplotlib, not installed here: {TRAIN}\n",
    ),
    (
        ("evaluate --model index.h5 --dataset photos --baselines",),
        f"error: --baselines needs tensorflow, not installed here: {TRAIN}; or leave out "
        "--baselines\n",
    ),
    (
        ("doctor --dataset photos",),
        f"error: the estimate of training needs tensorflow, not installed here: {TRAIN}; or "
        "give --no-estimate\n",
    ),
]


def test_what_needs_more_says_so_in_a_line(folder):
    """Each command, and what it needs: in one program, of which none ends it."""
    wanted = [(command, line) for commands, line in WHAT_NEEDS_MORE for command in commands]
    found = run_commands(folder, *(command for command, _ in wanted))
    for (command, line), (code, _, errors) in zip(wanted, found, strict=True):
        assert (code, errors) == (1, line.replace("NAME", command.split()[0])), command


def test_an_import_that_fails_for_another_reason_is_not_hidden():
    from deep_ranking.cli.error_lines import message_of

    found = message_of(ModuleNotFoundError("No module named 'sklearn.x'", name="sklearn.x"))
    assert found == f"this command needs scikit-learn, not installed here: {TRAIN}"
    for other in ("deep_ranking.gone", "kerasish", None):
        assert message_of(ModuleNotFoundError("No module", name=other)) is None
