"""`index`, `search` and `merge` as people call them, with a real network."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.cli.search import _details
from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.embed import embed_images
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.network import build_network
from deep_ranking.reports import plots
from deep_ranking.search.collection import Collection, locked
from deep_ranking.search.collection.settings import VERSION
from deep_ranking.search.results import Result

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


def test_a_picture_shows_classes_and_what_is_gone(tmp_path, index, photos, capsys, monkeypatch):
    drawn = []
    real = plots.neighbours_figure
    monkeypatch.setattr(plots, "neighbours_figure", lambda rows: drawn.extend(rows) or real(rows))
    (photos / "b/4.png").unlink()
    other = tmp_path / "elsewhere" / "q.png"
    other.parent.mkdir()
    shutil.copy(photos / "a/1.png", other)
    picture = tmp_path / "found.png"
    flags = ("--index", index, "--image", photos / "a/1.png", other, "--top", 7)
    assert run_command("search", list(map(str, [*flags, "--picture", picture]))) == 0
    printed = capsys.readouterr()
    gone = [line for line in printed.out.splitlines() if line.endswith("b/4.png  (gone)")]
    assert len(gone) == 2
    assert printed.err.splitlines()[-1].startswith("Of the files that were found, 1 is gone since")
    assert picture.stat().st_size > 1000
    first, second = drawn
    assert first.caption == "1.png" and first.about_query == "a"
    assert second.hits is None and second.about_query == ""
    labels = [lines[0] for lines in first.details]
    assert sorted(labels) == ["a", "a", "b", "b", "b", "b", "loose.png"]  # loose is of no class
    assert first.hits == [label == "a" for label in labels]
    (place,) = [i for i, lines in enumerate(first.details) if lines[-1] == "gone: 4.png"]
    assert (first.images[place] == plots.missing_image(128)).all()


def test_what_a_picture_says_of_a_result():
    result = Result(1, 0.5, "photos/b/4\n.png", "Fruit/Apple", 0.914)
    assert _details(result) == ["Fruit/Apple", "p(hit) 0.91", "4\\n.png"]
    bare = replace(result, label="", hit_probability=None, problem="changed")
    assert _details(bare) == ["changed: 4\\n.png"]


def test_after_the_images_were_moved_search_says_what_to_do(index, photos, capsys):
    new = photos.with_name("new")
    photos.rename(new)
    flags = ("--index", index, "--image", new / "a/1.png", "--top", 2)
    assert run_command("search", list(map(str, flags))) == 0
    printed = capsys.readouterr()
    assert printed.out.count("(gone)") == 2
    assert f"if the images were moved, run `index --output {index} --images DIR`" in printed.err
    for command, *rest in (("duplicates", "--index", index), ("index", "--output", index)):
        said = call(capsys, command, *rest, code=1)
        assert f"run `index --output {index} --images DIR`" in said
        assert "no image is embedded again" in said
    out = call(capsys, "index", "--output", index, "--images", new)
    assert "7 images: 0 embedded now, 0 new or changed" in out
    found = searched(capsys, index, *flags[2:])
    assert [each["problem"] for each in found] == ["", ""]
    assert found[0]["path"] == str(new / "a/1.png")


def test_search_in_a_class_or_folder_and_with_feedback(index, photos, capsys):
    query = ("--image", photos / "a/1.png")
    found = searched(capsys, index, *query, "--class", "b", "--top", 3)
    assert [each["class"] for each in found] == ["b"] * 3
    found = searched(capsys, index, *query, "--folder", "b/deep")
    assert [each["path"] for each in found] == [str(photos / "b/deep/3.png")]
    plain = searched(capsys, index, *query)
    moved = searched(capsys, index, *query, "--like", photos / "b/4.png", "--unlike", photos / "a")
    distance = {each["path"]: each["distance"] for each in plain}
    nearer = {each["path"]: each["distance"] for each in moved}
    assert nearer[str(photos / "b/4.png")] < distance[str(photos / "b/4.png")]
    assert nearer[str(photos / "a/1.png")] > distance[str(photos / "a/1.png")]
    error = call(capsys, "search", "--index", index, *query, "--class", "B", code=1)
    assert error == "error: B: no class of the collection; did you mean b?\n"
    error = call(capsys, "search", "--index", index, *query, "--like", "nowhere.png", code=1)
    assert error == "error: nowhere.png: no such image; check --like\n"


def test_folders_to_search_in_start_from_the_root_or_from_here(index, photos, capsys, monkeypatch):
    query = ("--image", photos / "a/1.png")
    deep = [str(photos / "b/deep/3.png")]
    for here, folder in (
        (photos.parent, f"{photos.name}/b/deep"),
        (photos / "b", "deep"),
        (photos / "b/deep", "."),
        (photos / "a", "../b/deep"),
        (photos / "a", "b/deep"),
        (photos / "a", photos / "b/deep"),
    ):
        monkeypatch.chdir(here)
        found = searched(capsys, index, *query, "--folder", folder)
        assert [each["path"] for each in found] == deep
    monkeypatch.chdir(photos.parent)
    error = call(capsys, "search", "--index", index, *query, "--folder", "..", code=1)
    assert "not below the folder of the images" in error


def test_broken_images_of_the_feedback_are_told(index, photos, capsys, tmp_path):
    (tmp_path / "like").mkdir()
    shutil.copy(photos / "b/4.png", tmp_path / "like/1.png")
    (tmp_path / "like/2.png").write_bytes(b"no image")
    given = ["--index", index, "--image", photos / "a/1.png", "--like", tmp_path / "like"]
    assert run_command("search", [*map(str, given)]) == 0
    assert f"{tmp_path / 'like/2.png'}: left out" in capsys.readouterr().err


def test_names_in_another_normal_form_and_a_byte_order_mark(index, photos, capsys, monkeypatch):
    stored = photos / unicodedata.normalize("NFD", "Äpfel/é.png")
    stored.parent.mkdir()
    shutil.copy(photos / "b/4.png", stored)
    composed = unicodedata.normalize("NFC", str(stored))
    assert composed != str(stored)
    found = searched(capsys, index, "--image", composed, "--top", 1)
    assert found[0]["query"] == str(stored)
    binary = f"\ufeff{composed}\r\n{photos / 'loose.png'}\n\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(binary)))
    found = searched(capsys, index, "--image", "-", "--top", 1)
    assert [each["query"] for each in found] == [str(stored), str(photos / "loose.png")]


def dataset_of(tmp_path):
    """Images of two depths: three kinds of two groups."""
    root = tmp_path / "products"
    rng = np.random.default_rng(1)
    for name in ("Fruit/Apple/Red", "Fruit/Apple/Green", "Vegetables/Garlic"):
        (root / name).mkdir(parents=True)
        for number in range(2):
            coarse = rng.integers(0, 255, (4, 4, 3), np.uint8)
            Image.fromarray(coarse).resize((40, 40)).save(root / name / f"{number}.png")
    return root


def classes_of(capsys, folder, root):
    found = searched(capsys, folder, "--image", root / "Fruit/Apple/Red/0.png", "--top", 9)
    return {os.path.relpath(each["path"], root): each["class"] for each in found}


def test_classes_are_stored_shown_changed_and_kept(tmp_path, model_path, capsys):
    root, folder = dataset_of(tmp_path), tmp_path / "products.index"
    index_it = ("index", "--output", folder)
    out = call(capsys, *index_it, "--model", model_path, "--images", root)
    first, second, *_ = out.splitlines()
    assert first == "6 images, 2 classes (the first folder)."
    assert "--label parent takes the folder that holds each image (3 classes)" in second
    assert set(classes_of(capsys, folder, root).values()) == {"Fruit", "Vegetables"}
    out = call(capsys, *index_it, "--label", "parent")
    assert out.splitlines()[0] == "6 images, 3 classes (the folder that holds the image)."
    assert "6 images: 0 embedded now, 0 new or changed" in out
    parents = {path: path.rpartition("/")[0] for path in classes_of(capsys, folder, root)}
    assert classes_of(capsys, folder, root) == parents
    assert "(the folder that holds the image)" in call(capsys, *index_it)  # it is kept
    assert classes_of(capsys, folder, root) == parents
    found = searched(capsys, folder, "--image", root / "Fruit/Apple/Red/0.png", "--class", "Apple")
    assert {each["class"] for each in found} == {"Fruit/Apple/Red", "Fruit/Apple/Green"}
    call(capsys, *index_it, "--by_content")  # what is not given stays
    assert classes_of(capsys, folder, root) == parents
    settings = json.loads((folder / "collection.json").read_text())
    assert settings["folders"] == {"label": "parent", "by_content": True}
    call(capsys, *index_it, "--no-by_content", "--label", "2")
    assert set(classes_of(capsys, folder, root).values()) == {"Fruit/Apple", "Vegetables/Garlic"}


def test_a_class_file_names_the_classes_of_an_index(tmp_path, model_path, capsys):
    root, folder = dataset_of(tmp_path), tmp_path / "products.index"
    file = tmp_path / "classes.csv"
    file.write_text("path,label\nFruit/Apple/Red/0.png,best\nVegetables/Garlic/1.png,worst\n")
    flags = ("--model", model_path, "--images", root, "--output", folder)
    out = call(capsys, "index", *flags, "--classes", file)
    assert out.splitlines()[0] == f"6 images, 2 classes ({file})."
    assert "4 images without a class" in out
    classes = classes_of(capsys, folder, root)
    assert {path: label for path, label in classes.items() if label} == {
        "Fruit/Apple/Red/0.png": "best",
        "Vegetables/Garlic/1.png": "worst",
    }
    with pytest.raises(SystemExit):
        run_command("index", ["--output", str(folder), "--classes", str(file), "--label", "parent"])
    assert "--label has no effect with --classes" in capsys.readouterr().err
    call(capsys, "index", "--output", folder, "--label", "parent")  # instead of the file
    assert "best" not in classes_of(capsys, folder, root).values()
    assert "worst" not in (folder / "collection.json").read_text()


def test_splits_are_no_part_of_a_class_unless_it_is_said(tmp_path, model_path, capsys):
    root, folder = tmp_path / "data", tmp_path / "data.index"
    products = dataset_of(tmp_path)
    for split in ("train", "val"):
        shutil.copytree(products, root / split)
    flags = ("--model", model_path, "--images", root, "--output", folder)
    out = call(capsys, "index", *flags)
    assert out.splitlines()[0] == "12 images, 2 classes (the first folder)."
    assert "Splits, by the names of the first folders: train 6, val 6" in out
    out = call(capsys, "index", "--output", folder, "--no-splits")
    assert out.splitlines()[0] == "12 images, 2 classes (the first folder)."
    found = searched(capsys, folder, "--image", products / "Fruit/Apple/Red/0.png")
    assert {each["class"] for each in found} == {"train", "val"}


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
    settings["version"] = VERSION + 1
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


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_rows_for_programs_have_the_distance_alone(index, photos, capsys, form):
    given = ["--index", index, "--image", photos, form, "--metric", "cosine"]
    with pytest.raises(SystemExit) as end:
        run_command("search", [*map(str, given)])
    assert end.value.code == 2
    assert "--metric has no effect with --json and --csv" in capsys.readouterr().err


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


def test_smoothed_rows_from_index_to_search(index, photos, capsys):
    query = ("--image", photos / "b/4.png", "--top", 9)
    plain = searched(capsys, index, *query)
    assert all(each["smoothed_distance"] is None for each in plain)
    out = call(capsys, "index", "--output", index, "--smooth", 3).splitlines()
    assert out[-1] == (
        "Smoothed over 3 nearest, power 2, as given: 6 of 6 rows recomputed. "
        "`search --no-smooth` ranks by the plain rows."
    )
    found = searched(capsys, index, *query)
    assert [each["path"] for each in found] != [each["path"] for each in plain]
    by = [each["smoothed_distance"] for each in found]
    assert by == sorted(by) and by[0] > 0
    distances = {each["path"]: (each["distance"], each["cosine"]) for each in plain}
    assert {each["path"]: (each["distance"], each["cosine"]) for each in found} == distances
    assert searched(capsys, index, *query, "--no-smooth") == plain
    assert searched(capsys, index, *query, "--smooth") == found
    rows = list(
        csv.DictReader(io.StringIO(call(capsys, "search", "--index", index, *query, "--csv")))
    )
    assert [float(row["smoothed_distance"]) for row in rows] == by
    assert run_command("search", ["--index", str(index), *map(str, query), "--explain_cost"]) == 0
    printed = capsys.readouterr()
    assert "6 of 6 images compared (100.0%); recall@7 against exact 1.000" in printed.out
    assert printed.err == (
        "Ranked by smoothed rows (over 3 nearest, power 2); --no-smooth ranks by the distances "
        "shown.\n"
    )
    in_b = searched(capsys, index, *query, "--class", "b", "--like", photos / "a/1.png")
    assert len(in_b) == 4 and all(each["smoothed_distance"] for each in in_b)
    collection = Collection.open(index)
    results = collection.search(photos / "b/4.png", 9)
    assert results.rows() == found and results.ranking in repr(results)
    assert collection.search(photos / "b/4.png", 9, smooth=False).rows() == plain


def test_smoothed_rows_follow_the_collection(index, photos, capsys):
    call(capsys, "index", "--output", index, "--index", "clusters", "--smooth", 3)
    (photos / "b/4.png").unlink()
    Image.new("RGB", (40, 40), "teal").save(photos / "new.png")
    out = call(capsys, "index", "--output", index, "--measure")
    last = out.splitlines()[-1]
    assert last.startswith("Smoothed over 3 nearest, power 2: ") and " of 6 rows recomputed" in last
    assert "a search visits 1 of 1 clusters" in last
    assert "Of 6 queries in the smoothed rows, one at a time, against exact search" in out
    found = searched(capsys, index, "--image", photos / "new.png", "--top", 99)
    assert len(found) == 7 and str(photos / "new.png") in {each["path"] for each in found}
    last = call(capsys, "index", "--output", index, "--smooth", "--smooth_power", 2).splitlines()[
        -1
    ]
    assert re.match("(Smoothed over .* power 2|Not smoothed), chosen by their classes: MAP@R", last)
    call(capsys, "index", "--output", index, "--smooth", 3)
    out = call(capsys, "index", "--output", index, "--smooth", 0)
    assert out.splitlines()[-1] == "Not smoothed, as given."
    assert "Smoothed" not in call(capsys, "index", "--output", index)
    assert not list(index.glob("smoothed*"))


def test_a_guess_of_the_smoothing_names_the_flags(tmp_path, photos, model_path, capsys):
    shutil.rmtree(photos / "b")
    flags = ("--model", model_path, "--images", photos, "--output", tmp_path / "few")
    last = call(capsys, "index", *flags, "--smooth").splitlines()[-1]
    assert last.startswith("Not smoothed, a guess, because fewer than two classes have two images")
    assert "--smooth K and --smooth_power P" in last


def test_what_cannot_be_smoothed_is_one_line(tmp_path, index, photos, model_path, capsys):
    query = ("--index", index, "--image", photos / "a/1.png")
    refused = call(capsys, "search", *query, "--smooth", code=1)
    assert (
        f"has no smoothed rows; make them with: python -m deep_ranking index --output {index}"
        in (refused)
    )
    for command, flags, said in (
        ("search", (*query, "--no-smooth"), "--no-smooth has no effect with an index that is not"),
        (
            "index",
            ("-o", index, "--smooth_power", 2),
            "--smooth_power has no effect without --smooth",
        ),
        ("index", ("-o", index, "--smooth", 0, "--smooth_power", 2), "no effect without --smooth"),
        ("index", ("-o", index, "--smooth", 1), "must be 0 for the plain rows, or 2 to 1,000"),
        ("index", ("-o", index, "--smooth", "x"), "must be 0 for the plain rows, or 2 to 1,000"),
        ("index", ("-o", index, "--smooth", "--smooth_power", 0), "must be above 0"),
    ):
        with pytest.raises(SystemExit):
            run_command(command, list(map(str, flags)))
        assert said in capsys.readouterr().err
    uri = tmp_path / "m.db"
    assert "searches the rows that its server holds" in call(
        capsys, "index", "-o", index, "--index", uri, "--smooth", 3, code=1
    )
    part = ("-m", model_path, "--images", photos, "-o", tmp_path / "part", "--shard", "1/1")
    assert "is a shard" in call(capsys, "index", *part, "--smooth", 3, code=1)
    call(capsys, "index", "-o", index, "--smooth", 3)
    kept = (index / "smoothed.bin").read_bytes()
    assert "--smooth 0 gives them up" in call(capsys, "index", "-o", index, "--index", uri, code=1)
    assert (index / "smoothed.bin").read_bytes() == kept and not uri.exists()


def test_a_merge_keeps_its_output_smoothed(tmp_path, photos, model_path, capsys):
    parts = [tmp_path / "part1", tmp_path / "part2"]
    for number, part in enumerate(parts, start=1):
        flags = ("--model", model_path, "--images", photos, "--shard", f"{number}/2")
        call(capsys, "index", *flags, "--output", part)
    whole = tmp_path / "whole"
    assert "moothed" not in call(capsys, "merge", *parts, "--output", whole)
    call(capsys, "index", "--output", whole, "--smooth", 3)
    Image.new("RGB", (40, 40), "teal").save(photos / "new.png")
    for part in parts:
        call(capsys, "index", "--output", part)
    out = call(capsys, "merge", *parts, "--output", whole)
    assert out.splitlines()[-1].startswith("Smoothed over 3 nearest, power 2: ")
    found = searched(capsys, whole, "--image", photos / "new.png", "--top", 99)
    assert len(found) == 8 and all(each["smoothed_distance"] for each in found)
