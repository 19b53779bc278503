from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest

from deep_ranking.config import BACKBONES, NetworkConfig, find_backbone
from deep_ranking.files import InputError
from deep_ranking.model.backbone import prepare_backbone
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.network import (
    backbone_blocks,
    build_network,
    set_trainable_from,
    split_at_frozen,
)

pytestmark = pytest.mark.usefixtures("eager")

SMALL = NetworkConfig(
    image_size=32, weights=None, hidden_layers=0, multiscale="none", embedding_size=8
)


@pytest.fixture(autouse=True)
def same_weights_each_time():
    keras.utils.set_random_seed(0)


def random_images(size):
    return np.random.default_rng(7).integers(0, 256, (2, size, size, 3)).astype(np.float32)


MODES = {"caffe": "caffe", "torch": "torch", "symmetric": "tf"}


def config_of(name, **options):
    size = max(32, BACKBONES[name].min_size)
    return replace(SMALL, backbone=name, image_size=size, **options)


@cache
def unset(name):
    """A network on a backbone, whose weights are not to be changed."""
    return build_network(config_of(name))


def shaken(model, pixels):
    """Give every weight some noise, and batch norm the statistics of these pixels: with mean 0 and
    variance 1, from which it starts, all images look alike behind a few layers.
    """
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if layer.weights and not isinstance(layer, keras.layers.Normalization):
            noise = [0.05 * rng.uniform(-1, 1, weight.shape) for weight in layer.weights]
            layer.set_weights([w + n for w, n in zip(layer.get_weights(), noise, strict=True)])
    normed = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normed]
    for layer in normed:
        layer.momentum = 0.0
    model(pixels, training=True)
    for layer, momentum in zip(normed, momenta, strict=True):
        layer.momentum = momentum
        # One variance for all channels: a channel of variance 0 would make much of rounding.
        variance = layer.moving_variance
        variance.assign(np.full(variance.shape, np.mean(variance), np.float32))
    return model


# Pixels of each kind, names that Keras only numbers, and a backbone that normalises by itself.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet", "efficientnetb0", "xception", "resnet50"])
def test_pixels_and_weights_are_those_of_keras(tmp_path, name):
    spec, config = BACKBONES[name], config_of(name)
    shape = (config.image_size, config.image_size, 3)
    builder = getattr(keras.applications, spec.builder)
    images = random_images(config.image_size)
    pixels = keras.applications.imagenet_utils.preprocess_input(
        images.astype(np.float64), mode=MODES[spec.pixels]
    )
    if name == "efficientnetb0":  # its own first layer divides by 255
        pixels = 255 * pixels
    plain = builder(include_top=False, weights=None, input_shape=shape, pooling="avg")
    reference = shaken(plain, pixels)
    reference.save(tmp_path / "weights.h5", include_optimizer=False)
    wanted = reference.predict_on_batch(pixels)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.05 * np.abs(wanted).max()
    model = build_network(replace(config, weights=str(tmp_path / "weights.h5"), normalisation=None))
    got = keras.Model(model.input, model.get_layer("pooled").output).predict_on_batch(images)
    # EfficientNet turns a change of 1e-7 in its pixels into 1e-3; images differ by 0.6 and more.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=0.01 * np.abs(wanted).max())


# One of each family: its other members repeat the same layers more often.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("densenet121", "efficientnetb0", "efficientnetv2b0", "inceptionv3", "mobilenet"),
        *("mobilenetv2", "nasnetmobile", "resnet50", "resnet50v2", "vgg16", "xception"),
    ],
)
def test_a_model_file_of_a_backbone_opens_here_and_in_plain_keras(tmp_path, name):
    model = build_network(config_of(name), seed=1)
    images = random_images(model.input_shape[1])
    before = shaken(model, images).predict_on_batch(images)
    assert np.abs(before[0] - before[1]).max() > 0.01
    save_model(model, tmp_path / "model.h5")
    plain = keras.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(plain.predict_on_batch(images), before)
    build_network(config_of(name))  # Keras counts on
    loaded = load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded.predict_on_batch(images), before)
    assert loaded.network_config.backbone == name


def test_layers_that_keras_numbers_are_numbered_from_1_in_the_order_of_their_making():
    image = keras.Input((8, 8, 3))
    first, second = (keras.layers.Conv2D(2, 1) for _ in range(2))
    pooled = keras.layers.MaxPooling2D(name="max_pooling")  # a name that somebody gave
    outputs = [second(image), pooled(first(image))]  # Keras lists layers by their depth
    model = keras.Model(image, outputs)
    made, names = prepare_backbone(model, [layer.name for layer in model.layers[1:]])
    assert sorted(names) == ["conv2d_1", "conv2d_2", "max_pooling"]
    numbered = {
        made.get_layer(name).name: model.get_layer(old.name).name
        for name, old in (("conv2d_1", first), ("conv2d_2", second))
    }
    assert numbered == {"conv2d_1": first.name, "conv2d_2": second.name}
    assert [each.shape for each in made.outputs] == [each.shape for each in model.outputs]
    assert made.get_layer("max_pooling").input._keras_history.operation.name == "conv2d_1"


def test_pixels_are_normalised_once_and_nothing_is_dropped():
    image = keras.Input((4,))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Normalization(mean=3.0, variance=4.0)(x)
    model = keras.Model(image, keras.layers.Dropout(0.5, name="drop")(x))
    made, names = prepare_backbone(model, [layer.name for layer in model.layers[1:]])
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(made(rows, training=True), rows)
    assert names == ["rescaling_1", "normalization_1", "drop"]


@pytest.mark.slow
def test_the_same_backbone_has_the_same_names_in_every_process():
    first, second = (build_network(config_of("xception")) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert {"conv2d_1", "conv2d_4"} <= set(first.backbone_layers)


@pytest.mark.parametrize(
    ("name", "first", "trained"),
    [
        pytest.param("resnet50", "conv5", "conv5", marks=pytest.mark.slow),
        ("mobilenetv2", "block_16", ("block_16", "Conv_1")),
        ("mobilenet", "conv_pw_13", "conv_pw_13"),
        ("mobilenet", "conv_dw_13", ("conv_dw_13", "conv_pw_13")),
        ("mobilenet", "head", ()),
    ],
)
def test_training_begins_at_a_block_or_a_layer(name, first, trained):
    model = unset(name)
    set_trainable_from(model, first)
    backbone = [model.get_layer(each) for each in model.backbone_layers]
    moving = {layer.name for layer in backbone if layer.trainable_weights}
    assert all(layer.startswith(trained) for layer in moving)
    every = {layer.name for layer in backbone if layer.weights}
    wanted = {layer for layer in every if trained and layer.startswith(trained)}
    assert moving >= {layer for layer in wanted if layer.endswith(("_conv", "_13"))}
    assert model.get_layer("embedding").trainable


def test_batch_norms_train_only_with_the_whole_backbone():
    model = unset("mobilenet")
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    for first, trained in (("conv_pw_5", False), ("head", False), (None, True)):
        set_trainable_from(model, first)
        assert {norm.trainable for norm in norms} == {trained}
    set_trainable_from(model, "conv_pw_12")
    images = random_images(32)
    last = keras.Model(model.input, model.get_layer("conv_pw_13_bn").output)
    trained, inferred = (np.asarray(last(images, training=each)) for each in (True, False))
    np.testing.assert_array_equal(trained, inferred)  # the statistics of pre-training


def test_block_1_is_not_block_16():
    model = unset("mobilenetv2")
    blocks = backbone_blocks(model)
    assert all(name.startswith("block_1_") for name in blocks["block_1"])
    assert len(blocks) == 16


@pytest.mark.slow
def test_frozen_layers_give_the_same_in_training():
    """Frozen statistics of batches are not those of this batch."""
    model = shaken(build_network(config_of("mobilenet", dropout=0.0), seed=2), random_images(32))
    set_trainable_from(model, "head")
    frozen, head = split_at_frozen(model)
    assert [weight.path.split("/")[0] for weight in head.weights] == ["embedding", "embedding"]
    images = random_images(32)
    once, again = (np.asarray(model(images, training=kind)) for kind in (True, False))
    np.testing.assert_allclose(once, again, atol=1e-6)
    np.testing.assert_allclose(head(frozen(images)), again, atol=1e-6)


@pytest.mark.slow
def test_pooled_blocks_are_those_of_the_backbone():
    model = build_network(config_of("mobilenet", pooled_blocks=3))
    widths = [model.get_layer(f"unit_part_{number}").output.shape[1] for number in (1, 2, 3)]
    assert widths == [1024, 1024, 512]
    with pytest.raises(InputError, match=r"pooled_blocks must be 13 or less with mobilenet"):
        build_network(config_of("mobilenet", pooled_blocks=14))


def test_capitals_make_no_difference():
    assert find_backbone("ResNet50").name == "resnet50"
    assert replace(SMALL, backbone="VGG19").backbone == "vgg19"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MobileNetV3Small", "not offered: .*hard swish"),
        ("inceptionresnetv2", "not offered: .*CustomScaleLayer"),
        ("resnet18", "one of vgg16, .*resnet50.*Received: resnet18"),
    ],
)
def test_other_backbones_are_refused_with_the_reason(name, said):
    with pytest.raises(InputError, match=said):
        replace(SMALL, backbone=name)


def test_images_may_be_too_small_for_a_backbone():
    with pytest.raises(InputError, match=r"xception sees images of 71 pixels.*Received: 64"):
        replace(SMALL, backbone="xception", image_size=64)
    replace(SMALL, backbone="xception", image_size=64, backbone_size=71)
