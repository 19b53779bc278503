"""A compiled model computes the rows of Keras, to a stated bound, or is not kept."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from stubs import save_thin_model

from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.compiled import compiling, converting
from deep_ranking.embedding.compiled.compiling import compile_model, recall_of, rows_of
from deep_ranking.embedding.compiled.file import made_up_images
from deep_ranking.embedding.compiled.opening import litert_engine, usable_engine
from deep_ranking.embedding.compiled.places import open_compiled
from deep_ranking.embedding.engines.keras_model import KerasEngine
from deep_ranking.files import InputError
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.header import read_header
from deep_ranking.model.network import build_network

pytestmark = pytest.mark.usefixtures("thin_vgg16", "models_loaded_once")


def pictures(size, count=24, seed=7):
    """Pictures of coarse coloured cells: uint8 (count, size, size, 3)."""
    rng = np.random.default_rng(seed)
    cells = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)) for _ in range(count)]
    return np.stack(
        [np.asarray(each.resize((size, size), Image.Resampling.BICUBIC)) for each in cells]
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files of 24 pictures, and one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(pictures(40)):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "99.png").write_bytes(b"no image")
    return sorted(folder.iterdir())


def opened(model, precision="float32"):
    """The engine of the compiled file, and that of Keras."""
    found = open_compiled(model, read_header(model), precision)
    return usable_engine(found.compiled), KerasEngine(load_model(model), 8)


def files_of(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def assert_same_rows(model):
    ours, keras_rows = opened(model)
    size = ours.image_size
    edge_cases = np.stack([np.full((size, size, 3), value, np.uint8) for value in (0, 1, 255)])
    for images in (made_up_images(size), pictures(size), edge_cases):
        np.testing.assert_allclose(
            rows_of(ours, images), rows_of(keras_rows, images), atol=1e-4, rtol=0
        )


def test_rows_are_those_of_keras(compiled_model):
    assert_same_rows(compiled_model)
    rows = rows_of(opened(compiled_model)[0], pictures(32))
    assert np.ptp(rows, axis=0).max() > 0.01  # images differ by more than the tolerance
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"multiscale": "blog", "hidden_layers": 1, "hidden_size": 8},
        {"multiscale": "paper", "backbone_size": 64},
        {"multiscale": "texture"},
        {"pooled_blocks": 2},
    ],
    ids=str,
)
def test_rows_of_networks_with_more_parts(tmp_path, changes):
    model = save_thin_model(tmp_path / "m.h5", **changes)
    report = compile_model(model)
    assert report.is_new and report.header.difference < 1e-4
    assert_same_rows(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "size"),
    [("efficientnet-lite0", 32), ("efficientnet-lite0", 64), ("vgg16", 32)],
)
def test_rows_of_real_backbones(tmp_path, monkeypatch, backbone, size):
    if backbone == "vgg16":
        monkeypatch.setattr(keras.applications, "VGG16", keras.src.applications.vgg16.VGG16)
    config = NetworkConfig(
        backbone=backbone, image_size=size, weights=None, hidden_layers=0, embedding_size=16
    )
    save_model(build_network(config, seed=0), tmp_path / "m.h5")
    compile_model(tmp_path / "m.h5")
    assert_same_rows(tmp_path / "m.h5")


def assert_holds_in_int8(model, report, scheme):
    ours, keras_rows = opened(model, "int8")
    images = pictures(ours.image_size)
    cosines = (rows_of(ours, images) * rows_of(keras_rows, images)).sum(axis=1)
    assert cosines.mean() >= compiling.MIN_COSINE
    assert cosines.min() < 1 - 1e-6  # it is int8
    assert report.header.cosine == pytest.approx(cosines.mean(), abs=5e-3)
    assert report.header.scheme.startswith(scheme)


@pytest.mark.slow
def test_int8_without_images_holds_its_bound(compiled_model):
    size = next(compiled_model.parent.glob("*.litert")).stat().st_size
    report = compile_model(compiled_model, precision="int8")
    assert_holds_in_int8(compiled_model, report, "int8 kernels")
    assert report.header.recall is None and report.header.num_images == 0
    assert report.path.stat().st_size < 0.5 * size
    assert len(list(compiled_model.parent.glob("*.litert"))) == 2  # float32 stays


@pytest.mark.slow
def test_int8_by_images_holds_its_bound(compiled_model, photos, monkeypatch):
    """By the scheme of networks with depthwise convolutions, on one without: it takes less long."""
    monkeypatch.setattr(converting, "needs_images", lambda _: True)
    report = compile_model(compiled_model, precision="int8", images=photos)
    assert_holds_in_int8(compiled_model, report, "backbone in int8")
    assert report.header.num_images == 24  # not the one that is no image


@pytest.mark.slow
def test_int8_of_efficientnet_is_close_on_made_up_images(tmp_path, photos, monkeypatch):
    """On photographs the mean cosine is .997 and more; these are patches of noise of 64 pixels."""
    monkeypatch.setattr(compiling, "MIN_COSINE", 0.98)
    config = NetworkConfig(
        backbone="efficientnet-lite0", image_size=64, weights="imagenet", hidden_layers=0,
        embedding_size=16,
    )  # fmt: skip
    model = tmp_path / "m.h5"
    save_model(build_network(config, seed=0), model)
    with pytest.raises(InputError, match=r"at least 20 images.* 0 can be read.*--calibrate"):
        compile_model(model, precision="int8")
    report = compile_model(model, precision="int8", images=photos)
    assert report.header.scheme.startswith("backbone in int8, its first 5 ")
    assert 0.98 <= report.header.cosine < 1


def test_too_few_images_to_calibrate_on(compiled_model, photos, monkeypatch):
    monkeypatch.setattr(converting, "needs_images", lambda _: True)
    before = files_of(compiled_model.parent)
    for images, number in ((photos[:19], 19), ([*photos[:10], photos[-1]], 10)):
        with pytest.raises(InputError, match=f"at least 20 images.* {number} can be read"):
            compile_model(compiled_model, precision="int8", images=images)
    assert files_of(compiled_model.parent) == before


@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_what_does_not_hold_the_bound_is_not_kept(compiled_model, monkeypatch, precision):
    """The conversion gives a network with other weights."""
    if precision == "int8":
        compile_model(compiled_model, precision=precision)
    other = load_model(save_thin_model(compiled_model.with_name("other.h5"), seed=1))
    before = files_of(compiled_model.parent)
    for name in ("to_litert", "to_dynamic_int8"):
        convert = getattr(converting, name)
        monkeypatch.setattr(converting, name, lambda _, convert=convert: convert(other))
    lines = []
    with pytest.raises(InputError, match=f"m.h5: not compiled in {precision}, as its embeddings"):
        compile_model(compiled_model, precision=precision, anew=True, progress=lines.append)
    assert files_of(compiled_model.parent) == before
    assert compile_model(compiled_model, precision=precision).is_new is False
    said = "a row differs by" if precision == "float32" else "the mean cosine is"
    assert len(lines) == 2 and said in lines[1]


def test_embeddings_that_are_not_finite_are_told(tmp_path):
    model = save_thin_model(tmp_path / "m.h5")
    network = load_model(model)
    network.get_layer("embedding").set_weights(
        [np.full_like(each, 3e38) for each in network.get_layer("embedding").get_weights()]
    )
    save_model(network, model)
    with pytest.raises(InputError, match="own embeddings are not finite"):
        compile_model(model)
    assert [each.name for each in tmp_path.iterdir()] == ["m.h5"]


def test_what_cannot_be_converted_is_told_in_a_line(compiled_model, monkeypatch):
    def fail(_):
        raise RuntimeError("no such operation: Foo\nand\nfifty lines more")

    monkeypatch.setattr(converting, "to_litert", fail)
    with pytest.raises(InputError) as caught:
        compile_model(compiled_model, anew=True)
    assert str(caught.value) == (
        "LiteRT cannot convert the model (RuntimeError: no such operation: Foo)"
    )


@pytest.mark.slow
def test_a_good_file_is_kept_unless_asked_for_anew(compiled_model, monkeypatch):
    (compiled,) = compiled_model.parent.glob("*.litert")
    written = compiled.stat().st_ino
    report = compile_model(compiled_model)
    assert not report.is_new and report.path == compiled
    assert repr(report).endswith("was there already.")
    assert compiled.stat().st_ino == written
    report = compile_model(compiled_model, anew=True)
    assert report.is_new and "was there already" not in repr(report)
    assert compiled.stat().st_ino != written
    assert_same_rows(compiled_model)


@pytest.mark.slow
def test_the_report_says_how_far_it_was_checked(compiled_model, photos):
    report = compile_model(compiled_model, images=photos, anew=True)
    lines = repr(report).splitlines()
    assert lines[0].startswith("compared with Keras on 24 images and made-up ones: rows differ by")
    assert str(report.path) in lines[1]
    assert report._repr_html_().count("<p>") == 2


def test_another_precision_is_refused(compiled_model):
    with pytest.raises(InputError, match=r"float32, int8\. Received: bfloat16"):
        compile_model(compiled_model, precision="bfloat16")


def test_recall_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(120, 6))
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    rows = reference + rng.normal(size=reference.shape) * 0.2
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for query in range(120):
        nearest = []
        for each in (rows, reference):
            others = [number for number in range(120) if number != query]
            by_distance = sorted(others, key=lambda n, e=each: np.linalg.norm(e[n] - e[query]))
            nearest.append(set(by_distance[:6]))  # one in twenty
        found.append(len(nearest[0] & nearest[1]) / 6)
    assert 0.3 < np.mean(found) < 0.9
    assert recall_of(np.float32(rows), np.float32(reference)) == pytest.approx(np.mean(found))
    assert recall_of(np.float32(reference), np.float32(reference)) == 1.0
    assert recall_of(np.float32(rows[:99]), np.float32(reference[:99])) is None


@pytest.mark.slow
def test_recall_is_measured_on_images(compiled_model, tmp_path, monkeypatch):
    """Of the ordinary limit of 100 images, a fifth: to read and compute fewer."""
    monkeypatch.setattr(compiling, "LEAST_FOR_RECALL", 20)
    for number, pixels in enumerate(pictures(32, 40)):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    images = sorted(tmp_path.glob("*.png"))
    header = compile_model(compiled_model, precision="int8", images=images).header
    ours, theirs = (rows_of(each, pictures(32, 40)) for each in opened(compiled_model, "int8"))
    assert header.recall == recall_of(ours, theirs)
    assert 0.5 < header.recall <= 1


def test_litert_gives_the_same_bytes_in_any_batch_and_thread(compiled_model):
    engine, _ = opened(compiled_model)
    images = pictures(32)
    whole = engine.embed(images)
    for begin in range(0, 24, 5):
        np.testing.assert_array_equal(
            engine.embed(images[begin : begin + 5]), whole[begin : begin + 5]
        )
    assert engine.embed(images[:0]).shape == (0, 8)


def test_many_threads_take_the_memory_of_few(compiled_model):
    """Each interpreter packs the weights for itself, and none is ever given up."""
    found = open_compiled(compiled_model, read_header(compiled_model), "float32")
    engine = litert_engine(found.compiled.network, "float32", is_for_few=True)
    images = pictures(32)
    wanted = engine.embed(images)
    with ThreadPoolExecutor(6) as threads:
        for rows in threads.map(lambda _: engine.embed(images), range(12)):
            np.testing.assert_array_equal(rows, wanted)
    assert engine.num_threads == 1 and len(engine._idle) == 1


def test_what_is_no_network_is_told(compiled_model):
    for content in (b"", b"no network", bytes(5000)):
        with pytest.raises(InputError, match="cannot open the compiled model"):
            litert_engine(content, "float32")


BOTH = """
import sys
sys.path.insert(0, {tests!r})
from keras import applications
from stubs import build_thin_vgg16
applications.VGG16 = build_thin_vgg16
from deep_ranking.cli.main import run_command
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
sys.exit(run_command("compile", ["--model", {model!r}]))
"""


@pytest.mark.slow
def test_of_two_processes_one_compiles_and_both_succeed(tmp_path):
    model = save_thin_model(tmp_path / "m.h5")
    code = BOTH.format(tests=str(Path(__file__).parent), model=str(model))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert sum("was there already" in output for output, _ in said) == 1
    assert len(list(tmp_path.iterdir())) == 2
    assert_same_rows(model)


@pytest.mark.slow
def test_retrained_the_earlier_file_is_not_used_and_then_removed(compiled_model):
    (earlier,) = compiled_model.parent.glob("*.litert")
    others = ["other.0123456789ab.float32.litert", "m.litert", "m.notes.litert", "m.txt",
              "m.0123456789ab.int8.litert", "m2.0123456789ab.float32.litert",
              "m.0123456789abc.float32.litert", "n.m.0123456789ab.float32.litert"]  # fmt: skip
    for name in others:
        compiled_model.with_name(name).write_text(name)
    save_thin_model(compiled_model, seed=3)
    header = read_header(compiled_model)
    assert header.compiled == {} and open_compiled(compiled_model, header, "float32") is None
    shutil.copy(earlier, compiled_model.with_name(f"m.{header.fingerprint[:12]}.float32.litert"))
    assert open_compiled(compiled_model, header, "float32") is None  # a file that nobody names
    report = compile_model(compiled_model)
    assert report.is_new and not earlier.exists()
    assert sorted(files_of(compiled_model.parent)) == sorted(
        [compiled_model.name, report.path.name, *others]
    )
    assert all(compiled_model.with_name(name).read_text() == name for name in others)
    assert_same_rows(compiled_model)
