from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from stubs import training_stubs
from test_training_options import (
    STUB,
    colors,  # noqa: F401
    config_for,
    history_of,
    kernel_of,
    no_pictures,  # noqa: F401
    watched,
)

from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.embed import embed_images
from deep_ranking.images import find_images
from deep_ranking.model.file import load_model
from deep_ranking.model.mixed_precision import computing_in, resolved_precision, set_precision
from deep_ranking.model.network import build_network
from deep_ranking.training.run import train

pytestmark = pytest.mark.usefixtures("thin_vgg16", "no_pictures")

SMALL = NetworkConfig(image_size=32, weights=None, hidden_size=8, embedding_size=4)
STILL = replace(STUB, dropout=0.0)  # masks are drawn in the precision of their layer
COMPUTED = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}


def images(count=4, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, 32, 32, 3)).astype(np.float32)


def test_which_layers_compute_in_halves():
    model = build_network(SMALL, seed=0)
    set_precision(model, "mixed_bfloat16")
    found = {layer.name: layer.compute_dtype for layer in model.layers}
    full = {"unit_range", "embedding", "unit_embedding", "unit_convnet"}
    full |= {"unit_branch_1", "unit_branch_2"}
    full |= {name for name in found if name.startswith("branch_")}
    assert {name for name, dtype in found.items() if dtype == "float32"} == full
    assert set(found.values()) == {"float32", "bfloat16"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    half = model(images()).numpy()
    set_precision(model, "float32")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    whole = model(images()).numpy()
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, whole, atol=0.02)
    assert np.abs(half - whole).max() > 1e-6
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_for_a_while():
    model = build_network(replace(SMALL, multiscale="none"), seed=0)
    whole = model.predict_on_batch(images())
    with computing_in("mixed_bfloat16", model):
        half = model.predict_on_batch(images())
    assert 1e-6 < np.abs(half - whole).max() < 0.02
    np.testing.assert_array_equal(model.predict_on_batch(images()), whole)


def build_dense(config, *, seed=None):
    """A stub with a layer that computes in halves, which no layer of the usual one does."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, name="unit_range")(image)
    x = keras.layers.AveragePooling2D(16, name="pooled")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(16, activation="relu", name="hidden_1")(x)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    x = keras.layers.Dense(config.embedding_size, name="embedding")(x)
    model = keras.Model(image, keras.layers.UnitNormalization(name="unit_embedding")(x))
    model.network_config, model.backbone_layers = config, ["pooled"]
    return model


@pytest.fixture
def dense_network(request):
    with training_stubs(build=build_dense, eager=request.node.get_closest_marker("slow") is None):
        yield


@pytest.fixture(scope="module")
def full_run(colors, tmp_path_factory):  # noqa: F811
    with training_stubs(build=build_dense):
        config = config_for(
            colors, tmp_path_factory.mktemp("full") / "full.h5", network=STILL, gap=2.0
        )
        return config, train(config, verbose=0)


@pytest.mark.slow
@pytest.mark.usefixtures("dense_network")
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_training_in_halves(colors, full_run, tmp_path, monkeypatch, precision):  # noqa: F811
    config = config_for(colors, tmp_path / "m.h5", network=STILL, gap=2.0, precision=precision)
    kinds, computed = [], []

    def look(run):
        kinds.append(type(run.trainer.optimizer))
        computed.append(run.trainer.model.get_layer("hidden_1").compute_dtype)

    watched(config, monkeypatch, look, stop_after=1)
    model = watched(config, monkeypatch, look, resume=True)
    scaled = [issubclass(kind, keras.optimizers.LossScaleOptimizer) for kind in kinds]
    assert scaled == [precision == "mixed_float16"] * 2
    assert computed == [COMPUTED[precision]] * 2

    # The result is near that of float32, and another.
    _, full = full_run
    difference = np.abs(kernel_of(model) - kernel_of(full)).max()
    start = build_dense(STUB, seed=config.seed)
    moved = np.abs(kernel_of(full) - kernel_of(start)).max()
    assert 1e-7 < difference < 0.2 * moved
    losses = [float(row["loss"]) for row in history_of(config)]
    assert losses == pytest.approx(
        [float(row["loss"]) for row in history_of(full_run[0])], rel=0.05
    )

    # It goes on as if it had not been stopped.
    whole = train(replace(config, output=tmp_path / "whole.h5"), verbose=0)
    np.testing.assert_array_equal(kernel_of(model), kernel_of(whole))

    # What is written and what is returned compute in float32.
    for path in (config.output, config.run_dir / "best.h5"):
        opened = keras.models.load_model(path, compile=False)
        assert {layer.compute_dtype for layer in opened.layers} == {"float32"}
        assert {layer.dtype_policy.name for layer in opened.layers} == {"float32"}
    opened = keras.models.load_model(config.output, compile=False)
    np.testing.assert_allclose(model(images()), opened(images()), atol=1e-6)
    np.testing.assert_allclose(model.predict_on_batch(images()), opened(images()), atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("dense_network")
def test_a_model_that_was_judged_in_halves_is_returned_in_float32(colors, tmp_path):  # noqa: F811
    config = config_for(
        colors,
        tmp_path / "m.h5",
        precision="mixed_bfloat16",
        validation_triplets=colors / "triplets.txt",
        epochs=1,
    )
    model = train(config, verbose=0)
    paths = [colors / "images" / path for path in find_images(colors / "images").paths]
    opened = keras.models.load_model(config.output, compile=False)
    written = embed_images(opened, paths)
    np.testing.assert_allclose(embed_images(model, paths), written, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_a_network_trained_in_halves_opens_as_ours(colors, tmp_path):  # noqa: F811
    network = replace(SMALL, multiscale="none", hidden_layers=1)
    config = config_for(
        colors,
        tmp_path / "m.h5",
        network=network,
        precision="mixed_bfloat16",
        train_from="head",
        epochs=1,
        steps_per_epoch=1,
    )
    model = train(config, verbose=0)
    np.testing.assert_allclose(load_model(config.output)(images()), model(images()), atol=1e-6)
    with h5py.File(config.output) as file:
        assert "bfloat16" not in file.attrs["model_config"]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_given_precision_stays(precision):
    assert resolved_precision(precision) == precision


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("flags : sse avx2 avx512_bf16 amx_tile", "mixed_bfloat16"),
        ("flags : sse amx_bf16", "mixed_bfloat16"),
        ("flags : sse avx2 avx512f", "float32"),
        (None, "float32"),
    ],
)
def test_auto_goes_by_the_processor(monkeypatch, flags, wanted):
    def read_text(path, encoding):
        assert str(path) == "/proc/cpuinfo"
        if flags is None:
            raise FileNotFoundError
        return flags

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    assert resolved_precision("auto") == wanted


def test_auto_is_float16_on_a_graphics_processor(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind] * (kind == "GPU"))
    assert resolved_precision("auto") == "mixed_float16"
