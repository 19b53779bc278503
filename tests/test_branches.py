from dataclasses import replace

import keras
import numpy as np
import pytest

from deep_ranking.config import NetworkConfig
from deep_ranking.config.network import WORD_KINDS
from deep_ranking.model.branch_words import patch_words, random_patches
from deep_ranking.model.branches import branch_convolutions, start_branches
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.network import build_network
from deep_ranking.reports.explain import explain_pixels

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager")

COLOUR = NetworkConfig(
    image_size=64, weights=None, hidden_layers=0, multiscale="colour", embedding_size=8
)
KINDS = ("blog", "paper", "colour", "texture")


def images_of(count=8, size=64, seed=0):
    """Images of smooth colours: random ones at a sixteenth of the size, enlarged."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(0, 255, (count, size // 16, size // 16, 3))
    return small.repeat(16, axis=1).repeat(16, axis=2).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    return images_of()


@pytest.fixture
def model(images):
    built = build_network(COLOUR, seed=0)
    start_branches(built, [images[:4], images[4:]])
    return built


def test_a_word_is_the_centre_of_its_patches():
    """Three words, three clusters: each patch counts for the word of its cluster alone."""
    rng = np.random.default_rng(1)
    centres = np.array([[0.1, 0.2, 0.9], [0.8, 0.1, 0.1], [0.5, 0.9, 0.4]])
    clusters = np.repeat(np.arange(3), 50)
    patches = (centres[clusters] + rng.normal(0, 0.01, (150, 3))).astype(np.float32)
    kernel, bias = patch_words(patches, 3)
    assert kernel.shape == (3, 3) and bias.shape == (3,)
    words = (patches @ kernel + bias).argmax(axis=1)
    assert len({(cluster, word) for cluster, word in zip(clusters, words, strict=True)}) == 3


def test_words_are_told_apart_after_whitening():
    rng = np.random.default_rng(2)
    patches = rng.normal(0, [1, 1, 0.1], (400, 3)).astype(np.float32)
    kernel, bias = patch_words(patches, 4)
    fit = patches @ kernel + bias
    # Whitening enlarges the axis that varies least: a step along it changes the fits more.
    steps = np.abs(kernel - kernel.mean(axis=1, keepdims=True)).mean(axis=1)
    assert steps[2] > 3 * steps[:2].max()
    shares = np.exp(fit - fit.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    # A patch is divided among the words near it.
    assert 0.3 < np.median(shares.max(axis=1)) < 0.99


def test_patches_are_whitened_colour_by_colour():
    """Of grey patches all pixels are scaled alike: along its own axes, noise would be enlarged."""
    pixels = np.random.default_rng(8).uniform(0, 1, (6, 9)).astype(np.float32)
    patches = pixels.repeat(3, axis=1)
    kernel, _ = patch_words(patches, 6)  # few different patches: the words are the patches
    factors = kernel / np.unique(patches, axis=0).T
    assert factors.min() > 0
    np.testing.assert_allclose(factors, factors[0, 0], rtol=1e-3)


def test_words_follow_from_the_patches_alone():
    patches = np.random.default_rng(3).uniform(0, 1, (300, 3)).astype(np.float32)
    first, second = patch_words(patches, 5), patch_words(patches, 5)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_few_different_patches_are_a_word_each():
    patches = np.zeros((50, 3), np.float32)
    patches[:20] = 1
    kernel, bias = patch_words(patches, 5)
    fit = patches @ kernel + bias
    assert np.isfinite(fit).all()
    assert set(fit[:20].argmax(axis=1)).isdisjoint(fit[20:].argmax(axis=1))


def test_patches_are_cut_out_of_their_image():
    rng = np.random.default_rng(4)
    image = np.arange(5 * 6 * 3, dtype=np.float32).reshape(1, 5, 6, 3)
    bordered = np.pad(image[0], ((0, 1), (0, 1), (0, 0)))  # as of a "same" convolution
    whole = {
        bordered[row : row + 2, column : column + 2].tobytes()
        for row in range(5)
        for column in range(6)
    }
    found = random_patches(image, 2, 300, rng=rng)
    assert found.shape == (300, 12)
    assert {patch.tobytes() for patch in found} == whole  # every place, to the last


def test_the_colour_branch_returns_the_roots_of_the_words_shares(model, images):
    kernel, bias = model.get_layer("branch_1_conv").get_weights()
    pixels = images.reshape(8, 32, 2, 32, 2, 3).mean(axis=(2, 4)) / 255
    fit = 2 * (pixels @ kernel[0, 0] + bias)
    shares = np.exp(fit - fit.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    expected = np.sqrt(shares.mean(axis=(1, 2)))
    branch = keras.Model(model.input, model.get_layer("unit_branch_1").output)
    np.testing.assert_allclose(branch.predict_on_batch(images), expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-4)


def test_the_texture_branches_count_colours_and_patches_around_every_pixel(images):
    model = build_network(replace(COLOUR, multiscale="texture"), seed=0)
    colours, textures = branch_convolutions(model)
    assert colours.kernel.shape == (1, 1, 3, 128) and textures.kernel.shape == (5, 5, 3, 128)
    assert textures.output.shape == (None, 32, 32, 128)
    start_branches(model, [images])
    # Turned images have the same colours, and other textures.
    turned = np.ascontiguousarray(images[:, ::-1])
    for number, alike in ((1, True), (2, False)):
        branch = keras.Model(model.input, model.get_layer(f"unit_branch_{number}").output)
        found = [branch.predict_on_batch(each) for each in (images, turned)]
        assert np.allclose(*found, atol=1e-5) == alike


def test_the_words_are_those_of_the_training_images(model, images):
    """Images of two colours: nearly all of each image belongs to few words of the 128."""
    branch = keras.Model(model.input, model.get_layer("branch_1_shares").output)
    shares = branch.predict_on_batch(images)
    assert np.median(shares.max(axis=-1)) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_start_from_images_changes_the_branches_and_nothing_else(kind, images):
    model = build_network(replace(COLOUR, multiscale=kind), seed=0)
    before = {weight.path: np.array(weight) for weight in model.weights}
    start_branches(model, [images])
    changed = {weight.path for weight in model.weights if (before[weight.path] != weight).any()}
    expected = {weight.path for layer in branch_convolutions(model) for weight in layer.weights}
    assert changed == expected
    assert len(branch_convolutions(model)) == (1 if kind == "colour" else 2)
    assert np.isfinite(model.predict_on_batch(images)).all()


def test_plain_keras_opens_the_file(model, images, tmp_path):
    path = tmp_path / "m.h5"
    save_model(model, path)
    expected = model.predict_on_batch(images)
    plain = keras.models.load_model(path, compile=False)
    np.testing.assert_array_equal(plain.predict_on_batch(images), expected)
    np.testing.assert_array_equal(load_model(path).predict_on_batch(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_places_of_each_branch_add_up_to_its_share(kind, images):
    model = build_network(replace(COLOUR, multiscale=kind), seed=0)
    start_branches(model, [images])
    for layer in branch_convolutions(model) if kind in ("blog", "paper") else []:
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, 0 * bias])
    found = explain_pixels(model, *images[:2].astype(np.uint8))
    sums = np.sum(list(found.parts_of_image.values()), axis=0)
    np.testing.assert_allclose(sums, found.cosine, atol=1e-5)
    branches = [name for name in found.parts if name.startswith("branch")]
    assert len(branches) == (1 if kind == "colour" else 2)
    shown = str(found)
    assert ("colours " in shown, "textures " in shown) == (kind in WORD_KINDS, kind == "texture")
    assert ("branch 1 " in shown) == (kind not in WORD_KINDS)
    for name in branches:
        np.testing.assert_allclose(
            found.evidence[name].sum(axis=(1, 2)), found.parts_of_image[name], atol=1e-5
        )
        assert found.heatmaps[name].shape == (2, 64, 64)


def test_the_map_of_the_colour_branch_shows_the_shared_colour():
    """Red is on the left of one image and on the right of the other; the rest differs."""
    rng = np.random.default_rng(6)
    pair = np.empty((2, 64, 64, 3), np.float32)
    pair[:] = rng.uniform(0, 60, pair.shape)
    pair[0, :, :32], pair[1, :, 32:] = [250, 10, 10], [250, 10, 10]
    pair[0, :, 32:, 1] += 150
    pair[1, :, :32, 2] += 150
    model = build_network(COLOUR, seed=0)
    start_branches(model, [np.concatenate([pair, images_of()])])
    kernel, bias = model.get_layer("embedding").get_weights()
    kernel[:] = 0
    kernel[:128] = np.random.default_rng(7).normal(0, 1, (128, kernel.shape[1]))
    model.get_layer("embedding").set_weights([kernel, 0 * bias])
    found = explain_pixels(model, *pair.astype(np.uint8))
    left, right = found.evidence["branch_1"][..., :16], found.evidence["branch_1"][..., 16:]
    assert found.evidence["branch_1"].shape == (2, 32, 32)
    assert left[0].sum() > right[0].sum() and right[1].sum() > left[1].sum()


def test_the_convolution_returns_half_of_the_fit(monkeypatch, images):
    """So the squares of the unit vectors after the softmax are the shares by the whole fit."""

    def ones(patches, num_words):
        return np.ones((patches.shape[1], num_words)), np.ones(num_words)

    monkeypatch.setattr("deep_ranking.model.branches.patch_words", ones)
    model = build_network(COLOUR, seed=0)
    start_branches(model, [images])
    for weight in model.get_layer("branch_1_conv").get_weights():
        assert (weight == 0.5).all()
