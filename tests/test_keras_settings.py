"""Whatever Keras is set to, our networks are the same, and the settings stay as they were."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from test_training_options import (
    colors,  # noqa: F401
    config_for,
    no_pictures,  # noqa: F401
)

import deep_ranking
from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.embed import embed_batches, embed_images
from deep_ranking.embedding.engines.keras_model import KerasEngine
from deep_ranking.embedding.export import export_model
from deep_ranking.files import InputError
from deep_ranking.images import find_images
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.keras_settings import check_backend, default_settings
from deep_ranking.model.network import build_network, untrained_backbone
from deep_ranking.reports.explain import explain_pixels
from deep_ranking.training.run import train

SMALL = NetworkConfig(image_size=32, weights=None, hidden_size=8, embedding_size=4)
USUAL = ("float32", "channels_last", "float32")
SETTINGS = [
    ("float32", "channels_first", "float32"),
    ("float16", "channels_last", "float16"),
    ("bfloat16", "channels_last", "bfloat16"),
    ("float64", "channels_last", "float64"),
    ("float32", "channels_last", "float16"),
    ("float32", "channels_last", "float64"),
    ("float32", "channels_last", "mixed_float16"),
    ("float32", "channels_last", "mixed_bfloat16"),
    ("float16", "channels_first", "mixed_float16"),
]
one_of_each = pytest.mark.parametrize("settings", SETTINGS, ids="-".join)


def set_keras(floatx, data_format, policy):
    keras.config.set_floatx(floatx)
    keras.config.set_image_data_format(data_format)
    keras.config.set_dtype_policy(policy)


def keras_settings():
    config = keras.config
    return config.floatx(), config.image_data_format(), config.dtype_policy().name


@pytest.fixture
def under():
    """A function that sets Keras; what it was set to must remain, until the test ends."""
    given = []

    def set_all(settings):
        given.append(settings)
        set_keras(*settings)

    yield set_all
    found = keras_settings()
    set_keras(*USUAL)
    assert found == given[-1]


@pytest.fixture(scope="module")
def paths(image_tree_of_colors):
    return find_images(image_tree_of_colors).files()


def check_same(model, plain):
    """Check that two networks have the same layers and the same weights."""
    assert [each.get_config() for each in model.layers] == [
        each.get_config() for each in plain.layers
    ]
    assert {weight.dtype for weight in model.weights} == {"float32"}
    for found, expected in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("eager", "thin_vgg16")
@pytest.mark.parametrize("settings", SETTINGS, ids="-".join)
def test_networks_and_embeddings_are_the_same(under, settings, paths, tmp_path):
    plain = build_network(SMALL, seed=0)
    expected = embed_images(plain, paths)
    under(settings)
    model = build_network(SMALL, seed=0)
    check_same(model, plain)
    for each in (model, plain):  # one that was built before as well
        for batch in embed_batches(KerasEngine(each, len(paths)), paths):
            np.testing.assert_array_equal(batch.rows, expected)
            assert keras_settings() == settings  # whoever takes the rows has own settings
    save_model(model, tmp_path / "m.h5")
    check_same(load_model(tmp_path / "m.h5"), plain)
    set_keras(*USUAL)
    check_same(keras.models.load_model(tmp_path / "m.h5", compile=False), plain)
    set_keras(*settings)


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network", "no_pictures")
def test_training_is_the_same(under, colors, tmp_path):  # noqa: F811
    checked = {"validation_triplets": colors / "triplets.txt", "optimizer": "adam"}
    plain = config_for(colors, tmp_path / "plain.h5", **checked)
    train(plain, verbose=0)
    under(SETTINGS[-1])
    config = replace(plain, output=tmp_path / "m.h5")
    trained = train(config, verbose=0).get_weights()
    for name in ("history.csv", "config.json"):
        found, expected = ((each.run_dir / name).read_text() for each in (config, plain))
        assert found == expected.replace("plain.h5", "m.h5")
    set_keras(*USUAL)
    opened = keras.models.load_model(plain.output, compile=False).get_weights()
    set_keras(*SETTINGS[-1])
    for found, expected in zip(trained, opened, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("thin_vgg16", "no_pictures")
@pytest.mark.parametrize(
    ("settings", "precision"),
    [(each, "float32") for each in SETTINGS]
    + [(SETTINGS[-1], each) for each in ("mixed_bfloat16", "mixed_float16")],
)
def test_graphs_train_the_same(under, settings, colors, tmp_path, precision):  # noqa: F811
    network = replace(SMALL, multiscale="none", hidden_layers=1)
    plain = config_for(
        colors,
        tmp_path / "plain.h5",
        network=network,
        precision=precision,
        batches="classes",
        dataset=colors / "images",
        triplets=None,
        batch_size=4,
        images_per_class=2,
        steps_per_epoch=2,
        validation_dataset=colors / "images",
        train_from="head",
        cache_features=True,
        cache_dir=tmp_path / "features",
        embedding_start="pca",
        augmentation=None,
    )
    expected = train(plain, verbose=0).get_weights()
    under(settings)
    config = replace(plain, output=tmp_path / "m.h5", cache_dir=tmp_path / "others")
    found = train(config, verbose=0)
    for one, other in zip(found.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    histories = [(each.run_dir / "history.csv").read_text() for each in (plain, config)]
    assert histories[0] == histories[1]
    names = [sorted(each.name for each in run.feature_dir.iterdir()) for run in (plain, config)]
    assert names[0] == names[1]  # the features are found again


@cache
def usual_backbone(backbone, paths):
    """Return a network as Keras usually makes it, its untrained backbone, and rows of images."""
    config = replace(
        SMALL,
        backbone=backbone,
        normalisation="backbone",
        pooling="average+max",
        backbone_size=64,
    )
    plain = build_network(config, seed=0)
    return plain, untrained_backbone(config, None), embed_images(plain, paths)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "settings"),
    [*(("mobilenetv2", each) for each in SETTINGS), ("resnet50", SETTINGS[0])],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_real_backbones_are_the_same(under, settings, paths, backbone):
    plain, untrained, expected = usual_backbone(backbone, tuple(paths))
    under(settings)
    model = build_network(plain.network_config, seed=0)
    check_same(model, plain)
    np.testing.assert_array_equal(embed_images(model, paths), expected)
    check_same(untrained_backbone(plain.network_config, None), untrained)


@pytest.mark.slow
@pytest.mark.usefixtures("thin_vgg16")
@one_of_each
def test_explanations_and_exports_are_the_same(under, settings, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    model = build_network(replace(SMALL, image_size=128), seed=0)
    expected = explain_pixels(model, *images)
    under(settings)
    np.testing.assert_allclose(explain_pixels(model, *images).cosine, expected.cosine, rtol=1e-6)
    export_model(model, tmp_path / "exported", format="savedmodel")


def test_settings_come_back_after_an_error(under):
    under(SETTINGS[-1])
    with pytest.raises(ZeroDivisionError), default_settings():
        assert keras_settings() == USUAL
        raise ZeroDivisionError


def test_another_backend_that_runs_is_refused(monkeypatch):
    check_backend()
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    said = "the backend of Keras must be tensorflow. Received: jax; set KERAS_BACKEND=tensorflow"
    with pytest.raises(InputError, match=said):
        check_backend()


@pytest.mark.parametrize(
    ("variable", "text", "backend"),
    [
        ("jax", None, "jax"),
        ("jax", '{"backend": "tensorflow"}', "jax"),
        ("tensorflow", '{"backend": "torch"}', None),
        ("", '{"backend": "torch"}', "torch"),
        (None, '{"backend": "torch"}', "torch"),
        (None, "{}", None),
        (None, "[", None),
        (None, "[]", None),
        (None, None, None),
    ],
)
def test_another_backend_that_is_going_to_run_is_refused(
    monkeypatch, tmp_path, variable, text, backend
):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if variable is not None:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    if text is not None:
        (tmp_path / "keras.json").write_text(text)
    if backend is None:
        check_backend()
    else:
        with pytest.raises(InputError, match=f"Received: {backend};"):
            check_backend()


def test_file_in_the_home_folder_chooses_the_backend(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"backend": "torch"}')
    with pytest.raises(InputError, match="Received: torch;"):
        check_backend()


def run_python(code, **environment):
    program = [sys.executable, "-c", code]
    return subprocess.run(
        program,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_no_module_starts_keras_with_another_backend():
    """The backend need not be installed, so Keras' own import would fail with a traceback."""
    root = Path(deep_ranking.__file__).parent
    found = [
        ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for path in sorted(root.rglob("*.py"))
        if re.search("^(import keras|from keras)", path.read_text(), re.MULTILINE)
    ]
    assert len(found) > 20
    code = f"""
import importlib, sys
from deep_ranking.files import InputError
for name in {found}:
    try:
        importlib.import_module(name)
    except InputError as error:
        assert "must be tensorflow. Received: jax" in str(error)
    else:
        raise SystemExit(f"{{name}} was imported")
assert "keras" not in sys.modules and "tensorflow" not in sys.modules
import deep_ranking
deep_ranking.TrainConfig()  # needs no Keras
"""
    ended = run_python(code, KERAS_BACKEND="jax")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["summary", "--image_size", "32", "--weights", "none"],
        ["train", "--triplets", "t.txt", "--weights", "none", "--output", "m.h5"],
    ],
)
def test_commands_refuse_another_backend_in_one_line(tmp_path, arguments):
    ended = subprocess.run(
        [sys.executable, "-m", "deep_ranking", *arguments],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        cwd=Path(deep_ranking.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: the backend of Keras must be tensorflow. Received: torch; set "
        "KERAS_BACKEND=tensorflow before Keras is imported\n"
    )


@pytest.mark.slow
def test_file_of_settings_does_not_reach_in(tmp_path, paths):
    code = f"""
import keras
from deep_ranking import NetworkConfig, build_network, embed_images, load_model, save_model
config = NetworkConfig(
    image_size=32, weights=None, hidden_size=8, embedding_size=4, backbone="resnet50"
)
model = build_network(config, seed=0)
path = keras.config.floatx() + ".h5"
save_model(model, path)
for each in (model, load_model(path)):
    print(embed_images(each, {paths}).tobytes().hex())
assert keras.config.floatx() == {{floatx!r}}
assert keras.config.image_data_format() == {{data_format!r}}
"""
    printed = []
    for floatx, data_format in (("float32", "channels_last"), ("float16", "channels_first")):
        home = tmp_path / floatx
        home.mkdir()
        settings = {"floatx": floatx, "image_data_format": data_format, "epsilon": 1e-7}
        (home / "keras.json").write_text(json.dumps(settings | {"backend": "tensorflow"}))
        text = code.format(floatx=floatx, data_format=data_format)
        ended = run_python(f"import os; os.chdir({str(tmp_path)!r})\n{text}", KERAS_HOME=str(home))
        assert ended.returncode == 0, ended.stderr
        printed += ended.stdout.split()
    assert len(printed) == 4 and len(set(printed)) == 1
