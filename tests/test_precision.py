"""What a collection is computed in: chosen once, kept, and the same for its queries."""

import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from stubs import save_thin_model

from deep_ranking.cli.main import run_command
from deep_ranking.embedding.compiled import compiling
from deep_ranking.embedding.compiled.compiling import compile_model
from deep_ranking.embedding.compiled.file import read_compiled
from deep_ranking.embedding.compiled.places import keep_compiled
from deep_ranking.embedding.embedder import Embedder
from deep_ranking.files import InputError
from deep_ranking.model.calibration import fit_calibration
from deep_ranking.model.header import read_header, store_calibration
from deep_ranking.search.collection import Collection, locked, precision
from deep_ranking.search.collection.merging import merge
from deep_ranking.search.indexing import index_images
from deep_ranking.search.searcher import Searcher

pytestmark = pytest.mark.usefixtures("thin_vgg16", "models_loaded_once")


@pytest.fixture(scope="module")
def int8_once(tmp_path_factory, compiled_once, thin_vgg16):
    """A folder with a model, m.h5, compiled in both precisions. Not to be written to."""
    folder = tmp_path_factory.mktemp("int8") / "model"
    shutil.copytree(compiled_once, folder)
    compile_model(folder / "m.h5", precision="int8")
    return folder


@pytest.fixture
def int8_model(int8_once, tmp_path):
    shutil.copytree(int8_once, tmp_path / "int8")
    return tmp_path / "int8" / "m.h5"


@pytest.fixture
def plain_model(tmp_path):
    """A model that is not compiled."""
    return save_thin_model(tmp_path / "plain.h5")


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    Image.fromarray(cells).resize((36, 36), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    for number in range(8):
        draw(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "photos"


def stored(collection):
    """The rows of a collection by path."""
    with closing(collection.images()) as images:
        rows = {image.path: image.row for image in images.images()}
    return {path: np.asarray(collection.embeddings()[row]) for path, row in rows.items()}


def assert_computed_by(collection, model, wanted):
    """The rows are those of an embedder of the model in the precision, to the byte."""
    rows = stored(collection)
    paths = [f"{collection.settings.root}/{path}" for path in rows]
    expected, _ = Embedder(model, precision=wanted)(paths)
    np.testing.assert_array_equal(np.stack(list(rows.values())), expected)


def test_rows_and_queries_of_an_int8_collection_are_int8(int8_model, photos, tmp_path, monkeypatch):
    done = index_images(tmp_path / "index", model=int8_model, images=photos, precision="int8")
    collection = Collection.open(done.collection.folder)
    assert collection.settings.precision == "int8"
    assert_computed_by(collection, int8_model, "int8")
    query = draw(tmp_path / "query.png", 99)
    row = Searcher(collection).search_images(query).embeddings
    expected, _ = Embedder(int8_model, precision="int8")([query])
    np.testing.assert_array_equal(row, expected)
    exact, _ = Embedder(int8_model, precision="float32")([query])
    assert np.abs(exact - expected).max() > 1e-5
    draw(photos / "a" / "new.png", 50)  # what is added later is int8, too
    index_images(tmp_path / "index")
    assert_computed_by(Collection.open(tmp_path / "index"), int8_model, "int8")


def test_a_collection_in_float32_uses_no_int8(int8_model, photos, tmp_path):
    index_images(tmp_path / "index", model=int8_model, images=photos)
    collection = Collection.open(tmp_path / "index")
    assert collection.settings.precision == "float32"
    assert_computed_by(collection, int8_model, "float32")


def test_the_precision_of_rows_cannot_change(int8_model, photos, tmp_path, capsys):
    folder = tmp_path / "index"
    index_images(folder, model=int8_model, images=photos, precision="int8")
    before = {each.name: each.read_bytes() for each in folder.iterdir() if each.name != "holder"}
    command = ["--output", str(folder), "--precision", "float32"]
    assert run_command("index", command) == 1
    assert capsys.readouterr().err == (
        f"error: {folder}: made with --precision int8, which cannot change; choose another "
        "--output\n"
    )
    after = {each.name: each.read_bytes() for each in folder.iterdir() if each.name != "holder"}
    assert after == before
    for wanted in ("int8", "auto"):
        assert run_command("index", ["--output", str(folder), "--precision", wanted]) == 0
    assert Collection.open(folder).settings.precision == "int8"


def test_other_precisions_are_refused(int8_model, photos, tmp_path):
    with pytest.raises(InputError, match=r"float32, int8, auto\. Received: bfloat16"):
        index_images(tmp_path / "index", model=int8_model, images=photos, precision="bfloat16")
    with pytest.raises(SystemExit) as end:
        run_command("index", ["--output", "index", "--precision", "bfloat16"])
    assert end.value.code == 2


def test_a_few_images_are_not_worth_compiling(plain_model, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compiling, "compile_model", None)
    index_images(tmp_path / "index", model=plain_model, images=photos, precision="auto")
    collection = Collection.open(tmp_path / "index")
    assert collection.settings.precision == "float32"
    assert list(collection.folder.glob("*.litert")) == []
    said = capsys.readouterr()
    assert said.err == "" and "Precision" not in said.out


@pytest.mark.slow
def test_many_images_compile_the_collections_own_model(
    plain_model, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(precision, "WORTH_COMPILING", 8)
    before = plain_model.read_bytes()
    index_images(tmp_path / "index", model=plain_model, images=photos, precision="auto")
    collection = Collection.open(tmp_path / "index")
    assert len(list(collection.folder.glob("model.*.float32.litert"))) == 1
    assert collection.embedder.engine().name == "LiteRT, float32"
    assert_computed_by(collection, collection.model, "float32")
    assert plain_model.read_bytes() == before and not list(tmp_path.glob("*.litert"))


@pytest.mark.slow
def test_what_cannot_be_compiled_is_embedded_by_keras(
    plain_model, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(precision, "WORTH_COMPILING", 8)
    monkeypatch.setattr(compiling, "MAX_DIFFERENCE", -1.0)
    index_images(tmp_path / "index", model=plain_model, images=photos)
    (line,) = capsys.readouterr().err.splitlines()
    assert "not compiled in float32" in line and line.endswith("; embedding with Keras")
    assert len(stored(Collection.open(tmp_path / "index"))) == 8


@pytest.mark.parametrize(
    ("recall", "chosen", "finds"),
    [
        (0.97, "int8", "finds 97.0%"),
        pytest.param(0.9, "float32", "finds 90.0%", marks=pytest.mark.slow),
        pytest.param(None, "float32", "was compared on too few images", marks=pytest.mark.slow),
    ],
)
def test_auto_measures_int8_and_says_what_it_chose(  # noqa: PLR0917
    plain_model, photos, tmp_path, monkeypatch, capsys, recall, chosen, finds
):
    monkeypatch.setattr(precision, "WORTH_INT8", {True: 8, False: 8})
    monkeypatch.setattr(compiling, "recall_of", lambda *_: recall)
    arguments = ["-m", plain_model, "--images", photos, "--output", tmp_path / "index"]
    assert run_command("index", list(map(str, arguments))) == 0  # auto is the default
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if line.startswith("Precision:")]
    assert line.startswith(f"Precision: {chosen}, as int8 {finds}")
    assert line.endswith("95% are asked for; --precision changes it.") and said.err == ""
    collection = Collection.open(tmp_path / "index")
    assert collection.settings.precision == chosen
    if chosen == "int8":
        assert_computed_by(collection, collection.model, "int8")
    assert run_command("index", ["--output", str(tmp_path / "index")]) == 0
    assert "Precision" not in capsys.readouterr().out


@pytest.mark.slow
def test_auto_takes_float32_where_int8_does_not_hold_its_bound(
    plain_model, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(precision, "WORTH_INT8", {True: 8, False: 8})
    monkeypatch.setattr(compiling, "MIN_COSINE", 2.0)
    index_images(tmp_path / "index", model=plain_model, images=photos, precision="auto")
    (line,) = capsys.readouterr().err.splitlines()
    assert "not compiled in int8" in line and line.endswith("; embedding in float32")
    assert Collection.open(tmp_path / "index").settings.precision == "float32"
    with pytest.raises(InputError, match="not compiled in int8"):  # asked for, it is an error
        index_images(tmp_path / "other", model=plain_model, images=photos, precision="int8")


def test_auto_takes_what_the_model_is_compiled_in_and_says_so(int8_model, photos, tmp_path, capsys):
    index_images(tmp_path / "index", model=int8_model, images=photos, precision="auto")
    assert Collection.open(tmp_path / "index").settings.precision == "int8"
    assert "Precision: int8, which the model is compiled in" in capsys.readouterr().out


def test_a_collection_takes_the_compiled_files_along(int8_model, photos, tmp_path):
    index_images(tmp_path / "index", model=int8_model, images=photos)
    fingerprint = read_header(int8_model).fingerprint[:12]
    found = sorted(each.name for each in (tmp_path / "index").glob("*.litert"))
    assert found == [f"model.{fingerprint}.{name}.litert" for name in ("float32", "int8")]
    shutil.rmtree(int8_model.parent)
    shutil.move(tmp_path / "index", tmp_path / "moved")
    assert Collection.open(tmp_path / "moved").embedder.engine().name == "LiteRT, float32"


def test_a_model_calibrated_since_leaves_the_compiled_files(
    int8_model, plain_model, photos, tmp_path
):
    """The collection was compiled, its model never was, as where `index` compiled it."""
    folder = tmp_path / "index"
    index_images(folder, model=int8_model, images=photos, precision="int8")
    before = read_header(folder / "model.h5").compiled
    rng = np.random.default_rng(0)
    calibration = fit_calibration(rng.uniform(0.2, 1.2, 200), rng.uniform(0.8, 1.9, 200))
    store_calibration(plain_model, calibration)
    index_images(folder, model=plain_model)
    collection = Collection.open(folder)
    assert collection.calibration == calibration
    assert read_header(collection.model).compiled == before
    assert collection.embedder.engine().name == "LiteRT, int8"


def test_a_model_compiled_since_brings_its_files_and_replaces_none(
    compiled_model, int8_model, plain_model, photos, tmp_path
):
    folder = tmp_path / "index"
    index_images(folder, model=plain_model, images=photos)
    assert Collection.open(folder).embedder.engine().name == "Keras"
    index_images(folder, model=compiled_model)
    assert Collection.open(folder).embedder.engine().name == "LiteRT, float32"
    # Compiled again: other bytes, of which those in the collection know nothing.
    header = read_header(int8_model)
    (file,) = int8_model.parent.glob("*.float32.litert")
    digest = header.compiled["float32"]
    whole = read_compiled(file, digest)
    other = replace(whole, header=replace(whole.header, scheme="another"))
    keep_compiled(int8_model, other)
    before = read_header(folder / "model.h5").compiled
    index_images(folder, model=int8_model)
    after = read_header(folder / "model.h5").compiled
    assert after == before | {"int8": header.compiled["int8"]}
    assert Collection.open(folder).embedder.engine().name == "LiteRT, float32"


@pytest.mark.slow
def test_auto_does_not_count_on_files_that_were_left_behind(int8_model, photos, tmp_path, capsys):
    """The model file alone was copied here, and names them."""
    for file in int8_model.parent.glob("*.litert"):
        file.unlink()
    index_images(tmp_path / "index", model=int8_model, images=photos, precision="auto")
    collection = Collection.open(tmp_path / "index")
    assert collection.settings.precision == "float32"
    assert "Precision" not in capsys.readouterr().out
    assert_computed_by(collection, collection.model, "float32")


@pytest.mark.slow
def test_a_lost_compiled_file_of_an_int8_collection_is_made_anew(
    int8_model, photos, tmp_path, capsys
):
    index_images(tmp_path / "index", model=int8_model, images=photos, precision="int8")
    (file,) = (tmp_path / "index").glob("*.int8.litert")
    file.unlink()
    query = draw(tmp_path / "query.png", 99)
    row = Searcher(Collection.open(tmp_path / "index")).search_images(query).embeddings
    np.testing.assert_array_equal(row, Embedder(int8_model, precision="int8")([query])[0])
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{file}: missing, though the model names it; compiling it anew"


def test_rows_of_another_precision_are_never_added(int8_model, photos, tmp_path, monkeypatch):
    """The compiled file is lost and cannot be made anew: nothing is embedded by Keras instead."""
    folder = tmp_path / "index"
    index_images(folder, model=int8_model, images=photos, precision="int8")
    num_rows = len(Collection.open(folder).store)
    (file,) = folder.glob("*.int8.litert")
    file.unlink()
    new = draw(photos / "new.png", 99)
    given = []

    def refuse(_, precision, images):
        given.extend([precision, *map(str, images)])
        raise InputError("cannot be compiled")

    monkeypatch.setattr(precision, "_compile", refuse)
    with pytest.raises(InputError, match="cannot be compiled"):
        index_images(folder)
    assert given[:2] == ["int8", str(new)]  # and the images that are known, to calibrate on
    assert len(given) == 2 + num_rows
    assert len(Collection.open(folder).store) == num_rows


# Shards


@pytest.fixture
def shards(int8_model, photos, tmp_path):
    def make(*precisions):
        parts = []
        for number, each in enumerate(precisions, start=1):
            folder = tmp_path / f"part{number} {each}"
            shard = (number, len(precisions))
            index_images(folder, model=int8_model, images=photos, shard=shard, precision=each)
            parts.append(Collection.open(folder))
        return parts

    return make


def merged(parts, output):
    with locked(output):
        return merge(parts, output)


def test_shards_of_different_precisions_are_not_merged(shards, tmp_path):
    parts = shards("float32", "int8")
    with pytest.raises(InputError, match=r"has precision int8, and .*part1 float32 float32") as got:
        merged(parts, tmp_path / "whole")
    assert "same settings" in str(got.value)
    assert not (tmp_path / "whole" / "collection.json").exists()


def test_shards_are_merged_with_their_compiled_files(shards, tmp_path, int8_model):
    whole = merged(shards("int8", "int8"), tmp_path / "whole")
    assert Collection.open(whole.folder).settings.precision == "int8"
    assert len(list(whole.folder.glob("model.*.int8.litert"))) == 1
    assert whole.embedder.engine().name == "LiteRT, int8"
    assert_computed_by(whole, int8_model, "int8")
    with pytest.raises(InputError, match="was computed in int8, and the shards in float32"):
        merged(shards("float32", "float32"), tmp_path / "whole")
    assert_computed_by(Collection.open(whole.folder), int8_model, "int8")
