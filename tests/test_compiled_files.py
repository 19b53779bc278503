"""Which compiled files are trusted: those whose digest the model or the cache names; no others."""

import dataclasses
import io
import json
import os
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from stubs import save_thin_model

import deep_ranking.embedding.compiled.file as compiled_file
from deep_ranking.embedding import embedder as embedder_module
from deep_ranking.embedding.compiled import compiling, opening, places
from deep_ranking.embedding.compiled.compiling import compile_model
from deep_ranking.embedding.compiled.file import made_up_images, read_compiled, write_compiled
from deep_ranking.embedding.compiled.opening import usable_engine
from deep_ranking.embedding.compiled.places import copy_compiled, keep_compiled, open_compiled
from deep_ranking.embedding.embedder import Embedder
from deep_ranking.files import InputError
from deep_ranking.files.content_digest import data_digest
from deep_ranking.model import header as model_header
from deep_ranking.model.calibration import fit_calibration
from deep_ranking.model.file import save_model
from deep_ranking.model.header import COMPILED_ATTRIBUTE, read_header, store_calibration

pytestmark = pytest.mark.usefixtures("thin_vgg16", "models_loaded_once")
IMAGES = made_up_images(32)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("DEEP_RANKING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiled(compiled_model):
    """The compiled file of `compiled_model`."""
    (file,) = compiled_model.parent.glob("*.litert")
    return file


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setattr(embedder_module, "find_spec", lambda _: None)


@pytest.fixture
def unopened(monkeypatch):
    """Fails if a compiled file is looked into."""

    def fail(*_, **__):
        raise AssertionError("it was opened")

    monkeypatch.setattr(opening, "LiteRTEngine", fail)
    monkeypatch.setattr(compiled_file.zipfile, "ZipFile", fail)


@pytest.fixture
def recompiled(monkeypatch):
    """Compiling puts back what was there: the calls, in place of two seconds each."""
    calls = []

    def prepare(model):
        (file,) = model.parent.glob("*.litert")
        whole = file.read_bytes()

        def compile_again(path, *, precision):
            calls.append((path, precision))
            if file.is_dir() and not file.is_symlink():
                raise InputError(f"{file}: is a folder; expected the name of a file to write")
            file.unlink(missing_ok=True)
            file.write_bytes(whole)

        monkeypatch.setattr(compiling, "compile_model", compile_again)
        return calls

    return prepare


def rows_of(model):
    return Embedder(model).engine().embed(IMAGES)


def name_digest(model, digest, precision="float32"):
    with h5py.File(model, "r+") as file:
        file.attrs[COMPILED_ATTRIBUTE] = json.dumps({precision: digest})


def rewritten(compiled, **changes):
    """A compiled model with another header, written to its place; its digest."""
    digest = data_digest(compiled.read_bytes()).hex()
    whole = read_compiled(compiled, digest)
    header = dataclasses.replace(whole.header, **changes)
    return write_compiled(compiled, dataclasses.replace(whole, header=header))


def test_the_model_names_the_digest_of_its_file(compiled_model, compiled):
    assert read_header(compiled_model).compiled == {
        "float32": data_digest(compiled.read_bytes()).hex()
    }
    found = open_compiled(compiled_model, read_header(compiled_model), "float32")
    assert found.path == compiled and found.compiled.header.precision == "float32"


def test_a_file_that_nobody_names_is_never_opened(compiled_model, cache, unopened):
    with h5py.File(compiled_model, "r+") as file:
        del file.attrs[COMPILED_ATTRIBUTE]
    header = read_header(compiled_model)
    folder = cache / "compiled" / header.fingerprint
    folder.mkdir(parents=True)
    (file,) = compiled_model.parent.glob("*.litert")
    shutil.copy(file, folder / "float32.litert")  # without a record
    assert open_compiled(compiled_model, header, "float32") is None
    for record in (
        b"",
        b"[]",
        b"{}",
        b'{"float32": 7}',
        b'{"float32": "ab"}',
        b"\xff",
        b"[" * 9999,
    ):
        (folder / "digests.json").write_bytes(record)
        assert open_compiled(compiled_model, header, "float32") is None
    (folder / "digests.json").unlink()
    os.mkfifo(folder / "digests.json")
    assert open_compiled(compiled_model, header, "float32") is None


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def assert_refused(model, match="damaged, or not the file that its model names"):
    """Without TensorFlow, one error names the file and the remedy."""
    with pytest.raises(InputError, match=match) as caught:
        Embedder(model).engine()
    said = str(caught.value)
    assert "compile --model m.h5" in said and "\n" not in said
    assert said.startswith(str(model.parent)), said


def test_one_flipped_bit_anywhere_is_refused(compiled_model, compiled, no_tensorflow, unopened):
    whole = compiled.read_bytes()
    places = np.linspace(0, len(whole) - 1, 24).astype(int).tolist()
    for place in [*places, *range(len(whole) - 60, len(whole), 7)]:
        compiled.write_bytes(flipped(whole, place))
        assert_refused(compiled_model)


def test_a_file_cut_off_or_with_more_at_its_end_is_refused(
    compiled_model, compiled, no_tensorflow, unopened
):
    whole = compiled.read_bytes()
    for length in (0, 1, 30, 1000, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        compiled.write_bytes(whole[:length])
        assert_refused(compiled_model)
    compiled.write_bytes(whole + b"\0")
    assert_refused(compiled_model)


@pytest.mark.usefixtures("no_tensorflow", "unopened", "time_limit")
def test_what_is_no_file_is_refused(compiled_model, compiled, tmp_path):
    compiled.unlink()
    assert_refused(compiled_model, "missing, though the model names it")
    compiled.mkdir()
    assert_refused(compiled_model, "cannot be read.*directory")
    compiled.rmdir()
    os.mkfifo(compiled)
    assert_refused(compiled_model, "cannot be read .not a regular file")
    compiled.unlink()
    compiled.symlink_to(tmp_path / "nowhere")
    assert_refused(compiled_model, "missing, though the model names it")
    compiled.unlink()
    compiled.symlink_to("/dev/zero")
    assert_refused(compiled_model, "cannot be read .not a regular file")
    compiled.unlink()
    (tmp_path / "other").write_bytes(b"x" * 999)
    compiled.symlink_to(tmp_path / "other")
    assert_refused(compiled_model)


def test_a_link_to_the_right_file_is_as_good(compiled_model, compiled, tmp_path):
    wanted = rows_of(compiled_model)
    compiled.rename(tmp_path / "elsewhere")
    compiled.symlink_to(tmp_path / "elsewhere")
    np.testing.assert_array_equal(rows_of(compiled_model), wanted)


def test_the_file_of_another_model_is_refused(compiled_model, compiled, no_tensorflow):
    other = save_thin_model(compiled_model.with_name("other.h5"), seed=9)
    shutil.copy(compiled, places.compiled_path(other, read_header(other).fingerprint, "float32"))
    name_digest(other, data_digest(compiled.read_bytes()).hex())
    with pytest.raises(InputError, match="compiled from another model"):
        Embedder(other).engine()


def test_the_file_of_another_precision_is_refused(compiled_model, compiled, no_tensorflow):
    header = read_header(compiled_model)
    shutil.copy(compiled, places.compiled_path(compiled_model, header.fingerprint, "int8"))
    name_digest(compiled_model, header.compiled["float32"], "int8")
    with pytest.raises(InputError, match="compiled from another model"):
        Embedder(compiled_model, precision="int8").engine()


def zipped(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return content.getvalue()


def members_of(compiled):
    with zipfile.ZipFile(compiled) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("kind", ["none", "no network", "no header", "no check", "pickle", "list",
                                  "text", "a field less", "empty", "not a zip"])  # fmt: skip
def test_other_contents_of_the_right_digest_are_told(compiled_model, compiled, kind, no_tensorflow):
    members = members_of(compiled)
    header = json.loads(members["header.json"])
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    changes = {
        "none": dict.fromkeys(members),
        "no network": {"model.tflite": None},
        "no header": {"header.json": None},
        "no check": {"check.npy": None},
        "pickle": {"check.npy": pickled.getvalue()},
        "list": {"header.json": b"[]"},
        "text": {"header.json": b"\xff"},
        "a field less": {"header.json": json.dumps(header | {"cosine": 1}).replace("cosine", "c")},
        "empty": {"model.tflite": b""},
    }.get(kind, {})
    content = zipped({name: part for name, part in (members | changes).items() if part is not None})
    compiled.write_bytes(b"no zip" if kind == "not a zip" else content)
    name_digest(compiled_model, data_digest(compiled.read_bytes()).hex())
    with pytest.raises(InputError, match=r"not a compiled model|cannot open") as caught:
        Embedder(compiled_model).engine()
    assert "\n" not in str(caught.value)


def test_a_format_of_the_future_is_told(compiled_model, compiled, no_tensorflow):
    name_digest(compiled_model, rewritten(compiled, format=compiled_file.FORMAT + 1))
    assert_refused(compiled_model, "of another version of deep ranking")


@pytest.mark.parametrize("changes", [{"engine": "99.0"}, {"processor": "Linux vax"}], ids=str)
def test_another_engine_or_processor_is_checked(
    compiled_model, compiled, changes, no_tensorflow, monkeypatch
):
    wanted = rows_of(compiled_model)
    name_digest(compiled_model, rewritten(compiled, **changes))
    np.testing.assert_array_equal(rows_of(compiled_model), wanted)  # it computes the same here
    digest = data_digest(compiled.read_bytes()).hex()
    whole = read_compiled(compiled, digest)
    near, far = whole.check + 1e-5, whole.check[::-1]
    name_digest(compiled_model, write_compiled(compiled, dataclasses.replace(whole, check=near)))
    np.testing.assert_array_equal(rows_of(compiled_model), wanted)
    for check in (far, whole.check[:0], np.full_like(whole.check, np.nan)):
        changed = dataclasses.replace(whole, check=check)
        name_digest(compiled_model, write_compiled(compiled, changed))
        with pytest.raises(InputError, match=r"other rows here than with|no rows to check"):
            Embedder(compiled_model).engine()


@pytest.mark.slow
def test_what_computes_other_rows_here_is_made_anew(compiled_model, compiled, capsys):
    wanted = rows_of(compiled_model)
    whole = read_compiled(compiled, data_digest(compiled.read_bytes()).hex())
    header = dataclasses.replace(whole.header, processor="Linux vax")
    changed = dataclasses.replace(whole, header=header, check=whole.check[::-1])
    name_digest(compiled_model, write_compiled(compiled, changed))
    embedder = Embedder(compiled_model)
    np.testing.assert_array_equal(embedder.engine().embed(IMAGES), wanted)
    assert embedder.engine().name == "LiteRT, float32"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{compiled}: the compiled model computes other rows here")
    assert line.endswith("; compiling it anew")


def test_where_engine_and_processor_are_the_same_nothing_is_computed(compiled_model, monkeypatch):
    monkeypatch.setattr(opening, "made_up_images", lambda _: 1 / 0)
    assert len(rows_of(compiled_model)) == 4


def test_a_header_that_says_another_size_is_refused(compiled_model, compiled, no_tensorflow):
    for changes in ({"image_size": 64}, {"dimension": 9}):
        name_digest(compiled_model, rewritten(compiled, **changes))
        with pytest.raises(InputError, match="not what its header says"):
            Embedder(compiled_model).engine()
        name_digest(compiled_model, rewritten(compiled, image_size=32, dimension=8))


DAMAGES = {
    "flipped": lambda file: file.write_bytes(flipped(file.read_bytes(), 5000)),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:5000]),
    "missing": lambda file: file.unlink(),
    "pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "link": lambda file: (file.unlink(), file.symlink_to("nowhere")),
    "folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.usefixtures("time_limit")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew_in_a_line(
    compiled_model, compiled, damage, recompiled, capsys
):
    wanted = rows_of(compiled_model)
    calls = recompiled(compiled_model)
    DAMAGES[damage](compiled)
    rows = rows_of(compiled_model)
    np.testing.assert_allclose(rows, wanted, atol=1e-4)
    assert calls == [(compiled_model, "float32")]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{compiled}: ") and lines[0].endswith("; compiling it anew")
    assert len(lines) == (2 if damage == "folder" else 1)  # then it says that Keras computes
    if damage != "folder":
        np.testing.assert_array_equal(rows_of(compiled_model), wanted)
        assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_damaged_file_is_really_made_anew(compiled_model, compiled, capsys):
    whole = compiled.read_bytes()
    compiled.write_bytes(flipped(whole, 9000))
    wanted = Embedder(compiled_model)(["nowhere"])[0]  # opens the engine
    assert capsys.readouterr().err.count("\n") == 1 and np.isnan(wanted).all()
    again = read_header(compiled_model).compiled["float32"]
    assert data_digest(compiled.read_bytes()).hex() == again
    assert len(rows_of(compiled_model)) == 4 and capsys.readouterr().err == ""


# Folders that cannot be written to. Tests may run as root, whom no permission stops.


@pytest.fixture
def read_only(monkeypatch, compiled_model):
    """Nothing can be written beside the model."""

    def refuse(function, path_at=0):
        def write(*arguments, **options):
            if compiled_model.parent in (arguments[path_at].parent, arguments[path_at]):
                raise InputError(f"{arguments[path_at]}: cannot be written (Permission denied)")
            return function(*arguments, **options)

        return write

    monkeypatch.setattr(compiled_file, "atomic_path", refuse(compiled_file.atomic_path))
    monkeypatch.setattr(model_header, "atomic_path", refuse(model_header.atomic_path))
    monkeypatch.setattr(places, "atomic_path", refuse(places.atomic_path))


def uncompiled(model):
    for file in model.parent.glob("*.litert"):
        file.unlink()
    with h5py.File(model, "r+") as file:
        del file.attrs[COMPILED_ATTRIBUTE]
    return model


@pytest.mark.slow
def test_beside_a_folder_that_is_read_only_the_cache_keeps_it(
    compiled_model, cache, read_only, no_tensorflow
):
    wanted = rows_of(compiled_model)
    model = uncompiled(compiled_model)
    before = model.read_bytes()
    report = compile_model(model)
    fingerprint = read_header(model).fingerprint
    assert report.is_new and report.path == cache / "compiled" / fingerprint / "float32.litert"
    assert [each.name for each in model.parent.iterdir()] == ["m.h5"]
    assert model.read_bytes() == before
    np.testing.assert_array_equal(rows_of(model), wanted)
    assert not compile_model(model).is_new  # found there
    record = json.loads((report.path.parent / "digests.json").read_text())
    assert record == {"float32": data_digest(report.path.read_bytes()).hex()}
    report.path.write_bytes(flipped(report.path.read_bytes(), 7000))
    with pytest.raises(InputError, match="damaged"):
        Embedder(model).engine()


@pytest.mark.slow
def test_a_model_file_that_is_read_only_has_its_compiled_file_in_the_cache(
    compiled_model, cache, monkeypatch
):
    """Its folder can be written to; but a file that it does not name would not be used."""
    model = uncompiled(compiled_model)

    def refuse(path, *_):
        raise InputError(f"{path}: cannot be written")

    monkeypatch.setattr(places, "store_attribute", refuse)
    report = compile_model(model)
    assert report.path.is_relative_to(cache)
    assert [each.name for each in model.parent.iterdir()] == ["m.h5"]
    assert open_compiled(model, read_header(model), "float32").path == report.path


@pytest.mark.slow
def test_without_a_cache_folder_too_the_error_says_so_and_keras_computes(
    compiled_model, tmp_path, monkeypatch, read_only, capsys
):
    wanted = rows_of(compiled_model)
    model = uncompiled(compiled_model)
    (tmp_path / "a file").touch()
    monkeypatch.setenv("DEEP_RANKING_CACHE", str(tmp_path / "a file"))
    with pytest.raises(InputError, match="neither the model's folder nor a cache folder can be"):
        compile_model(model)
    assert [each.name for each in model.parent.iterdir()] == ["m.h5"]
    embedder = Embedder(model)
    np.testing.assert_allclose(embedder.engine().embed(IMAGES), wanted, atol=1e-4)
    assert embedder.engine().name == "Keras" and capsys.readouterr().err == ""


def test_a_model_file_that_is_a_link_stays_one(compiled_model, tmp_path, no_tensorflow):
    """What is trained next to the file behind the link must show through it."""
    found = open_compiled(compiled_model, read_header(compiled_model), "float32")
    model = uncompiled(compiled_model)
    link = tmp_path / "best.h5"
    link.symlink_to(model)
    assert keep_compiled(link, found.compiled) == found.path
    assert link.is_symlink() and [each.name for each in tmp_path.glob("*.litert")] == []
    np.testing.assert_array_equal(rows_of(link), rows_of(model))


def test_a_name_too_long_for_a_compiled_file_is_kept_in_the_cache(compiled_model, cache):
    found = open_compiled(compiled_model, read_header(compiled_model), "float32")
    model = uncompiled(compiled_model).rename(compiled_model.with_name("m" * 250 + ".h5"))
    assert keep_compiled(model, found.compiled).is_relative_to(cache)
    assert open_compiled(model, read_header(model), "float32").path.is_relative_to(cache)


def test_a_calibrated_model_keeps_its_compiled_file(compiled_model, no_tensorflow):
    wanted = rows_of(compiled_model)
    rng = np.random.default_rng(0)
    calibration = fit_calibration(rng.uniform(0.2, 1.2, 200), rng.uniform(0.8, 1.9, 200))
    store_calibration(compiled_model, calibration)
    assert Embedder(compiled_model).calibration == calibration
    np.testing.assert_array_equal(rows_of(compiled_model), wanted)


def test_a_copy_gets_the_good_files_alone(compiled_model, compiled, tmp_path, no_tensorflow):
    wanted = rows_of(compiled_model)
    copy = tmp_path / "copy" / "model.h5"
    copy.parent.mkdir()
    shutil.copy(compiled_model, copy)
    copy_compiled(compiled_model, read_header(compiled_model), copy)
    np.testing.assert_array_equal(rows_of(copy), wanted)
    compiled.write_bytes(b"damaged")
    other = tmp_path / "other" / "model.h5"
    other.parent.mkdir()
    shutil.copy(compiled_model, other)
    copy_compiled(compiled_model, read_header(compiled_model), other)
    assert [each.name for each in other.parent.iterdir()] == ["model.h5"]


def test_the_same_model_gives_the_same_file(compiled_model, compiled, tmp_path):
    digest = data_digest(compiled.read_bytes()).hex()
    assert write_compiled(tmp_path / "again", read_compiled(compiled, digest)) == digest


def test_a_saved_copy_is_not_compiled(compiled_model, tmp_path):
    from deep_ranking.model.file import load_model

    save_model(load_model(compiled_model), tmp_path / "saved.h5")
    assert read_header(tmp_path / "saved.h5").compiled == {}
    assert Embedder(tmp_path / "saved.h5").engine().name == "Keras"


def test_engine_of_a_usable_file(compiled_model):
    found = open_compiled(compiled_model, read_header(compiled_model), "float32")
    engine = usable_engine(found.compiled, found.digest)
    assert engine.key == found.digest and engine.name == "LiteRT, float32"
    assert (engine.image_size, engine.dimension) == (32, 8) and engine.num_threads >= 1
