"""The shallow branches: parts of the network that see the whole image at a coarse scale.

`blog` and `paper` are those of the article and of Wang et al. 2014 (fig. 3). `colour` and `texture`
count words: pixels and small patches of the coarse image that were learned from training images
(`branch_words`). Of each place they take the roots of the shares of the words, and pool them by the
root of the mean square. So a branch returns exactly the root of each word's share of the image: in
the distance between such vectors (Hellinger's), rare words count more than in the distance between
the shares.
"""

from deep_ranking.model.keras_settings import default_settings

# isort: split

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import layers

from deep_ranking.files.array_types import Float32Array
from deep_ranking.model.branch_words import SEED, patch_words, random_patches
from deep_ranking.model.pooling import generalised_mean

BRANCH_FILTERS = 96
NUM_WORDS = 128
ROOTS = "roots"  # end of the name of the layer with the roots of the words' shares of each place
# The colour branches see at most so many pixels along a side.
COARSE_SIDE = 32
PATCHES_PER_IMAGE = 100
# Sides in pixels of the patches that are words, of each branch.
PATCH_SIZES = {"colour": (1,), "texture": (1, 5)}


def branch_vectors(unit: Any, multiscale: str) -> list[Any]:
    """Add the branches to a network.

    Args:
        unit: images with values in [0, 1], a Keras tensor (batch, size, size, 3).
        multiscale: the kind of branches, as in `NetworkConfig`.

    Returns:
        Vectors of length 1, Keras tensors (batch, features): one for each branch, or one for all
        that are normalised together; none for "none".
    """
    if multiscale == "none":
        return []
    if multiscale in PATCH_SIZES:
        sizes = PATCH_SIZES[multiscale]
        return [_word_branch(unit, number, size) for number, size in enumerate(sizes, start=1)]
    if multiscale == "blog":  # skips pixels by the stride of the convolution
        vectors = [
            _branch(unit, 1, stride=16, pool_size=3, pool_stride=4),
            _branch(unit, 2, stride=32, pool_size=7, pool_stride=2),
        ]
        return [
            layers.UnitNormalization(name=f"unit_branch_{number}")(vector)
            for number, vector in enumerate(vectors, start=1)
        ]
    # The paper shrinks the image first, here to the mean of each square of pixels.
    quarter, eighth = (
        layers.AveragePooling2D(factor, padding="same", name=f"shrunk_{factor}")(unit)
        for factor in (4, 8)
    )
    vectors = [
        _branch(quarter, 1, stride=4, pool_size=3, pool_stride=4),
        _branch(eighth, 2, stride=4, pool_size=7, pool_stride=2),
    ]
    shallow = layers.Concatenate(name="shallow")(vectors)
    return [layers.UnitNormalization(name="unit_shallow")(shallow)]


def _branch(image: Any, number: int, *, stride: int, pool_size: int, pool_stride: int) -> Any:
    x = layers.Conv2D(
        BRANCH_FILTERS, 8, strides=stride, padding="same", name=f"branch_{number}_conv"
    )(image)
    x = layers.MaxPooling2D(
        pool_size, strides=pool_stride, padding="same", name=f"branch_{number}_pool"
    )(x)
    return layers.Flatten(name=f"branch_{number}_flat")(x)


def _word_branch(image: Any, number: int, patch_size: int) -> Any:
    """Return the root of each word's share of an image, of length 1: (batch, words)."""
    name = f"branch_{number}"
    factor = -(-image.shape[1] // COARSE_SIDE)
    coarse = layers.AveragePooling2D(factor, padding="same", name=f"{name}_shrunk")(image)
    fit = layers.Conv2D(NUM_WORDS, patch_size, padding="same", name=f"{name}_conv")(coarse)
    shares = layers.Softmax(name=f"{name}_shares")(fit)
    # The convolution returns half of the fit, so these are the roots of the shares by the whole.
    roots = layers.UnitNormalization(name=f"{name}_{ROOTS}")(shares)
    pooled = generalised_mean(roots, prefix=f"{name}_")
    return layers.UnitNormalization(name=f"unit_{name}")(pooled)


def branch_convolutions(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the branches' layers with weights, in order."""
    return [
        layer
        for layer in model.layers
        if layer.name.startswith("branch_") and layer.name.endswith("_conv")
    ]


@default_settings()
def start_branches(model: keras.Model, batches: Iterable[Float32Array]) -> None:
    """Set the branches' weights to words of training images.

    Args:
        model: a network of `build_network` with branches.
        batches: images, float32 (rows, size, size, 3) each, RGB in [0, 255]; they are read once.
    """
    convolutions = branch_convolutions(model)
    before = keras.Model(model.input, [layer.input for layer in convolutions])
    rng = np.random.default_rng(SEED)
    patches: list[list[Float32Array]] = [[] for _ in convolutions]
    for images in batches:
        seen = keras.tree.flatten(before.predict_on_batch(images))
        for layer, coarse, found in zip(convolutions, seen, patches, strict=True):
            size = layer.kernel_size[0]
            found.append(random_patches(coarse, size, PATCHES_PER_IMAGE, rng=rng))
    for layer, found in zip(convolutions, patches, strict=True):
        kernel, bias = patch_words(np.concatenate(found), layer.filters)
        layer.set_weights([kernel.reshape(layer.kernel.shape) / 2, bias / 2])
