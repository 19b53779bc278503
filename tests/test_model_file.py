import json
import os
from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest

from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.header import CONFIG_ATTRIBUTE, names_of_blog
from deep_ranking.model.network import build_network

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager")

SMALL = NetworkConfig(image_size=32, weights=None, hidden_size=16, embedding_size=8)


def random_images(size=32, count=3):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (count, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = build_network(SMALL, seed=5)
    path = tmp_path_factory.mktemp("model") / "model.h5"
    save_model(model, path)
    return model, path


@pytest.fixture
def damaged(saved, tmp_path):
    """A copy of the file that a test may change."""
    path = tmp_path / "model.h5"
    path.write_bytes(saved[1].read_bytes())
    return path


def test_comes_back_with_the_same_embeddings(saved):
    model, path = saved
    loaded = load_model(path)
    assert loaded.network_config == SMALL
    images = random_images()
    np.testing.assert_array_equal(loaded.predict_on_batch(images), model.predict_on_batch(images))


def test_plain_keras_opens_it_without_custom_objects(saved):
    model, path = saved
    plain = keras.models.load_model(path)
    images = random_images()
    np.testing.assert_allclose(
        plain.predict_on_batch(images), model.predict_on_batch(images), atol=1e-6
    )


@pytest.mark.parametrize(
    "config",
    [
        replace(
            SMALL,
            normalisation="backbone",
            backbone_size=48,
            pooling="gem",
            pooled_blocks=3,
            hidden_layers=1,
            dropout=0.1,
            multiscale="none",
        ),
        pytest.param(
            replace(SMALL, pooling="average+max", pooled_blocks=5, hidden_layers=0),
            marks=pytest.mark.slow,
        ),
        pytest.param(replace(SMALL, pooling="max", hidden_layers=4), marks=pytest.mark.slow),
    ],
)
def test_every_option_comes_back_from_a_file(config, tmp_path):
    model = build_network(config, seed=5)
    path = tmp_path / "model.h5"
    save_model(model, path)
    loaded = load_model(path)
    assert loaded.network_config == config
    images = random_images()
    wanted = model.predict_on_batch(images)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), wanted)
    plain = keras.models.load_model(path)
    np.testing.assert_allclose(plain.predict_on_batch(images), wanted, atol=1e-6)


def test_a_file_of_the_first_version_is_the_blogs_network(saved, damaged):
    first_fields = ("image_size", "normalisation", "hidden_size", "dropout", "embedding_size")
    with h5py.File(damaged, "r+") as file:
        described = json.loads(file.attrs[CONFIG_ATTRIBUTE])
        described = {name: described[name] for name in first_fields}
        file.attrs[CONFIG_ATTRIBUTE] = json.dumps(described)
    loaded = load_model(damaged)
    assert loaded.network_config == replace(
        SMALL,
        pooling="average",
        pooled_blocks=1,
        hidden_layers=2,
        multiscale="blog",
    )
    images = random_images()
    np.testing.assert_array_equal(
        loaded.predict_on_batch(images), saved[0].predict_on_batch(images)
    )
    for name in first_fields:
        text = json.dumps({each: described[each] for each in first_fields if each != name})
        with pytest.raises(InputError, match="must have the fields"):
            NetworkConfig.from_json(text)


@pytest.mark.parametrize("branches", [True, False])
def test_a_file_from_before_there_was_a_choice_of_branches(tmp_path, branches):
    multiscale = "blog" if branches else "none"
    model = build_network(replace(SMALL, hidden_layers=1, multiscale=multiscale), seed=3)
    path = tmp_path / "model.h5"
    save_model(model, path)
    with h5py.File(path, "r+") as file:
        described = json.loads(file.attrs[CONFIG_ATTRIBUTE])
        assert described.pop("multiscale") == multiscale
        file.attrs[CONFIG_ATTRIBUTE] = json.dumps(described | {"shallow_branches": branches})
    loaded = load_model(path)
    assert loaded.network_config.multiscale == multiscale
    assert loaded.network_config.hidden_layers == 1
    images = random_images()
    np.testing.assert_array_equal(loaded.predict_on_batch(images), model.predict_on_batch(images))


@pytest.mark.slow
def test_the_papers_branches_come_back(tmp_path):
    model = build_network(replace(SMALL, hidden_layers=0, multiscale="paper"), seed=3)
    path = tmp_path / "model.h5"
    save_model(model, path)
    loaded = load_model(path)
    assert loaded.network_config.multiscale == "paper"
    assert loaded.get_layer("branch_1_conv").strides == (4, 4)
    images = random_images()
    wanted = model.predict_on_batch(images)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), wanted)
    plain = keras.models.load_model(path, compile=False)
    np.testing.assert_array_equal(plain.predict_on_batch(images), wanted)
    assert NetworkConfig.from_json(model.network_config.to_json()) == loaded.network_config


def test_describes_the_network_and_not_where_it_came_from(saved):
    with h5py.File(saved[1]) as file:
        described = json.loads(file.attrs[CONFIG_ATTRIBUTE])
        assert "optimizer_weights" not in file
    assert described["image_size"] == 32
    assert described["normalisation"] == "unit"
    assert "weights" not in described


def test_saving_replaces_as_a_whole(saved, tmp_path, monkeypatch):
    model, _ = saved
    path = tmp_path / "model.h5"
    path.write_bytes(b"the model before")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(model, path)
    assert path.read_bytes() == b"the model before"
    assert os.listdir(tmp_path) == ["model.h5"]


def test_only_our_networks_are_saved(tmp_path):
    with pytest.raises(InputError, match="build_network"):
        save_model(keras.Sequential([keras.Input((4,))]), tmp_path / "model.h5")


def blog_file(path, model, *, first, second, dense):
    """Write a network's weights as the blog's own code does: Keras 2, weights only."""
    names = {"branch_1_conv": first, "branch_2_conv": second}
    names |= dict(zip(("hidden_1", "hidden_2", "embedding"), dense, strict=True))
    with h5py.File(path, "w") as file:
        layer_names = []
        for layer in model.layers:
            name = names.get(layer.name, layer.name)
            group = file.create_group(name)
            weights = [f"{name}/{kind}:0".encode() for kind in ("kernel", "bias") if layer.weights]
            group.attrs["weight_names"] = weights
            for weight, values in zip(weights, layer.get_weights(), strict=True):
                group[weight.decode()] = values
            layer_names.append(name.encode())
        file.create_group("input_2")
        file.create_group("lambda_1")
        file.attrs["layer_names"] = layer_names
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.1.3"


@pytest.mark.slow
def test_reads_the_files_of_the_blogs_repository(tmp_path):
    model = build_network(NetworkConfig(weights=None), seed=7)
    path = tmp_path / "deepranking.h5"
    dense = ("dense_9", "dense_10", "dense_11")  # as after earlier models in one session
    blog_file(path, model, first="conv2d_9", second="conv2d_10", dense=dense)
    loaded = load_model(path)
    assert loaded.network_config == NetworkConfig(weights=None)
    for name in ("branch_1_conv", "branch_2_conv", "hidden_1", "hidden_2", "embedding"):
        for ours, theirs in zip(
            loaded.get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    image = random_images(224, 1)
    np.testing.assert_allclose(loaded(image), model(image), atol=1e-6)


@pytest.mark.parametrize("numbers", [("", "_1", "_2"), ("_1", "_2", "_3"), ("_9", "_10", "_11")])
def test_layers_of_keras_2_go_by_their_number(numbers):
    names = ["input_1", "lambda_1", *(f"dense{number}" for number in reversed(numbers))]
    names += [f"conv2d{number}" for number in reversed(numbers[:2])]
    assert names_of_blog(names) == {
        "branch_1_conv": f"conv2d{numbers[0]}",
        "branch_2_conv": f"conv2d{numbers[1]}",
        "hidden_1": f"dense{numbers[0]}",
        "hidden_2": f"dense{numbers[1]}",
        "embedding": f"dense{numbers[2]}",
    }


def test_refuses_what_is_no_model(tmp_path):
    path = tmp_path / "model.h5"
    with pytest.raises(InputError, match="no such file"):
        load_model(path)
    path.write_text("not a model")
    with pytest.raises(InputError, match=r"expected an \.h5 file"):
        load_model(path)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(path, include_optimizer=False)
    with pytest.raises(InputError, match="not a model of deep ranking"):
        load_model(path)
    with pytest.raises(InputError, match="not a regular file"):
        load_model(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_refuses_a_file_that_is_cut_off(saved, tmp_path, share):
    data = saved[1].read_bytes()
    path = tmp_path / "model.h5"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=str(path)):
        load_model(path)


def change_description(path, **values):
    with h5py.File(path, "r+") as file:
        described = json.loads(file.attrs[CONFIG_ATTRIBUTE]) | values
        file.attrs[CONFIG_ATTRIBUTE] = json.dumps(described)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"embedding_size": 9}, "embedding/kernel"),
        ({"image_size": 1 << 40}, "image_size"),
        ({"image_size": "32"}, "type int"),
        ({"dropout": None}, "type float"),
        ({"normalisation": "__import__('os')"}, "normalisation"),
        ({"class_name": "Lambda"}, "must have the fields"),
        ({"pooling": "sum"}, "pooling"),
        ({"pooling": ["max"]}, "type str"),
        ({"pooled_blocks": 6}, "pooled_blocks"),
        ({"pooled_blocks": True}, "type int"),
        ({"hidden_layers": -1}, "hidden_layers"),
        ({"hidden_layers": 2.0}, "type int"),
        ({"backbone_size": 1 << 40}, "backbone_size"),
        ({"multiscale": 0}, "type str"),
        ({"weights": "imagenet"}, "must have the fields"),
    ],
)
def test_believes_the_description_only_within_bounds(damaged, values, said):
    change_description(damaged, **values)
    with pytest.raises(InputError, match=said):
        load_model(damaged)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "[" * 100_000, "1" * (2 << 20)])
def test_refuses_a_description_that_is_none(damaged, text):
    with h5py.File(damaged, "r+", libver="latest") as file:
        del file.attrs[CONFIG_ATTRIBUTE]
        file.attrs[CONFIG_ATTRIBUTE] = text
    with pytest.raises(InputError, match=r"description|short text"):
        load_model(damaged)


KERNEL = "model_weights/embedding/embedding/kernel"


def replaced(path, make):
    with h5py.File(path, "r+") as file:
        values = file[KERNEL][()]
        del file[KERNEL]
        make(file, values)


def test_reads_nothing_outside_of_the_file(damaged, tmp_path):
    outside = tmp_path / "outside.h5"

    def external_link(file, values):
        with h5py.File(outside, "w") as other:
            other["kernel"] = values
        file[KERNEL] = h5py.ExternalLink(str(outside), "/kernel")

    def soft_link(file, values):
        file["elsewhere"] = values
        file[KERNEL] = h5py.SoftLink("/elsewhere")

    def external_storage(file, values):
        raw = tmp_path / "raw.bin"
        raw.write_bytes(values.tobytes())
        file.create_dataset(
            KERNEL, values.shape, values.dtype, external=[(str(raw), 0, values.nbytes)]
        )

    def virtual(file, values):
        with h5py.File(outside, "w") as other:
            other["kernel"] = values
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[:] = h5py.VirtualSource(str(outside), "kernel", values.shape)
        file.create_virtual_dataset(KERNEL, layout)

    whole = damaged.read_bytes()
    for make, said in (
        (external_link, "leads elsewhere"),
        (soft_link, "leads elsewhere"),
        (external_storage, "another file"),
        (virtual, "another file"),
    ):
        damaged.write_bytes(whole)
        replaced(damaged, make)
        with pytest.raises(InputError, match=said):
            load_model(damaged)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file, values: None, "no array"),
        (
            lambda file, values: file.create_dataset(KERNEL, (1 << 40, 8), "f4", chunks=True),
            "kernel",
        ),
        (lambda file, values: file.create_dataset(KERNEL, values.shape, "i4"), "int32"),
        (lambda file, values: file.create_group(KERNEL), "no array"),
    ],
)
def test_checks_shape_and_type_before_reading(damaged, make, said):
    replaced(damaged, make)
    with pytest.raises(InputError, match=said):
        load_model(damaged)
