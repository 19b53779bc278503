import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

from deep_ranking.config import BACKBONES, NetworkConfig
from deep_ranking.embedding import cached_features, embed
from deep_ranking.model.folding import fold_batch_norms, inference_model
from deep_ranking.model.network import build_network, set_trainable_from, split_at_frozen

pytestmark = pytest.mark.usefixtures("eager")

RNG = np.random.default_rng(5)


def shaken(model):
    """Give all weights values of some size, variances positive ones."""
    for layer in model.layers:
        layer.set_weights([RNG.uniform(0.2, 1.5, each.shape) for each in layer.get_weights()])
    return model


def kinds(model):
    return {layer.name: type(layer).__name__ for layer in model.layers}


def small_model():
    """Every kind of layer that is folded, and batch norms that must stay."""
    image = keras.Input((9, 9, 3), name="image")
    x = layers.BatchNormalization(name="first")(image)  # behind no layer
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="conv_bn")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.BatchNormalization(name="after_relu")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(scale=False, epsilon=0.1, name="depthwise_bn")(x)
    read_twice = layers.Conv2D(8, 1, name="read_twice")(x)
    x = layers.BatchNormalization(name="twice_bn")(read_twice)
    x = layers.Add(name="add")([x, read_twice])
    x = layers.Conv2D(5, 1, activation="tanh", name="activated")(x)
    x = layers.BatchNormalization(name="activated_bn")(x)
    shown = layers.Conv2D(5, 1, name="shown")(x)
    x = layers.BatchNormalization(name="shown_bn")(shown)
    x = layers.BatchNormalization(axis=1, name="rows_bn")(layers.Conv2D(5, 1, name="rows")(x))
    x = layers.Dense(6, name="dense")(layers.GlobalAveragePooling2D(name="pool")(x))
    x = layers.BatchNormalization(center=False, name="dense_bn")(x)
    return shaken(keras.Model(image, [x, shown]))


class UnknownToKeras(keras.optimizers.SGD):
    """As the optimizers of training are: without a name that Keras could find."""


def test_a_model_that_is_being_trained_is_folded_without_its_optimizer():
    model = small_model()
    model.compile(UnknownToKeras(), loss="mse")
    folded = fold_batch_norms(model)
    assert not folded.compiled and model.compiled
    assert kinds(folded)["conv_bn"] == "Identity"


def test_what_is_folded_gives_the_same():
    model = small_model()
    folded = fold_batch_norms(model)
    changed = {name for name, kind in kinds(folded).items() if kind != kinds(model)[name]}
    assert changed == {"conv_bn", "depthwise_bn", "dense_bn"}
    assert all(kinds(folded)[name] == "Identity" for name in changed)
    images = RNG.uniform(-1, 1, (4, 9, 9, 3)).astype(np.float32)
    before = model.get_weights()
    for one, other in zip(
        folded.predict_on_batch(images), model.predict_on_batch(images), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))


def test_a_copy_is_kept_until_weights_or_precision_change():
    model = small_model()
    first = inference_model(model)
    assert inference_model(model) is first
    model.get_layer("dense").bias.assign_add(np.ones(6))
    second = inference_model(model)
    assert second is not first
    images = RNG.uniform(-1, 1, (2, 9, 9, 3)).astype(np.float32)
    expected = model.predict_on_batch(images)[0]
    np.testing.assert_allclose(second.predict_on_batch(images)[0], expected, rtol=1e-4, atol=1e-3)
    model.get_layer("conv").dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    assert inference_model(model) is not second
    gone = weakref.ref(inference_model(model))
    del model
    gc.collect()  # the model
    gc.collect()  # its copy
    assert gone() is None


def test_other_models_are_returned_as_they_are():
    image = keras.Input((9, 9, 3))
    plain = keras.Model(image, layers.Conv2D(2, 1)(image))
    in_turn = keras.Sequential([image, layers.Conv2D(2, 1), layers.BatchNormalization()])
    for model in (plain, in_turn):
        assert fold_batch_norms(model) is model
        assert inference_model(model) is model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folded", "kept"),
    [
        ("efficientnet-lite0", 49, 0),
        ("mobilenet", 27, 0),
        ("mobilenetv2", 52, 0),
        ("resnet50", 53, 0),
        ("densenet121", 59, 62),  # most of its batch norms stand before a convolution
        ("efficientnetb0", 49, 0),
        ("vgg16", 0, 0),
    ],
)
def test_backbones_give_the_same(name, folded, kept):
    size = max(32, BACKBONES[name].min_size)
    network = build_network(
        NetworkConfig(
            image_size=size,
            backbone=name,
            weights=None,
            hidden_layers=0,
            multiscale="none",
            embedding_size=8,
        ),
        seed=0,
    )
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([RNG.uniform(0.5, 1.5, each.shape) for each in layer.get_weights()])
    set_trainable_from(network, "head")
    frozen, _ = split_at_frozen(network)
    copy = fold_batch_norms(frozen)
    assert list(kinds(copy)) == list(kinds(frozen))
    before, after = (list(kinds(each).values()) for each in (frozen, copy))
    assert after.count("Identity") - before.count("Identity") == folded
    assert after.count("BatchNormalization") == kept
    images = RNG.integers(0, 256, (2, size, size, 3)).astype(np.float32)
    (one,), (other,) = (
        keras.tree.flatten(each.predict_on_batch(images)) for each in (copy, frozen)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.fixture
def predicting(monkeypatch):
    """Names of the kinds of layers in each network that predicts."""
    seen, predict = [], keras.Model.predict_on_batch

    def recorded(self, *args):
        seen.append(set(kinds(self).values()))
        return predict(self, *args)

    monkeypatch.setattr(keras.Model, "predict_on_batch", recorded)
    return seen


def test_images_are_embedded_and_cached_folded_under_the_unfolded_key(
    image_tree_of_colors, tmp_path, predicting
):
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization(name="bn")(x))
    model = shaken(keras.Model(image, x))
    paths = sorted(image_tree_of_colors.rglob("*.png"))
    rows = embed.embed_images(model, paths)
    key = cached_features.network_key(model, "float32")
    features = cached_features.cache_features(model, paths, tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == [key]
    assert predicting
    assert all("Identity" in each and "BatchNormalization" not in each for each in predicting)
    numbers = np.arange(len(paths))
    (cached,) = features.read(numbers, 0 * numbers)
    np.testing.assert_allclose(cached, rows, rtol=2e-3)
