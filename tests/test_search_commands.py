"""`index`, `search` and `merge` as people call them, with a real network."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.embed import embed_images
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.network import build_network
from deep_ranking.search.collection import Collection, locked

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager", "models_loaded_once")

NETWORK = NetworkConfig(
    image_size=32,
    weights=None,
    multiscale="none",
    hidden_layers=0,
    pooling="average+max",
    embedding_size=24,
)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    save_model(build_network(NETWORK, seed=1), path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Images in folders and out of them; one is broken, and two are the same."""
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    names = ["loose.png", "a/1.png", "a/2.JPG", 'b/"q", c.png', "b/deep/3.png", "b/4.png"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((40, 40)).save(root / name)
    shutil.copy(root / "a/1.png", root / "b/copy of 1.png")
    (root / "a/broken.jpg").write_bytes(b"no image")
    return root


def call(capsys, command, *arguments, code=0):
    """Run a command; give what it printed."""
    assert run_command(command, list(map(str, arguments))) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


@pytest.fixture
def index(tmp_path, photos, model_path, capsys):
    folder = tmp_path / "index"
    call(capsys, "index", "--model", model_path, "--images", photos, "--output", folder)
    return folder


def searched(capsys, index, *arguments):
    return json.loads(call(capsys, "search", "--index", index, *arguments, "--json"))


def test_nearest_images_are_those_that_the_model_says(index, photos, model_path, capsys):
    names = ["a/1.png", "a/2.JPG", 'b/"q", c.png', "b/4.png", "b/copy of 1.png", "b/deep/3.png"]
    paths = [str(photos / name) for name in [*names, "loose.png"]]
    rows = embed_images(load_model(model_path), paths).astype(np.float64)
    for query in (0, 3):
        distances = np.sqrt(((rows - rows[query]) ** 2).sum(axis=1))
        found = searched(capsys, index, "--image", paths[query], "--top", 5)
        assert [each["rank"] for each in found] == [1, 2, 3, 4, 5]
        expected = sorted(zip(distances, paths, strict=True))[:5]
        for each, (distance, path) in zip(found, expected, strict=True):
            assert each["path"] == path
            assert each["distance"] == pytest.approx(distance, abs=1e-4)
            assert each["cosine"] == pytest.approx(1 - each["distance"] ** 2 / 2)
            name = os.path.relpath(path, photos)
            assert each["class"] == (name.split("/")[0] if "/" in name else "")


def test_what_index_says(tmp_path, photos, model_path, capsys):
    flags = ("--model", model_path, "--images", photos, "--output", tmp_path / "index")
    first = call(capsys, "index", *flags)
    assert "7 images: 6 embedded now" in first  # two are the same
    assert "a/broken.jpg: not an image that can be read" in first
    assert "in index exact" in first
    assert "7 images: 0 embedded now" in call(capsys, "index", "--output", tmp_path / "index")
    (photos / "a/2.JPG").rename(photos / "a/two.JPG")
    (photos / "b/4.png").unlink()
    Image.new("RGB", (20, 20), "red").save(photos / "new.png")
    out = call(capsys, "index", "--output", tmp_path / "index")
    assert "7 images: 1 embedded now, 1 new or changed files with content known before" in out
    assert "2 gone" in out  # the name that the renamed one had is one of them


def test_unchanged_images_need_no_tensorflow(index):
    program = (
        "import sys\nfrom deep_ranking.cli.main import main\n"
        f"assert main(['index', '--output', {str(index)!r}]) == 0\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)


def test_all_kinds_find_the_same(index, photos, capsys):
    query = photos / "b/4.png"
    expected = searched(capsys, index, "--image", query, "--top", 100)
    assert len(expected) == 7
    for kind in ("clusters", "hierarchy", "exact"):
        out = call(capsys, "index", "--output", index, "--index", kind)
        assert f"in index {kind}" in out
        assert searched(capsys, index, "--image", query, "--top", 100) == expected
        files = {each.name for each in index.iterdir()} & {"clusters.faiss", "hierarchy.faiss"}
        assert files == ({f"{kind}.faiss"} if kind != "exact" else set())


def test_text_csv_and_cosine(index, photos, capsys):
    query = photos / "a/1.png"
    lines = call(capsys, "search", "--index", index, "--image", query, "--top", 3).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert float(lines[0].split()[1]) < 1e-5 and lines[0].endswith("a/1.png")
    lines = call(
        capsys, "search", "--index", index, "--image", query, "--top", 2, "--metric", "cosine"
    ).splitlines()
    assert float(lines[0].split()[1]) == pytest.approx(1, abs=1e-5)
    out = call(capsys, "search", "--index", index, "--image", photos / "b", "--top", 2, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 8
    assert {row["query"] for row in rows} == {str(each) for each in photos.glob("b/**/*.png")}
    assert [row["rank"] for row in rows] == ["1", "2"] * 4


def test_folder_and_standard_input_as_queries(index, photos, capsys, monkeypatch):
    found = searched(capsys, index, "--image", photos / "a", "--top", 1)  # one of it is broken
    assert [each["path"] for each in found] == [str(photos / "a/1.png"), str(photos / "a/2.JPG")]
    lines = f"{photos / 'loose.png'}\n\n{photos / 'b/4.png'}\r\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    found = searched(capsys, index, "--image", "-", photos / "a/2.JPG", "--top", 1)
    names = ["loose.png", "b/4.png", "a/2.JPG"]
    assert [each["query"] for each in found] == [str(photos / name) for name in names]


def test_picture_and_cost(tmp_path, index, photos, capsys):
    call(capsys, "index", "--output", index, "--index", "clusters")
    picture = tmp_path / "found.PNG"
    flags = ("--image", photos / "a/1.png", photos / "b/4.png", "--top", 3)
    out = call(capsys, "search", "--index", index, *flags, "--picture", picture, "--explain_cost")
    assert "1.0 of 1 clusters visited, 6 of 6 images compared (100.0%)" in out
    assert "recall@3 against exact 1.000" in out
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width > image.height > 100


@pytest.mark.slow
def test_measure(index, capsys):
    out = call(capsys, "index", "--output", index, "--index", "clusters", "--measure")
    table = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert [row[0] for row in table if row[0] in ("exact", "1")] == ["exact", "1"]
    assert all(row[1:4] == ["1.000"] * 3 for row in table if row[0] in ("exact", "1"))


@pytest.mark.slow
def test_shards_merged_are_the_whole(tmp_path, photos, model_path, index, capsys):
    whole = searched(capsys, index, "--image", photos / "loose.png")
    flags = ("--model", model_path, "--images", photos)
    shards = [tmp_path / f"shard {number}" for number in (1, 2, 3)]
    total = 0
    for number, shard in enumerate(shards, start=1):
        run = ("index", *flags, "--output", shard, "--shard", f"{number}/3")
        try:
            call(capsys, *run)
        except AssertionError:
            assert not len(Collection.open(shard).rows())  # of so few images, none may be its own
            capsys.readouterr()
        total += len(Collection.open(shard).rows())
    assert total == 6
    merged = tmp_path / "merged"
    assert "6 embeddings of 3 shards" in call(capsys, "merge", *shards, "--output", merged)
    found = searched(capsys, merged, "--image", photos / "loose.png")
    for each, expected in zip(found, whole, strict=True):
        assert each["path"] == expected["path"]
        assert each["distance"] == pytest.approx(expected["distance"], abs=1e-5)
    assert "7 images: 0 embedded" in call(capsys, "index", "--output", merged)
    some = call(capsys, "merge", *shards[:2], "--output", tmp_path / "some", code=1)
    assert "expected each of the shards 1/3 to 3/3 once, got 1/3, 2/3" in some
    wrong = call(capsys, "merge", index, "--output", tmp_path / "wrong", code=1)
    assert "is not a shard" in wrong


def test_bad_input_is_one_line(tmp_path, index, photos, model_path, capsys):
    def error(command, *arguments):
        line = call(capsys, command, *arguments, code=1)
        assert line.startswith("error: ") and line.count("\n") == 1
        return line

    query = photos / "a/1.png"
    assert "no index here" in error("search", "--index", tmp_path / "no", "--image", query)
    assert "no such image" in error("search", "--index", index, "--image", tmp_path / "no.jpg")
    broken = photos / "a/broken.jpg"
    assert f"{broken}: not an image" in error("search", "--index", index, "--image", broken)
    name = error("search", "--index", index, "--image", query, "--picture", tmp_path / "x.txt")
    assert "must end in one of .png" in name
    other = tmp_path / "other.h5"
    save_model(build_network(NETWORK, seed=2), other)
    refused = error("index", "--output", index, "--model", other)
    settings = json.loads((index / "collection.json").read_text())
    assert f"made by the model {settings['fingerprint']}, not by this one" in refused
    assert "which cannot change" in error("index", "--output", index, "--dtype", "float16")
    empty = tmp_path / "empty"
    empty.mkdir()
    flags = ("--model", model_path, "--output", tmp_path / "x")
    assert "no image in it" in error("index", *flags, "--images", empty)
    assert "no such folder" in error("index", *flags, "--images", tmp_path / "nowhere")
    (empty / "x.jpg").write_bytes(b"")
    assert "can be searched" in error("index", *flags, "--images", empty)
    assert "no such folder" in error("index", "--output", index, "--images", tmp_path / "nowhere")
    assert call(capsys, "index", "--output", index)  # the root is what it was
    assert "holds other files, such as" in error(
        *("index", *flags[:2]), "--images", photos, "--output", photos / "a"
    )
    assert {each.name for each in (photos / "a").iterdir()} == {"1.png", "2.JPG", "broken.jpg"}
    with locked(index):
        held = error("index", "--output", index)
    assert f"being written to by process {os.getpid()} on" in held
    settings["version"] = 2
    (index / "collection.json").write_text(json.dumps(settings))
    assert "made by a newer version" in error("search", "--index", index, "--image", query)


def test_clusters_file_cut_off(index, photos, capsys):
    call(capsys, "index", "--output", index, "--index", "clusters")
    file = index / "clusters.faiss"
    file.write_bytes(file.read_bytes()[:-100])
    flags = ("--index", index, "--image", photos / "a/1.png")
    assert "clusters.faiss: cut off, damaged" in call(capsys, "search", *flags, code=1)
    file.unlink()
    assert "its index is empty; run index" in call(capsys, "search", *flags, code=1)
    call(capsys, "index", "--output", index)
    assert call(capsys, "search", *flags)


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("index", ["--output", "x"], "give --model and --images"),
        ("index", ["--output", "x", "--shard", "3/2"], "I/N"),
        ("index", ["--output", "x", "--index", "fast"], "expected exact, clusters, hierarchy"),
        ("index", ["--output", "x", "--probes", "2", "--target_recall", "0.9"], "not allowed"),
        ("search", ["--index", "x"], "--image"),
        ("search", ["--index", "x", "--image", "y", "--top", "0"], "top"),
        ("merge", ["--output", "x"], "SHARD"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(capsys, command, arguments, named):
    with pytest.raises(SystemExit) as end:
        run_command(command, arguments)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert named in line and line.endswith("; see --help\n") and line.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "flag"),
    [("index", "--target_recall"), ("index", "--probes"), ("search", "--probes")],
)
def test_an_exact_index_has_no_clusters_to_visit(index, photos, capsys, command, flag):
    before = (index / "collection.json").read_bytes()
    arguments = {"index": ["--output", index], "search": ["--index", index, "--image", photos]}
    with pytest.raises(SystemExit) as end:
        run_command(command, [*map(str, arguments[command]), flag, "1"])
    assert end.value.code == 2
    assert f"{flag} has no effect with an exact index" in capsys.readouterr().err
    assert (index / "collection.json").read_bytes() == before


@pytest.mark.slow
def test_probes_are_chosen_given_and_kept(tmp_path, model_path, capsys):
    root = tmp_path / "many"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(160):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(root / f"{number}.png")
    index = tmp_path / "index"
    flags = ("--output", index, "--index", "clusters")
    out = call(capsys, "index", "--model", model_path, "--images", root, *flags)
    assert "4 clusters of which a search visits" in out and "of the 20 nearest, as measured" in out

    def settings():
        return json.loads((index / "collection.json").read_text())["index"]

    assert settings()["target_recall"] == 0.95
    call(capsys, "index", *flags, "--probes", 3)
    assert settings() == {"kind": "clusters", "probes": 3}
    call(capsys, "index", "--output", index)
    assert settings()["probes"] == 3
    call(capsys, "index", "--output", index, "--target_recall", 1)
    assert settings()["target_recall"] == 1
    out = call(capsys, "index", "--output", index, "--clusters", 2)
    assert "2 clusters" in out and settings()["clusters"] == 2
    for kind in ("hierarchy", "exact"):
        assert f"in index {kind}" in call(capsys, "index", "--output", index, "--index", kind)
        assert len(searched(capsys, index, "--image", root / "0.png", "--top", 200)) > 20
    assert settings() == {"kind": "exact"}
