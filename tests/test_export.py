import dataclasses
import importlib.util
import json
import math
import os
import shutil
import zipfile
from functools import cache

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.export import FORMATS, export_model
from deep_ranking.embedding.export.exporting import random_batches
from deep_ranking.embedding.export.pixel_recipe import CODE, pixel_recipe
from deep_ranking.files import InputError
from deep_ranking.files.words import byte_size
from deep_ranking.model.calibration import fit_calibration
from deep_ranking.model.file import save_model
from deep_ranking.model.network import build_network

pytestmark = pytest.mark.usefixtures("thin_vgg16")

NAMES = {"savedmodel": "m", "onnx": "m.onnx", "tflite": "m.tflite", "litert-int8": "m.tflite"}
EXACT = [each for each in FORMATS if each != "litert-int8"]
SIZE = 32


@pytest.fixture(scope="module")
def model():
    """What other backbones are made of, and what runtimes differ in: batch norm that has seen data,
    depthwise convolutions, constants that are no weights, a stride above the kernel's size (with
    padding, and without), and vectors of length 0 on a black image.
    """
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Normalization(mean=[123.0, 116.0, 103.0], variance=[3000.0, 2900, 3100])(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    unit = layers.Rescaling(1 / 255)(image)
    for stride in (14, 16):
        strided = layers.Conv2D(
            8,
            8,
            strides=stride,
            padding="same",
            use_bias=stride > 14,  # without, a black image gives vectors of length 0
            bias_initializer="ones",
            activation="tanh",
        )(unit)
        x = layers.Concatenate()([x, layers.UnitNormalization()(layers.Flatten()(strided))])
    x = layers.Dropout(0.5)(x)
    network = keras.Model(image, layers.UnitNormalization()(layers.Dense(5)(x)))
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if "moving" in weight.path:
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return network


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """A function that returns the path of the model's export in a format, and what it returned.

    The model is exported once in each format.
    """

    @cache
    def export(format):
        path = tmp_path_factory.mktemp(format) / NAMES[format]
        return path, export_model(model, path, format=format)

    return export


def photos(count):
    """Images with an edge, unlike the random ones of the check."""
    rng = np.random.default_rng(7)
    images = rng.uniform(0, 60, (count, SIZE, SIZE, 3)).astype(np.float32)
    for number, image in enumerate(images):
        image[:, number :: count + 1] += 150
    return images


def embedded_by(usage, pixels):
    """Run what the export says of its use."""
    names = {"pixels": pixels}
    exec(usage, names)
    return np.asarray(names["embeddings"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of onnxruntime and LiteRT
@pytest.mark.parametrize(
    "format",
    [pytest.param(each, marks=[pytest.mark.slow] * (each != "savedmodel")) for each in EXACT],
)
def test_an_export_gives_the_embeddings_for_any_batch(model, exported, format):
    path, done = exported(format)
    for count in (5, 1, 3):
        expected = model.predict_on_batch(photos(count))
        np.testing.assert_allclose(embedded_by(done.usage, photos(count)), expected, atol=1e-5)
    black = np.zeros((2, SIZE, SIZE, 3), np.float32)
    found = embedded_by(done.usage, black)
    np.testing.assert_allclose(found, model.predict_on_batch(black), atol=1e-5)
    assert sorted(os.listdir(path.parent)) == [NAMES[format], f"{NAMES[format]}.pixels.json"]
    assert done.difference < 1e-5 and done.num_images == 8
    files = [each for each in path.rglob("*") if each.is_file()] or [path]
    assert done.num_bytes == sum(len(each.read_bytes()) for each in files)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TensorFlow's interpreter is deprecated
def test_runtimes_before_litert_2_2_give_them_too(model, exported):
    if not hasattr(tf.lite, "Interpreter"):
        pytest.skip("this TensorFlow has no interpreter of its own any more")
    path, _ = exported("tflite")
    run = tf.lite.Interpreter(str(path)).get_signature_runner()
    found = run(image=photos(3))["embedding"]
    np.testing.assert_allclose(found, model.predict_on_batch(photos(3)), atol=1e-5)


@pytest.mark.parametrize("format", EXACT)
def test_an_export_says_what_it_takes_and_what_distances_mean(tmp_path, format):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    linear = layers.Dense(4)(layers.GlobalAveragePooling2D()(image))
    small = keras.Model(image, layers.UnitNormalization()(linear))
    small.network_config = NetworkConfig(weights=None, pooling="max")
    small.calibration = fit_calibration(np.linspace(0, 1, 20), np.linspace(0.5, 2, 20))
    path = tmp_path / NAMES[format]
    export_model(small, path, format=format)
    if format == "savedmodel":
        text = (path / "assets.extra" / "deep_ranking.json").read_text()
    elif format == "onnx":
        loaded = onnx.load(path)
        onnx.checker.check_model(loaded)
        assert {each.domain for each in loaded.opset_import} == {""}
        shapes = [each.type.tensor_type.shape.dim for each in loaded.graph.input]
        assert [[dim.dim_param or dim.dim_value for dim in dims] for dims in shapes] == [
            ["batch", SIZE, SIZE, 3]
        ]
        text = {each.key: each.value for each in loaded.metadata_props}["deep_ranking"]
    else:
        text = zipfile.ZipFile(path).read("deep_ranking.json")
    notes = json.loads(text)
    assert (notes["image_size"], notes["embedding_size"]) == (SIZE, 4)
    assert notes["network_config"]["pooling"] == "max"
    assert notes["calibration"] == json.loads(small.calibration.to_json())
    beside = json.loads((tmp_path / f"{NAMES[format]}.pixels.json").read_text())
    assert notes["pixels"] == beside == pixel_recipe(SIZE)


def test_a_savedmodel_holds_each_weight_once(model, exported):
    path, _ = exported("savedmodel")
    found = tf.train.list_variables(str(path / "variables" / "variables"))
    numbers = sum(int(np.prod(shape)) for _, shape in found if shape)
    assert numbers == model.count_params()


@pytest.fixture
def faked(model, exported, monkeypatch):
    """A function that makes the format "savedmodel" give other embeddings."""

    def fake(change):
        def load(path, name):
            return lambda images: change(np.array(model.predict_on_batch(images)), images)

        def write(_, path, *rest):
            shutil.copytree(exported("savedmodel")[0], path, dirs_exist_ok=True)

        changed = dataclasses.replace(FORMATS["savedmodel"], load=load, write=write)
        monkeypatch.setitem(FORMATS, "savedmodel", changed)

    return fake


def with_last(rows, value):
    rows[-1, -1] = value
    return rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows, _: with_last(rows, rows[-1, -1] + 1.2e-4), r"up to 0\.00012 on 8 images"),
        (lambda rows, _: with_last(rows, np.nan), "up to nan"),
        (lambda rows, _: rows[:1], r"shape \(1, 5\) for 2 images; expected \(2, 5\)"),
        (lambda rows, _: 1 / 0, "cannot embed a batch of 1 .*division by zero"),
    ],
)
def test_an_export_that_differs_is_not_written(model, tmp_path, faked, change, said):
    path = tmp_path / "m"
    faked(lambda rows, _: rows)
    export_model(model, path, format="savedmodel")
    before = {each: each.stat().st_ino for each in path.rglob("*")}
    recipe = (tmp_path / "m.pixels.json").stat().st_ino
    faked(change)
    with pytest.raises(InputError, match=said):
        export_model(model, path, format="savedmodel", overwrite=True)
    with pytest.raises(InputError, match=said):
        export_model(model, tmp_path / "new", format="savedmodel")
    assert sorted(os.listdir(tmp_path)) == ["m", "m.pixels.json"]
    assert {each: each.stat().st_ino for each in path.rglob("*")} == before
    assert (tmp_path / "m.pixels.json").stat().st_ino == recipe


def test_a_difference_within_the_tolerance_is_told(model, tmp_path, faked):
    faked(lambda rows, _: with_last(rows, rows[-1, -1] - 3e-4))
    done = export_model(model, tmp_path / "m", format="savedmodel", tolerance=4e-4)
    assert done.difference == pytest.approx(3e-4, rel=1e-2)


def test_the_images_named_are_compared_too(model, tmp_path, faked):
    white = tmp_path / "white.png"
    Image.new("RGB", (40, 50), (255, 255, 255)).save(white)
    faked(lambda rows, images: rows + (images.min() == 255))
    assert export_model(model, tmp_path / "m", format="savedmodel").difference == 0
    with pytest.raises(InputError, match="on 9 images"):
        export_model(model, tmp_path / "n", format="savedmodel", images=[white])
    missing = [tmp_path / "no.png"]
    with pytest.raises(InputError, match=r"no\.png"):
        export_model(model, tmp_path / "n", format="savedmodel", images=missing)
    assert sorted(os.listdir(tmp_path)) == ["m", "m.pixels.json", "white.png"]


def test_what_cannot_be_converted_is_one_line(model, tmp_path, monkeypatch):
    def write(*_):
        raise RuntimeError("no such\noperator")

    changed = dataclasses.replace(FORMATS["savedmodel"], write=write)
    monkeypatch.setitem(FORMATS, "savedmodel", changed)
    with pytest.raises(InputError, match=r"RuntimeError: no such operator\); try another"):
        export_model(model, tmp_path / "m", format="savedmodel")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("reason", ["No space left on device", "File too large"])
def test_a_full_disk_is_said_with_the_file_and_blames_no_format(
    reason, model, tmp_path, monkeypatch
):
    def full(*_):
        raise RuntimeError(f"{{{{function_node}}}} /hidden/variables; {reason} [Op:SaveV2]")

    changed = dataclasses.replace(FORMATS["savedmodel"], write=full)
    monkeypatch.setitem(FORMATS, "savedmodel", changed)
    with pytest.raises(InputError) as caught:
        export_model(model, tmp_path / "saved", format="savedmodel")
    said = f"{tmp_path / 'saved'}: cannot be written ({reason}); free some room"
    assert str(caught.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_no_numbers_is_not_compared(tmp_path):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    dense = layers.Dense(4, kernel_initializer=keras.initializers.Constant(np.nan))
    broken = keras.Model(image, dense(layers.GlobalAveragePooling2D()(image)))
    with pytest.raises(InputError, match="not finite"):
        export_model(broken, tmp_path / "m", format="savedmodel")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [32, 50])
def test_random_images_are_of_all_kinds_and_the_same_each_time(size):
    batches = list(random_batches(size))
    assert len({len(batch) for batch in batches}) >= 3
    images = np.concatenate(batches)
    assert images.dtype == np.float32 and images.shape[1:] == (size, size, 3)
    assert (images[0] == 0).all()
    assert images.min() >= 0 and images.max() <= 255 and images.max() > 250
    colors = [len(np.unique(image.reshape(-1, 3), axis=0)) for image in images[1:]]
    assert colors == [min(2**number, size) ** 2 for number in range(1, 8)]
    np.testing.assert_array_equal(images, np.concatenate(list(random_batches(size))))


@pytest.mark.parametrize(
    ("name", "format", "said"),
    [
        ("m", "h5", "format must be one of savedmodel, onnx, tflite, litert-int8. Received: h5"),
        ("m.pb", "onnx", r"m\.pb: expected a name that ends in \.onnx"),
        ("m.onnx", "tflite", r"ends in \.tflite, as the format is tflite"),
        ("old.onnx", "onnx", "exists; choose another --output, or replace it by --overwrite"),
        ("old", "savedmodel", "exists; choose another"),
        ("no/m", "savedmodel", "no: no such folder"),
        ("with.onnx", "onnx", r"with\.onnx\.pixels\.json: exists; choose another"),
        (".", "savedmodel", "exists; choose another"),
    ],
)
def test_outputs_that_are_refused(model, tmp_path, name, format, said):
    (tmp_path / "with.onnx.pixels.json").touch()
    (tmp_path / "old.onnx").touch()
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError, match=said):
        export_model(model, tmp_path / name, format=format)


def test_overwriting_replaces_an_export_and_nothing_else(model, exported, tmp_path):
    shutil.copytree(exported("savedmodel")[0], tmp_path / "m")
    (tmp_path / "m" / "assets.extra" / "deep_ranking.json").write_text("of before")
    (tmp_path / "m.pixels.json").write_text("of before")
    export_model(model, tmp_path / "m", format="savedmodel", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["m", "m.pixels.json"]
    assert json.loads((tmp_path / "m.pixels.json").read_text())["image_size"] == SIZE
    assert json.loads((tmp_path / "m" / "assets.extra" / "deep_ranking.json").read_text())
    (tmp_path / "m" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no SavedModel is never replaced"):
        export_model(model, tmp_path / "m", format="savedmodel", overwrite=True)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="no SavedModel is never replaced"):
        export_model(model, tmp_path / "photos", format="savedmodel", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        export_model(model, tmp_path / "file", format="savedmodel", overwrite=True)
    assert (tmp_path / "m" / "thesis.txt").exists() and (tmp_path / "photos").exists()


@pytest.mark.parametrize("tolerance", [-1e-9, float("inf"), float("nan")])
def test_tolerances_that_are_none(model, tmp_path, tolerance):
    with pytest.raises(InputError, match="tolerance must be 0 or more"):
        export_model(model, tmp_path / "m", format="savedmodel", tolerance=tolerance)


@pytest.mark.parametrize("shape", [(32, 48, 3), (32, 32, 1), (None, None, 3)])
def test_only_models_of_square_images_are_exported(tmp_path, shape):
    image = keras.Input(shape, name="image")
    other = keras.Model(image, layers.GlobalAveragePooling2D()(image))
    with pytest.raises(InputError, match="expected a model from images"):
        export_model(other, tmp_path / "m", format="savedmodel")


def test_missing_packages_are_named_with_the_way_to_get_them(model, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "deep_ranking.embedding.export.exporting.find_spec",
        lambda name: None if name in ("tf2onnx", "ai_edge_litert") else found(name),
    )
    for format, missing in (("onnx", "tf2onnx"), ("tflite", "ai_edge_litert")):
        said = rf'needs {missing}, not installed here: pip install "deep-ranking\[export\]"'
        with pytest.raises(InputError, match=said):
            export_model(model, tmp_path / NAMES[format], format=format)
    export_model(model, tmp_path / "m", format="savedmodel")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    config = NetworkConfig(image_size=32, weights=None, hidden_size=8, embedding_size=16)
    save_model(build_network(config, seed=0), path)
    return path


@pytest.mark.slow
def test_command(capfd, monkeypatch, tmp_path, model_path, image_tree_of_colors):
    def noisy(*arguments):
        os.write(2, b"Created a delegate.\n")
        quiet(*arguments)

    quiet = FORMATS["savedmodel"].write
    changed = dataclasses.replace(FORMATS["savedmodel"], write=noisy)
    monkeypatch.setitem(FORMATS, "savedmodel", changed)
    output = tmp_path / "exported"
    arguments = ["--model", model_path, "--format", "savedmodel", "--output", output]
    arguments = list(map(str, arguments))
    one = next(image_tree_of_colors.rglob("*.png"))
    assert run_command("export", [*arguments, "--images", str(one), str(image_tree_of_colors)]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert "8 random images and 13 of yours" in lines[1]
    assert "on 21 images (allowed: 0.0001)" in lines[-3]
    assert CODE in said.out
    size = sum(each.stat().st_size for each in output.rglob("*") if each.is_file())
    assert lines[-1] == f"savedmodel in {output}, {byte_size(size)}."
    pixels = photos(3)
    found = embedded_by(lines[-2].removeprefix("from Python: "), pixels)
    expected = keras.models.load_model(model_path).predict_on_batch(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    assert run_command("export", arguments) == 1
    assert "by --overwrite" in capfd.readouterr().err
    missing = str(tmp_path / "no.png")
    assert run_command("export", [*arguments, "--overwrite", "--images", missing]) == 1
    assert f"{missing}: no such image; check --images" in capfd.readouterr().err
    assert run_command("export", ["--model", missing, *arguments[2:]]) == 1
    assert f"{missing}: no such file; check --model" in capfd.readouterr().err
    with pytest.raises(SystemExit) as end:
        run_command("export", [*arguments, "--format", "caffe"])
    assert end.value.code == 2
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("format", EXACT)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": "gem", "pooled_blocks": 3, "backbone_size": 48},
        {"pooling": "average+max", "multiscale": "none", "hidden_layers": 0},
        {"multiscale": "colour", "hidden_layers": 0},
    ],
)
def test_all_networks_can_be_exported(tmp_path, format, settings):
    config = NetworkConfig(
        image_size=32, weights=None, hidden_size=8, embedding_size=16, normalisation="backbone"
    )
    network = build_network(dataclasses.replace(config, **settings), seed=0)
    done = export_model(network, tmp_path / NAMES[format], format=format)
    found = embedded_by(done.usage, photos(3))
    np.testing.assert_allclose(found, network.predict_on_batch(photos(3)), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", EXACT)
def test_a_network_with_batch_normalisation_can_be_exported(tmp_path, format):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    pixels = layers.Rescaling(1 / 127.5, -1)(image)
    convnet = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_tensor=pixels, pooling="avg"
    )
    unit = layers.UnitNormalization()(layers.Dense(16)(convnet.output))
    network = keras.Model(image, unit)
    done = export_model(network, tmp_path / NAMES[format], format=format)
    found = embedded_by(done.usage, photos(3))
    np.testing.assert_allclose(found, network.predict_on_batch(photos(3)), atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of LiteRT
def test_int8_is_near_the_model_for_any_batch_and_says_what_it_is(tmp_path, model_path):
    path = tmp_path / "m.tflite"
    network = keras.models.load_model(model_path)
    done = export_model(network, path, format="litert-int8")
    expected = network.predict_on_batch(photos(3))
    found = embedded_by(done.usage, photos(3))
    cosines = (found * expected).sum(axis=1)
    assert cosines.min() > 0.99 and np.abs(found - expected).max() > 1e-5  # it is rounded
    exact = tmp_path / "exact.tflite"
    export_model(network, exact, format="tflite")
    assert path.stat().st_size < 0.5 * exact.stat().st_size
    assert done.tolerance == 0.1 and done.difference < 0.1
    with zipfile.ZipFile(path) as behind:
        notes = json.loads(behind.read("deep_ranking.json"))
    assert notes["image_size"] == SIZE


@pytest.mark.slow
def test_int8_that_must_be_calibrated_asks_for_images(model, tmp_path):
    with pytest.raises(InputError, match=r"at least 20 images .* 0 can be read; .* by --images"):
        export_model(model, tmp_path / "m.tflite", format="litert-int8")
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore")  # those of onnxruntime
def test_onnx_computes_the_exact_gelu(tmp_path):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(20 / 255, -10)(image)
    gelu = keras.Model(image, layers.Flatten()(layers.Activation("gelu")(x)))
    done = export_model(gelu, tmp_path / "m.onnx", format="onnx")
    pixels = np.linspace(0, 255, SIZE * SIZE * 3, dtype=np.float32).reshape(1, SIZE, SIZE, 3)
    values = pixels.astype(float).ravel() * 20 / 255 - 10
    expected = [each * (1 + math.erf(each / math.sqrt(2))) / 2 for each in values]
    np.testing.assert_allclose(embedded_by(done.usage, pixels)[0], expected, rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of onnxruntime and LiteRT
@pytest.mark.parametrize("format", EXACT)
def test_convnext_can_be_exported(tmp_path, format):
    config = NetworkConfig(
        image_size=SIZE,
        backbone="convnexttiny",
        weights=None,
        hidden_layers=0,
        multiscale="none",
        embedding_size=16,
        normalisation="backbone",
    )
    network = build_network(config, seed=0)
    rng = np.random.default_rng(3)
    blocks = [each for each in network.layers if each.name.endswith("_pointwise_conv_2")]
    for layer in blocks:  # 0 at first, which makes each block the identity
        kernel, bias = layer.get_weights()
        gamma = rng.uniform(0.2, 1.5, bias.shape)
        layer.set_weights([gamma * rng.normal(0, 0.02, kernel.shape), gamma])
    assert len(blocks) == 18
    expected = network.predict_on_batch(photos(3))
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    done = export_model(network, tmp_path / NAMES[format], format=format)
    assert done.difference < 1e-5
    found = embedded_by(done.usage, photos(3))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
