"""Whether an export gives the embeddings of the model it was made of."""

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
IMAGES_AT_ONCE = 4  # what fits into memory also at 1024 pixels
LONGEST_REASON = 300


def random_batches(size: int) -> Iterator[Float32Array]:
    """Draw images of coarse to fine patches, in batches of several sizes; the same each time.

    Noise of single pixels would not do: a network sees one grey in all of it. The first image is
    black, where a vector to be made unit length may be 0.

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


def batches_of(paths: Sequence[str | os.PathLike[str]], size: int) -> Iterator[Float32Array]:
    """Read images, a few at a time.

    Args:
        paths: image files.
        size: side in pixels to bring them to.

    Yields:
        float32 (batch, size, size, 3), RGB in [0, 255].

    Raises:
        InputError: an image is missing or broken.
    """
    for begin in range(0, len(paths), IMAGES_AT_ONCE):
        part = paths[begin : begin + IMAGES_AT_ONCE]
        yield np.stack([read_image(path, size) for path in part]).astype(np.float32)


def greatest_difference(
    model: "keras.Model", runtime: Runtime, batches: Iterator[Float32Array]
) -> float:
    """Compare what a model and its export make of the same images.

    Args:
        model: from images to embeddings, float32 (batch, dim).
        runtime: the export, opened.
        batches: images.

    Returns:
        The greatest difference of two numbers of the embeddings; NaN if one of them is NaN.

    Raises:
        InputError: the model gives no numbers, or the export another number of them.
    """
    differences = [0.0]
    with _full_precision():
        for images in batches:
            expected = np.asarray(model.predict_on_batch(images))
            if not np.isfinite(expected).all():
                raise InputError(
                    "the model's own embeddings are not finite, so that nothing can be compared "
                    "with them; train it anew, or take the best model of its run"
                )
            found = _run(runtime, images)
            if found.shape != expected.shape:  # NumPy would compare one row with all
                raise InputError(
                    f"the export gives embeddings of shape {found.shape} for "
                    f"{len(images)} images; expected {expected.shape}"
                )
            differences.append(np.abs(found - expected).max())
    return float(np.max(differences))


def one_line(error: Exception) -> str:
    """Give the kind and the beginning of the text of another library's error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST_REASON]}"


def _run(runtime: Runtime, images: Float32Array) -> Float32Array:
    try:
        return runtime(images)
    except Exception as error:  # runtimes raise whatever they come upon
        raise InputError(
            f"the export cannot embed a batch of {len(images)} ({one_line(error)})"
        ) from error


@contextmanager
def _full_precision() -> Iterator[None]:
    """Let TensorFlow multiply in float32, which recent GPUs round to ten bits by default."""
    import tensorflow as tf

    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
