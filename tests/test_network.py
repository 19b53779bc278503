from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from stubs import build_thin_vgg16, weights_of_0

from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.cached_features import network_key
from deep_ranking.files import InputError
from deep_ranking.model.network import (
    build_network,
    merged_parts,
    set_trainable_from,
    split_at_frozen,
    weight_groups,
)

pytestmark = pytest.mark.usefixtures("eager")

SMALL = NetworkConfig(image_size=32, weights=None, hidden_size=16, embedding_size=8)


def random_images(size, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 255, (count, size, size, 3)).astype(np.float32)


@pytest.fixture
def thin(monkeypatch):
    """Networks of this test are built on a VGG16 with few filters."""
    monkeypatch.setattr(keras.applications, "VGG16", build_thin_vgg16)


@pytest.fixture(scope="module")
def blog_network():
    with weights_of_0():
        return build_network(NetworkConfig(weights=None))


def test_the_blogs_network_to_the_last_parameter(blog_network):
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in blog_network.layers}
    assert shapes["block5_pool"] == (7, 7, 512)
    assert shapes["pooled"] == (512,)
    assert shapes["hidden_1"] == shapes["hidden_2"] == (4096,)
    assert shapes["branch_1_conv"] == (14, 14, 96)
    assert shapes["branch_1_pool"] == (4, 4, 96)
    assert shapes["branch_2_conv"] == (7, 7, 96)
    assert shapes["branch_2_pool"] == (4, 4, 96)
    assert shapes["unit_branch_1"] == shapes["unit_branch_2"] == (1536,)
    assert shapes["shallow"] == (3072,)
    assert shapes["merged"] == (7168,)
    assert shapes["unit_embedding"] == (4096,)
    assert blog_network.count_params() == 62_998_528


def test_the_blogs_layers_have_its_settings(blog_network):
    first = blog_network.get_layer("branch_1_conv")
    second = blog_network.get_layer("branch_2_conv")
    assert (first.kernel_size, first.strides, first.padding) == ((8, 8), (16, 16), "same")
    assert (second.kernel_size, second.strides, second.padding) == ((8, 8), (32, 32), "same")
    assert blog_network.get_layer("branch_1_pool").pool_size == (3, 3)
    assert blog_network.get_layer("branch_2_pool").pool_size == (7, 7)
    for name in ("dropout_1", "dropout_2"):
        assert blog_network.get_layer(name).rate == 0.6
    assert blog_network.get_layer("hidden_2").activation is keras.activations.relu
    assert blog_network.get_layer("embedding").activation is keras.activations.linear


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(("size", "branch"), [(32, 96), (64, 96), (128, 384)])
def test_smaller_images_give_smaller_branches(size, branch):
    config = NetworkConfig(image_size=size, weights=None, hidden_size=8, embedding_size=8)
    model = build_network(config)
    assert model.get_layer("unit_branch_1").output.shape[1] == branch
    assert model.get_layer("unit_branch_2").output.shape[1] == branch


VGG16 = 14_714_688  # its parameters without top
BRANCHES = 2 * (8 * 8 * 3 * 96 + 96)


@pytest.mark.parametrize(
    ("options", "parameters", "shapes"),
    [
        (
            {"hidden_layers": 0, "multiscale": "none"},
            512 * 8 + 8,
            {"pooled": (512,), "dropout": (512,), "embedding": (8,)},
        ),
        (
            {"hidden_layers": 1, "pooling": "max"},
            BRANCHES + 512 * 16 + 16 + (96 + 96 + 16) * 8 + 8,
            {"max_pooled": (512,), "hidden_1": (16,), "dropout_1": (16,), "merged": (208,)},
        ),
        (
            {"hidden_layers": 0, "pooling": "average+max", "pooled_blocks": 3},
            BRANCHES + (2 * (512 + 512 + 256) + 192) * 8 + 8,
            {
                "max_pooled_block4": (512,),
                "unit_part_6": (256,),
                "all_pooled": (2560,),
                "merged": (2752,),
            },
        ),
        (
            {
                "hidden_layers": 4,
                "pooling": "gem",
                "pooled_blocks": 5,
                "multiscale": "none",
                "backbone_size": 64,
            },
            (512 + 512 + 256 + 128 + 64) * 16 + 16 + 3 * (16 * 16 + 16) + 16 * 8 + 8,
            {
                "enlarged": (64, 64, 3),
                "block5_pool": (2, 2, 512),
                "gem_pooled_block1": (64,),
                "all_pooled": (1472,),
                "dropout_4": (16,),
            },
        ),
    ],
)
def test_options_have_the_layers_and_parameters_worked_out_by_hand(options, parameters, shapes):
    with weights_of_0():
        model = build_network(replace(SMALL, **options))
    assert model.count_params() == VGG16 + parameters
    found = {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers}
    assert {name: found.get(name) for name in shapes} == shapes
    assert ("branch_1_conv" in found) == (options.get("multiscale", "blog") == "blog")
    dropout = ["dropout"] if options["hidden_layers"] == 0 else []
    dropout += [f"dropout_{number + 1}" for number in range(options["hidden_layers"])]
    assert [name for name in found if name.startswith("dropout")] == dropout


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


POOLINGS = {
    "average": [lambda features: features.mean(axis=(1, 2))],
    "max": [lambda features: features.max(axis=(1, 2))],
    "gem": [lambda features: np.sqrt((features**2).mean(axis=(1, 2)))],
}
POOLINGS["average+max"] = POOLINGS["average"] + POOLINGS["max"]


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("pooled_blocks", [1, 2])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooled_vectors_equal_numpy(pooling, pooled_blocks):
    """Each vector by itself of length 1, the last block first, and all of them together."""
    config = replace(
        SMALL, image_size=64, hidden_layers=0, pooling=pooling, pooled_blocks=pooled_blocks
    )
    model = build_network(config, seed=3)
    names = [*(f"block{block}_pool" for block in (5, 4)[:pooled_blocks]), "unit_convnet"]
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    *maps, got = (np.asarray(each, np.float64) for each in probe(random_images(64)))
    parts = [unit_rows(pool(features)) for features in maps for pool in POOLINGS[pooling]]
    np.testing.assert_allclose(got, unit_rows(np.concatenate(parts, axis=1)), atol=1e-6)


@pytest.mark.usefixtures("thin")
def test_a_channel_that_is_0_everywhere_has_a_finite_gradient_when_compiled():
    """Keras compiles for a GPU, where 0 / 0 is not left out as it is on a processor."""
    model = build_network(replace(SMALL, image_size=64, pooling="gem"))
    layers = [model.get_layer(name) for name in ("block5_pool", "gem_pooled")]
    pooling = keras.Model(layers[0].output, layers[1].output)
    features = np.random.default_rng(0).uniform(0, 1, (1, 2, 2, 32)).astype(np.float32)
    features[..., 7] = 0

    @tf.function(jit_compile=True)
    def gradient(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = pooling(features)
        return tape.gradient(pooled, features)

    got = gradient(tf.constant(features)).numpy()
    assert np.isfinite(got).all()
    lengths = np.linalg.norm(features, axis=(1, 2), keepdims=True)
    others = np.arange(32) != 7
    # The mean over 4 places of x times x / |x| is |x| / 4, the gradient of which is x / |x| / 4.
    expected = features[..., others] / lengths[..., others] / 4
    np.testing.assert_allclose(got[..., others], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("normalisation", ["unit", "backbone"])
def test_the_backbone_sees_the_enlarged_image(normalisation):
    config = replace(SMALL, multiscale="none", normalisation=normalisation)
    model = build_network(replace(config, backbone_size=64), seed=3)
    larger = build_network(replace(config, image_size=64), seed=4)
    larger.set_weights(model.get_weights())
    images = random_images(32)
    enlarged = tf.image.resize(images, (64, 64), method="bilinear")
    got, wanted = (
        np.asarray(keras.Model(each.input, each.get_layer("pooled").output)(pixels))
        for each, pixels in ((model, images), (larger, enlarged))
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * wanted.max())
    np.testing.assert_allclose(model(images), larger(enlarged), atol=1e-4)


@pytest.mark.usefixtures("thin")
def test_branches_see_the_image_as_it_is_when_the_backbone_sees_it_enlarged():
    model = build_network(replace(SMALL, backbone_size=64))
    assert model.get_layer("branch_1_conv").input.shape[1:] == (32, 32, 3)
    assert model.get_layer("block1_conv1").input.shape[1:] == (64, 64, 3)


@pytest.mark.usefixtures("thin")
def test_embeddings_have_unit_length_and_depend_on_the_image():
    model = build_network(SMALL)
    rows = model.predict_on_batch(random_images(32))
    assert rows.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.abs(rows[0] - rows[1]).max() > 1e-4


@pytest.mark.usefixtures("thin")
def test_network_equals_its_drawing():
    """The data's way through the branches and the merge, layer by layer, in NumPy."""
    model = build_network(SMALL, seed=3)
    image = random_images(32, count=1)
    parts = keras.Model(
        model.input, [model.get_layer(name).output for name in ("branch_1_conv", "hidden_2")]
    )
    convolved, hidden = (np.asarray(part, np.float64) for part in parts(image))

    def unit(vector):
        return vector / np.linalg.norm(vector)

    # 32 pixels at stride 16 give 2 x 2 places; a 3 x 3 pool at stride 4 takes the largest of all.
    branch_1 = unit(convolved.max(axis=(1, 2))[0])
    kernel, bias = model.get_layer("branch_2_conv").get_weights()
    # At stride 32 there is one place, and its 8 x 8 window lies in the upper left corner.
    corner = image[0, :8, :8].astype(np.float64) / 255
    branch_2 = unit(np.tensordot(corner, kernel, 3) + bias)
    kernel, bias = model.get_layer("embedding").get_weights()
    merged = np.concatenate([branch_1, branch_2, unit(hidden[0])])
    wanted = unit(merged @ kernel + bias)
    np.testing.assert_allclose(model.predict_on_batch(image)[0], wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("thin")
def test_the_same_seed_gives_the_same_weights():
    first, second, other = (build_network(SMALL, seed=seed) for seed in (1, 1, 2))
    for name in ("block1_conv1", "branch_1_conv", "hidden_1", "embedding"):
        kernels = [model.get_layer(name).get_weights()[0] for model in (first, second, other)]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert np.abs(kernels[0] - kernels[2]).max() > 0


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    """A weight file as Keras writes it, and the thin VGG16 that wrote it."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.weights.h5"
    convnet = build_thin_vgg16(include_top=False, weights=None, input_shape=(None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(convnet.output)
    vgg16 = keras.Model(convnet.inputs[0], pooled, name="vgg16")
    for layer in vgg16.layers:
        if layer.weights:  # biases are not all 0 in trained weights
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, bias + np.linspace(0, 1, len(bias))])
    legacy = path.with_name("vgg16.h5")
    vgg16.save(path.with_name("whole.h5"), include_optimizer=False)
    _only_weights(path.with_name("whole.h5"), legacy)
    return legacy, vgg16


def _only_weights(whole, weights):
    import h5py

    with h5py.File(whole) as source, h5py.File(weights, "w") as target:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
        target.attrs["layer_names"] = source["model_weights"].attrs["layer_names"]


@pytest.mark.usefixtures("thin")
def test_pretrained_weights_read_rgb_pixels_as_they_read_bgr(weight_file):
    path, vgg16 = weight_file
    model = build_network(
        NetworkConfig(image_size=64, weights=str(path), hidden_size=8, embedding_size=8)
    )
    images = random_images(64)
    wanted = vgg16.predict_on_batch(keras.applications.vgg16.preprocess_input(images.copy()))
    pooled = keras.Model(model.input, model.get_layer("pooled").output)
    got = pooled.predict_on_batch(images)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.usefixtures("thin")
def test_pretrained_weights_with_unit_range_are_taken_as_they_are(weight_file):
    path, vgg16 = weight_file
    config = NetworkConfig(image_size=32, weights=str(path), normalisation="unit", hidden_size=8)
    kernel, _ = build_network(config).get_layer("block1_conv1").get_weights()
    np.testing.assert_array_equal(kernel, vgg16.get_layer("block1_conv1").get_weights()[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), (b"some text", "HDF5"), (b"", "HDF5")],
)
def test_a_weight_file_that_is_none_is_named(tmp_path, content, said):
    path = tmp_path / "weights.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        build_network(NetworkConfig(image_size=32, weights=str(path)))
    assert str(path) in str(error.value)


def test_a_weight_file_of_another_network_is_named(tmp_path):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.save(tmp_path / "other.h5", include_optimizer=False)
    with pytest.raises(InputError, match="block1_conv1"):
        build_network(NetworkConfig(image_size=32, weights=str(tmp_path / "other.h5")))


def test_without_a_network_the_message_says_how_to_go_on(monkeypatch):
    vgg16 = keras.applications.VGG16

    def unreachable(*, weights, **options):
        if weights == "imagenet":
            raise Exception("URL fetch failure on https://example.org: None -- nothing resolves")
        return vgg16(weights=weights, **options)

    monkeypatch.setattr(keras.applications, "VGG16", unreachable)
    with pytest.raises(InputError, match=r"--weights PATH.*--weights none"):
        build_network(NetworkConfig(image_size=32))


@pytest.fixture(scope="module")
def small_network():
    """A network whose layers may be frozen and freed, and not otherwise changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "VGG16", build_thin_vgg16)
        return build_network(SMALL, seed=3)


@pytest.mark.parametrize(
    ("first", "frozen"),
    [
        (None, 0),
        ("block1_conv1", 0),
        ("block4_conv1", 7),
        ("block4", 7),
        ("block5_conv3", 12),
        ("head", 13),
    ],
)
def test_train_from_freezes_what_lies_before(small_network, first, frozen):
    model = small_network
    set_trainable_from(model, first)
    backbone = [layer for layer in model.layers if layer.name.startswith("block") and layer.weights]
    assert [layer.trainable for layer in backbone] == [False] * frozen + [True] * (13 - frozen)
    assert all(layer.trainable for layer in model.layers if not layer.name.startswith("block"))


NO_HEAD = {"hidden_layers": 0, "multiscale": "none"}


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(
    ("options", "first", "frontier"),
    [
        ({}, "block5_conv1", {"unit_range", "block4_pool"}),
        # The fourth block's vector is finished, and waits for the fifth's.
        (
            {"multiscale": "none", "pooled_blocks": 2},
            "block5_conv1",
            {"block4_pool", "unit_part_2"},
        ),
        (NO_HEAD | {"backbone_size": 64}, None, {"enlarged"}),
        (NO_HEAD, "head", {"unit_convnet"}),  # features are dropped anew in each step
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ({}, None, {"unit_range"}),
                ({"normalisation": "backbone"}, None, {"unit_range", "backbone_range"}),
                ({}, "block3_conv2", {"unit_range", "block3_conv1"}),
                ({}, "head", {"unit_range", "pooled"}),
                ({"hidden_layers": 0, "pooling": "gem"}, "head", {"unit_range", "unit_convnet"}),
                ({"multiscale": "none", "pooled_blocks": 2}, "head", {"all_pooled"}),
                (NO_HEAD | {"dropout": 0.0}, "head", {"dropout"}),
            )
        ),
    ],
)
def test_the_frozen_and_the_trained_model_are_the_network(options, first, frontier):
    model = build_network(replace(SMALL, **options), seed=3)
    set_trainable_from(model, first)
    frozen, head = split_at_frozen(model)
    assert {each._keras_history.operation.name for each in frozen.outputs} == frontier
    assert len(frozen.outputs) == len(frontier)
    assert not frozen.trainable_weights
    assert {id(each) for each in head.trainable_weights} == {
        id(each) for each in model.trainable_weights
    }
    images = random_images(32)
    before = np.asarray(model(images))
    np.testing.assert_allclose(head(frozen(images)), before, atol=1e-6)
    bias = head.trainable_weights[-1]
    bias.assign(np.linspace(-1, 1, 8))
    after = np.asarray(model(images))
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(head(frozen(images)), after, atol=1e-6)


def test_train_from_names_the_layers_there_are(small_network):
    with pytest.raises(InputError, match=r"conv9.*block1.*head"):
        set_trainable_from(small_network, "conv9")


@pytest.mark.parametrize(
    "values",
    [
        {"image_size": 31},
        {"image_size": 2000},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"embedding_size": 0},
        {"normalisation": "imagenet"},
        {"pooling": "sum"},
        {"pooled_blocks": 0},
        {"hidden_layers": 5},
        {"hidden_layers": -1},
        {"backbone_size": 31},
        {"backbone_size": 1025},
    ],
)
def test_config_refuses_values_out_of_range(values):
    with pytest.raises(InputError, match=next(iter(values))):
        NetworkConfig(weights=None, **values)


@pytest.mark.real_data
def test_real_weights_equal_keras_own(real_data):
    path = real_data / "weights" / "vgg16_imagenet_notop.h5"
    vgg16 = keras.applications.VGG16(include_top=False, weights=str(path), pooling="avg")
    model = build_network(NetworkConfig(image_size=64, weights=str(path), hidden_size=8))
    images = random_images(64)
    wanted = vgg16.predict_on_batch(keras.applications.vgg16.preprocess_input(images.copy()))
    pooled = keras.Model(model.input, model.get_layer("pooled").output)
    np.testing.assert_allclose(pooled.predict_on_batch(images), wanted, atol=1e-4)


@pytest.mark.usefixtures("thin")
def test_the_papers_branches_see_means_of_squares():
    """Figure 3 of the paper: 225 pixels, shrunk to 57 and 29; 15 x 15 and 8 x 8 places; 4 x 4."""
    config = NetworkConfig(
        image_size=225, weights=None, multiscale="paper", hidden_layers=0, embedding_size=8
    )
    model = build_network(config, seed=0)
    names = ("shrunk_4", "branch_1_conv", "branch_1_pool", "shrunk_8", "branch_2_conv")
    shapes = [model.get_layer(name).output.shape[1:] for name in (*names, "branch_2_pool")]
    assert shapes == [(57, 57, 3), (15, 15, 96), (4, 4, 96), (29, 29, 3), (8, 8, 96), (4, 4, 96)]
    image = np.random.default_rng(4).uniform(0, 255, (1, 225, 225, 3)).astype(np.float32)
    outputs = [model.get_layer(name).output for name in ("shrunk_4", "shrunk_8", "unit_shallow")]
    quarter, eighth, shallow = keras.Model(model.input, outputs).predict_on_batch(image)
    # 225 = 56 x 4 + 1: three rows are missing, one before, two behind. For 8, seven: three before.
    square = image[0, 3:7, 7:11].reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(quarter[0, 1, 2], square, atol=1e-5)
    square = image[0, 5:13, 13:21].reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(eighth[0, 1, 2], square, atol=1e-5)
    assert shallow.shape == (1, 2 * 4 * 4 * 96)
    np.testing.assert_allclose(np.linalg.norm(shallow), 1, atol=1e-5)
    assert 0.1 < np.linalg.norm(shallow[0, :1536]) < 0.99  # one normalisation for both


@pytest.mark.slow
@pytest.mark.usefixtures("thin")
def test_frozen_branches_and_backbone_are_apart():
    """The first model gives each of them by itself; the second joins them again."""
    config = replace(SMALL, hidden_layers=0, dropout=0.0)
    for kind, names in (
        ("none", ["dropout"]),
        ("blog", ["unit_branch_1", "unit_branch_2", "dropout"]),
        ("paper", ["unit_shallow", "dropout"]),
        ("colour", ["unit_branch_1", "dropout"]),
        ("texture", ["unit_branch_1", "unit_branch_2", "dropout"]),
    ):
        model = build_network(replace(config, multiscale=kind), seed=0)
        set_trainable_from(model, "head", with_branches=False)
        frozen, head = split_at_frozen(model)
        assert [each._keras_history.operation.name for each in frozen.outputs] == names
        assert weight_groups(model.input, frozen.outputs) == [[n] for n in range(len(names))]
        assert [each._keras_history.operation.name for each in merged_parts(model)] == names
        images = random_images(32)
        np.testing.assert_allclose(head(frozen(images)), model.predict_on_batch(images), atol=1e-6)
        alone = build_network(replace(config, multiscale="none"), seed=0)
        set_trainable_from(alone, "head")
        backbone = keras.Model(frozen.input, frozen.outputs[-1:])
        for name in model.backbone_layers:
            alone.get_layer(name).set_weights(model.get_layer(name).get_weights())
        assert network_key(backbone, "float32") == network_key(split_at_frozen(alone)[0], "float32")


@pytest.mark.usefixtures("thin")
def test_branches_are_trained_unless_frozen():
    model = build_network(replace(SMALL, multiscale="colour"), seed=0)
    assert model.get_layer("branch_1_conv").trainable
    set_trainable_from(model, None, with_branches=False)
    assert not model.get_layer("branch_1_conv").trainable
    set_trainable_from(model, "head")
    assert model.get_layer("branch_1_conv").trainable
