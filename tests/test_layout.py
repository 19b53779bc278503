"""The layout branch: plain facts of an image, by fixed filters, beside what a network learned."""

import json

import keras
import numpy as np
import pytest

from deep_ranking.config import NetworkConfig
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.layout import FAINT, LAYOUT_SIZE
from deep_ranking.model.network import build_network, merged_parts, set_trainable_from

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager")

SMALL = {"weights": None, "hidden_layers": 0, "multiscale": "none", "embedding_size": 4}


@pytest.fixture(scope="module")
def network(thin_vgg16):
    return build_network(NetworkConfig(image_size=64, layout=True, **SMALL), seed=0)


def layout_of(network, pixels):
    layout, _ = merged_parts(network)
    return np.asarray(keras.Model(network.input, layout)(pixels.astype(np.float32)))


def test_colours_and_edges_of_each_cell_are_those_of_loops(network):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3))
    found = layout_of(network, pixels)
    assert found.shape == (2, LAYOUT_SIZE)
    unit = pixels / 255
    grey = unit.mean(axis=-1)
    root = np.sqrt(0.5)
    for image in range(2):
        for row in range(4):
            for column in range(4):
                cell = unit[image, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
                number = 4 * row + column
                colours = found[image, 3 * number : 3 * number + 3]
                np.testing.assert_allclose(colours, cell.mean(axis=(0, 1)), atol=1e-6)
                # Slopes of places 1 to 62; the first and last cells lose a place each.
                sums, count = np.zeros(4), 0
                for y in range(16 * row, 16 * row + 16):
                    for x in range(16 * column, 16 * column + 16):
                        if 0 < y < 63 and 0 < x < 63:
                            across = grey[image, y, x + 1] - grey[image, y, x - 1]
                            down = grey[image, y + 1, x] - grey[image, y - 1, x]
                            more, less = root * (across + down), root * (across - down)
                            sums += np.abs([across, down, more, less])
                            count += 1
                wanted = sums / count + FAINT
                edges = found[image, 48 + 4 * number : 52 + 4 * number]
                np.testing.assert_allclose(edges, wanted / np.linalg.norm(wanted), atol=2e-2)


def test_a_flat_image_has_no_direction(network):
    edges = layout_of(network, np.full((1, 64, 64, 3), 200))[0, 48:]
    np.testing.assert_allclose(edges, 0.5, atol=1e-4)


@pytest.mark.parametrize("size", [33, 200])
def test_any_size_of_images_has_as_many_features(size):
    network = build_network(NetworkConfig(image_size=size, layout=True, **SMALL), seed=0)
    pixels = np.zeros((1, size, size, 3))
    pixels[:, : size // 2] = 255  # the upper half is white
    colours = layout_of(network, pixels)[0, :48].reshape(4, 12)
    np.testing.assert_allclose(colours.mean(axis=1), [1, 1, 0, 0], atol=0.1)


def test_it_is_never_trained_and_is_kept_in_the_file(network, tmp_path):
    set_trainable_from(network, None)
    assert not any("layout" in weight.path for weight in network.trainable_weights)
    save_model(network, tmp_path / "m.h5")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    for opened in (load_model(tmp_path / "m.h5"), keras.models.load_model(tmp_path / "m.h5")):
        np.testing.assert_allclose(opened(pixels), network(pixels), atol=1e-6)


def test_models_without_it_keep_their_description_and_so_their_fingerprint():
    without = NetworkConfig(image_size=64, **SMALL)
    assert "layout" not in json.loads(without.to_json())
    assert NetworkConfig.from_json(without.to_json()) == without
    with_it = NetworkConfig(image_size=64, layout=True, **SMALL)
    assert NetworkConfig.from_json(with_it.to_json()) == with_it


@pytest.mark.parametrize("multiscale", ["paper", "blog", "colour"])
def test_it_stands_beside_other_branches_before_the_convnet(multiscale):
    config = NetworkConfig(image_size=32, layout=True, **SMALL | {"multiscale": multiscale})
    parts = merged_parts(build_network(config, seed=0))
    assert [part.shape[-1] == LAYOUT_SIZE for part in parts].index(True) == len(parts) - 2
