"""Words of small image patches: the first weights of a shallow branch, from training images.

A word is the centre of a cluster of patches (k-means). How well patch x fits word c is
s(x, c) = -|A (x - c)|^2 / 2, where A whitens the colours of each pixel. Its part -|A x|^2 / 2 is
the same for all words, so a convolution with kernel A^T A c and bias -|A c|^2 / 2 returns s but for
this part: all that a softmax over the words, or a comparison of the words, needs.
"""

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from deep_ranking.files.array_types import Float32Array

# Share of the mean variance that is added to every axis before colours are whitened.
WHITENING_OFFSET = 0.01
# A patch counts for several words; with 1, exp(-1) as much at the mean squared distance to its own.
SOFTNESS = 2.0
# Patches that equal their words would have an infinite fit: the least mean squared distance of a
# patch to its word, as a share of the patches' variance.
MIN_DISTANCE = 1e-3
BATCH_SIZE = 4096
# The words follow from the images alone, so that runs with different seeds share cached features.
SEED = 0


def random_patches(
    images: Float32Array, size: int, count: int, *, rng: np.random.Generator
) -> Float32Array:
    """Return square patches around random pixels; what lies outside of the image is 0.

    Args:
        images: float (images, rows, columns, 3).
        size: side of a patch in pixels.
        count: patches of each image.
        rng: decides the places.

    Returns:
        float32 (images * count, size * size * 3), each flattened.
    """
    border = ((size - 1) // 2, size // 2)  # as of a "same" convolution
    images = np.pad(images, ((0, 0), border, border, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    shape = (len(images), count)
    rows, columns = (rng.integers(windows.shape[axis], size=shape) for axis in (1, 2))
    chosen = windows[np.arange(len(images))[:, None], rows, columns]  # (..., 3, size, size)
    flat: Float32Array = np.moveaxis(chosen, 2, -1).reshape(len(images) * count, -1)
    return flat


def patch_words(patches: Float32Array, num_words: int) -> tuple[Float32Array, Float32Array]:
    """Return the kernel and bias that tell how well a patch fits each of its words.

    Args:
        patches: float (patches, dim), the colours of one pixel after the other.
        num_words: number of words.

    Returns:
        Float32 kernel (dim, num_words) and bias (num_words,). Softmax of `patches @ kernel + bias`
        is the share of each word, which a patch at the usual distance from its word divides among
        the words near it.
        Where there are fewer different patches than words, several words are alike.
    """
    # Along the axes of whole patches, fine textures, mostly noise, would count like coarse ones.
    pixels = patches.reshape(-1, 3)
    whitening = np.kron(np.eye(patches.shape[1] // 3), _whitening(pixels))
    whitened = patches @ whitening
    different = np.unique(whitened, axis=0)
    words = different
    if len(different) > num_words:
        clusters = MiniBatchKMeans(
            num_words, batch_size=BATCH_SIZE, n_init=3, random_state=SEED, reassignment_ratio=0
        ).fit(whitened)
        words = clusters.cluster_centers_
    distances = np.min(_squared_distances(whitened, words), axis=1)
    scale = 2 / (SOFTNESS * max(distances.mean(), MIN_DISTANCE * whitened.shape[1]))
    words = words[np.arange(num_words) % len(words)]
    kernel = scale * whitening @ words.T
    bias = -scale / 2 * np.sum(words**2, axis=1)
    return kernel.astype(np.float32), bias.astype(np.float32)


def _squared_distances(rows: Float32Array, words: Float32Array) -> Float32Array:
    squared: Float32Array = (
        np.sum(rows**2, axis=1)[:, None] - 2 * rows @ words.T + np.sum(words**2, axis=1)
    )
    return np.maximum(squared, 0)


def _whitening(pixels: Float32Array) -> Float32Array:
    """Return the symmetric matrix (3, 3) after which colours vary alike along all axes."""
    variances, axes = np.linalg.eigh(np.cov(pixels.T))
    offset = WHITENING_OFFSET * max(variances.mean(), 1e-12)
    whitening: Float32Array = (axes / np.sqrt(np.maximum(variances, 0) + offset)) @ axes.T
    return whitening
