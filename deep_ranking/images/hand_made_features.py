"""What a trained model must beat: features of an image that nobody had to train.

Each turns an image into a row whose Euclidean distances order images as the baseline does.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images.reading import read_image

if TYPE_CHECKING:
    pass


LAB_BINS = (8, 8, 8)
HASH_IMAGE_SIZE = 64
HOG_IMAGE_SIZE = 64


def lab_histogram(image: UInt8Array) -> Float32Array:
    """Colour histogram in CIE L*a*b*, 8 bins a channel: (512,), a unit row.

    The root of each share is taken, so that Euclidean distance is Hellinger's.

    Args:
        image: uint8 (height, width, 3), RGB.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    bins = [0.0, 256.0] * 3
    counts = cv2.calcHist([lab], [0, 1, 2], None, list(LAB_BINS), bins).ravel()
    return np.asarray(np.sqrt(counts / counts.sum()), np.float32)


def perceptual_hash(image: UInt8Array) -> Float32Array:
    """The 64 bits of the perceptual hash (DCT), as 0 and 1: (64,).

    Euclidean distance is the root of the Hamming distance.

    Args:
        image: uint8 (height, width, 3), RGB.
    """
    import imagehash
    from PIL import Image

    return np.asarray(imagehash.phash(Image.fromarray(image)).hash, np.float32).ravel()


def oriented_gradients(image: UInt8Array) -> Float32Array:
    """Histogram of oriented gradients (Dalal and Triggs 2005): 8 x 8 cells, 9 orientations.

    Args:
        image: uint8 (64, 64, 3), RGB.
    """
    from skimage.feature import hog

    features = hog(image, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=2)
    return np.asarray(features, np.float32)


BASELINES: dict[str, tuple[Callable[[UInt8Array], Float32Array], int]] = {
    "LAB histogram": (lab_histogram, 128),
    "perceptual hash": (perceptual_hash, HASH_IMAGE_SIZE),
    "HOG": (oriented_gradients, HOG_IMAGE_SIZE),
}


def baseline_features(
    name: str, paths: Sequence[str | os.PathLike[str]], *, progress: bool = False
) -> Float32Array:
    """Features of image files.

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

    def rows() -> Iterator[Float32Array]:
        for path in progress_bar(paths, title=name, unit="images", shown=progress):
            yield feature(read_image(path, size))

    return np.stack(list(rows()))
