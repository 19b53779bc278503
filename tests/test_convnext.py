"""ConvNeXt of stock layers against the networks of `keras.applications` that it is made from."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras.src.applications import convnext as originals

from deep_ranking.config import NetworkConfig, find_backbone
from deep_ranking.files import InputError
from deep_ranking.model.backbone import build_backbone, pretrained_arrays
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.network import backbone_blocks, build_network, set_trainable_from

pytestmark = pytest.mark.usefixtures("eager")

CONFIG = NetworkConfig(
    image_size=64,
    backbone="convnexttiny",
    weights=None,
    hidden_layers=0,
    multiscale="none",
    embedding_size=8,
    normalisation="backbone",
)
IMAGES = np.random.default_rng(7).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)


@pytest.fixture
def thin(monkeypatch):
    """ConvNeXtTiny with few blocks and channels."""
    small = {**originals.MODEL_CONFIGS["tiny"], "depths": [1, 2, 1, 1]}
    small["projection_dims"] = [4, 8, 16, 32]
    monkeypatch.setitem(originals.MODEL_CONFIGS, "tiny", small)


def random_original(name, path, scale):
    """Return a network of Keras with random weights, gammas too; written to a weight file."""
    keras.utils.set_random_seed(0)
    original = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    rng = np.random.default_rng(3)
    for weight in original.weights:
        if weight.path.endswith("gamma") or "layer_scale" in weight.path:
            weight.assign(rng.uniform(0.2, 1.5, weight.shape))
        else:
            weight.assign(weight + scale * rng.uniform(-1, 1, weight.shape))
    original.save(path, include_optimizer=False)  # the layout of the weight files of Keras too
    return original


def check_equality(name, path, scale=0.05):
    original = random_original(name, path, scale)
    model = build_network(replace(CONFIG, backbone=name, weights=str(path)))
    features = model.get_layer("layernorm").output
    assert features.shape[1:] == original.output_shape[1:]
    got = keras.Model(model.input, features).predict_on_batch(IMAGES)
    expected = original.predict_on_batch(IMAGES)
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    used = sum(model.get_layer(each).count_params() for each in model.backbone_layers)
    gammas = sum(
        layer.count_params() for layer in original.layers if layer.name.endswith("layer_scale")
    )
    assert gammas > 0
    assert used == original.count_params() - gammas


@pytest.mark.slow
def test_weights_of_a_file_give_what_keras_gives(thin, tmp_path):
    check_equality("ConvNeXtTiny", tmp_path / "tiny.h5")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ConvNeXtTiny", "ConvNeXtBase"])
def test_weights_of_whole_networks_give_what_keras_gives(tmp_path, name):
    check_equality(name, tmp_path / "weights.h5", scale=0.01)


@pytest.mark.slow
def test_downloaded_weights_are_converted_too(thin, tmp_path, monkeypatch):
    original = random_original("ConvNeXtTiny", tmp_path / "tiny.h5", 0.05)
    build = originals.ConvNeXtTiny

    def downloaded(**options):
        return original if options["weights"] == "imagenet" else build(**options)

    from_file = pretrained_arrays(find_backbone("convnexttiny"), str(tmp_path / "tiny.h5"), 64)
    monkeypatch.setattr(keras.applications, "ConvNeXtTiny", downloaded)
    found = pretrained_arrays(find_backbone("convnexttiny"), "imagenet", 64)
    assert found.keys() == from_file.keys()
    for name, arrays in found.items():
        for one, other in zip(arrays, from_file[name], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_file_of_another_size_is_refused(thin, tmp_path):
    random_original("ConvNeXtTiny", tmp_path / "tiny.h5", 0.05)
    with pytest.raises(InputError, match="not a weight file of ConvNeXtSmall"):
        pretrained_arrays(find_backbone("convnextsmall"), str(tmp_path / "tiny.h5"), 64)


@pytest.mark.slow
def test_a_model_file_opens_here_and_in_plain_keras(thin, tmp_path):
    random_original("ConvNeXtTiny", tmp_path / "tiny.h5", 0.05)
    model = build_network(replace(CONFIG, weights=str(tmp_path / "tiny.h5")), seed=1)
    before = model.predict_on_batch(IMAGES)
    assert np.abs(before[0] - before[1]).max() > 0.01
    save_model(model, tmp_path / "model.h5")
    plain = keras.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(plain.predict_on_batch(IMAGES), before)
    loaded = load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded.predict_on_batch(IMAGES), before)
    assert {type(layer).__module__.split(".")[2] for layer in model.layers} == {"layers"}


def test_blocks_are_the_stages(thin):
    model = build_network(replace(CONFIG, pooled_blocks=2), seed=0)
    blocks = backbone_blocks(model)
    assert list(blocks) == ["stage_0", "stage_1", "stage_2", "stage_3"]
    assert model.get_layer("unit_part_2").output.shape == (None, 16)
    assert model.get_layer("unit_part_2").input._keras_history.operation.input is (
        model.get_layer("stage_2_block_0_add").output
    )
    set_trainable_from(model, "stage_3")
    moving = {each.name for each in model.layers if each.trainable_weights}
    assert "stage_3_block_0_depthwise_conv" in moving
    assert "downsampling_conv_2" not in moving


def test_each_block_starts_as_the_identity_and_can_learn(thin):
    image = keras.Input((64, 64, 3))
    backbone = build_backbone(find_backbone("convnexttiny"), input_tensor=image)
    ends = [backbone.get_layer(f"stage_1_block_{number}_add").output for number in (0, 1)]
    before, after = keras.Model(image, ends).predict_on_batch(IMAGES)
    np.testing.assert_array_equal(before, after)
    assert np.abs(before).max() > 0
    for name in ("stage_1_block_0_pointwise_conv_1", "stage_1_block_0_depthwise_conv"):
        assert np.abs(backbone.get_layer(name).get_weights()[0]).max() > 0
