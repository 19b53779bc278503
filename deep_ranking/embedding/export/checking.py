"""The check that an export returns the same embeddings as its model."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from deep_ranking.embedding.export.formats import Runtime
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array
from deep_ranking.images import read_image

if TYPE_CHECKING:
    import keras

DEFAULT_TOLERANCE = 1e-4
SEED = 0
RANDOM_BATCHES = (1, 2, 4, 1)
IMAGES_AT_ONCE = 4  # fits into memory even at 1024 pixels
LONGEST_REASON = 300


def random_batches(size: int) -> Iterator[Float32Array]:
    """Draw images of coarse to fine patches, in batches of several sizes, with a fixed seed.

    Noise of single pixels is no test: all of it looks grey to a network. The first image is black,
    where an embedding may be 0 before it is scaled to unit length.

    Args:
        size: side of the images in pixels.

    Yields:
        float32 (batch, size, size, 3), [0, 255].
    """
    rng = np.random.default_rng(SEED)
    number = 0
    for count in RANDOM_BATCHES:
        images = np.zeros((count, size, size, 3), np.float32)
        for image in images:
            if number > 0:
                cells = min(2**number, size)  # along a side: 2, 4, 8 ...
                places = np.arange(size) * cells // size
                image[:] = rng.uniform(0, 255, (cells, cells, 3))[places][:, places]
            number += 1
        yield images


def image_batches(paths: Sequence[str | os.PathLike[str]], size: int) -> Iterator[Float32Array]:
    """Read images, a few at a time.

    Args:
        paths: image files.
        size: side of the images in pixels.

    Yields:
        float32 (batch, size, size, 3), RGB in [0, 255].

    Raises:
        InputError: an image is missing or broken.
    """
    for begin in range(0, len(paths), IMAGES_AT_ONCE):
        part = paths[begin : begin + IMAGES_AT_ONCE]
        yield np.stack([read_image(path, size) for path in part]).astype(np.float32)


def largest_difference(
    model: "keras.Model", runtime: Runtime, batches: Iterator[Float32Array]
) -> float:
    """Compare the embeddings of a model and its export.

    Args:
        model: from images to embeddings, float32 (batch, dim).
        runtime: the opened export.
        batches: batches of images.

    Returns:
        The largest difference between two numbers of the embeddings; NaN if one of them is NaN.

    Raises:
        InputError: the model's embeddings are not finite, or those of the export have another
            shape.
    """
    differences = [0.0]
    with _full_precision():
        for images in batches:
            expected = np.asarray(model.predict_on_batch(images))
            if not np.isfinite(expected).all():
                raise InputError(
                    "the model's own embeddings are not finite, so nothing can be compared with "
                    "them; train it again, or export the best model of its run"
                )
            found = _run(runtime, images)
            if found.shape != expected.shape:  # NumPy would compare one row with all
                raise InputError(
                    f"the export returns embeddings of shape {found.shape} for "
                    f"{len(images)} images; expected {expected.shape}"
                )
            differences.append(np.abs(found - expected).max())
    return float(np.max(differences))


def one_line(error: Exception) -> str:
    """Return the type and the beginning of the text of another library's error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST_REASON]}"


def _run(runtime: Runtime, images: Float32Array) -> Float32Array:
    try:
        return runtime(images)
    except Exception as error:  # runtimes raise errors of any type
        raise InputError(
            f"the export cannot embed a batch of {len(images)} ({one_line(error)})"
        ) from error


@contextmanager
def _full_precision() -> Iterator[None]:
    """Make TensorFlow multiply in float32; recent GPUs round it to ten bits by default."""
    import tensorflow as tf

    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
