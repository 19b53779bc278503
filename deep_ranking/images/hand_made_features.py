"""Hand-made image features, the baselines that a trained model must beat.

Each turns an image, uint8 (height, width, 3), RGB, into a row; the Euclidean distances of rows rank
images.
"""

import os
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image

from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images.reading import read_image

HASH_IMAGE_SIZE = 64


def _lab_histogram(image: UInt8Array) -> Float32Array:
    """Return the colour histogram in CIE L*a*b*, 8 bins a channel: (512,), a unit row.

    Its values are the roots of the shares, so that the Euclidean distance is Hellinger's.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    counts = cv2.calcHist([lab], [0, 1, 2], None, [8, 8, 8], [0.0, 256.0] * 3).ravel()
    return np.asarray(np.sqrt(counts / counts.sum()), np.float32)


def perceptual_hash(image: UInt8Array) -> Float32Array:
    """Return the 64 bits of the perceptual hash (DCT), as 0 and 1: (64,).

    Euclidean distance is the root of the Hamming distance. The bits are those of `imagehash.phash`,
    whose package needs SciPy.
    """
    small = Image.fromarray(image).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    lowest = cv2.dct(np.asarray(small, np.float64))[:8, :8]
    lowest[0] *= np.sqrt(2)  # imagehash's transform is not orthonormal
    lowest[:, 0] *= np.sqrt(2)
    return np.asarray(lowest > np.median(lowest), np.float32).ravel()


def _oriented_gradients(image: UInt8Array) -> Float32Array:
    """Return a histogram of oriented gradients (Dalal and Triggs 2005): 8 x 8 cells, 9 angles."""
    from skimage.feature import hog

    features = hog(image, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=2)
    return np.asarray(features, np.float32)


BASELINES: dict[str, tuple[Callable[[UInt8Array], Float32Array], int]] = {
    "LAB histogram": (_lab_histogram, 128),
    "perceptual hash": (perceptual_hash, HASH_IMAGE_SIZE),
    "HOG": (_oriented_gradients, 64),
}


def baseline_features(
    name: str, paths: Sequence[str | os.PathLike[str]], *, progress: bool = False
) -> Float32Array:
    """Return the features of image files.

    Args:
        name: one of `BASELINES`.
        paths: image files.
        progress: whether to show a progress bar on standard error, if that is a terminal.

    Returns:
        float32 (images, dim).

    Raises:
        InputError: an image is missing or broken.
    """
    feature, size = BASELINES[name]
    bar = progress_bar(paths, title=name, unit="images", shown=progress)
    return np.stack([feature(read_image(path, size)) for path in bar])
