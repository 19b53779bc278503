"""Model + image paths -> embeddings."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np

from deep_ranking.embedding.batches import ImageSource, padded
from deep_ranking.embedding.cached_features import Features
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.row_store import temporary_rows
from deep_ranking.model.folding import inference_model
from deep_ranking.model.keras_settings import default_settings

FEATURES_AT_ONCE = 256


def embed_images(
    model: keras.Model,
    paths: Sequence[str | os.PathLike[str]],
    *,
    batch_size: int = 64,
    skip_broken: bool = False,
    progress: bool = False,
    out: Float32Array | None = None,
) -> Float32Array:
    """Embed image files.

    Args:
        model: a network of `build_network` or `load_model`.
        paths: image files.
        batch_size: images a batch.
        skip_broken: return a row of NaN for a missing or broken image instead of raising an error.
        progress: whether to show a progress bar on standard error, if that is a terminal.
        out: float32 (images, dim) to write to, such as a memory-mapped file; None for a new array
            in memory.

    Returns:
        float32 (images, dim), rows of unit length, in the order of the paths.

    Example:
        >>> embed_images(model, ["photos/cat/0.png", "photos/dog/0.png"]).shape
        (2, 8)

    Raises:
        InputError: an image is missing or broken.
    """
    source = ImageSource(
        paths,
        image_size=model.input_shape[1],
        batch_size=max(1, min(batch_size, len(paths))),
        skip_broken=skip_broken,
    )
    if out is None:
        out = np.empty((len(paths), model.output_shape[-1]), np.float32)
    filled = 0
    with (
        source.raising_image_errors(),
        progress_bar(total=len(paths), title="embedding", unit="images", shown=progress) as bar,
    ):
        for rows in embed_batches(model, source):
            out[filled : filled + len(rows)] = rows
            filled += len(rows)
            bar.update(len(rows))
    out[sorted(source.broken)] = np.nan
    return out


def embed_batches(model: keras.Model, source: ImageSource) -> Iterator[Float32Array]:
    """Embed batch after batch, all of one shape.

    Black images fill up the last batch, and their rows are dropped. So the network is traced once,
    and the same images give the same bytes in any batch.

    Args:
        model: a network of `build_network` or `load_model`.
        source: the images.

    Yields:
        float32 (batch, dim), unit rows.
    """
    with default_settings():
        model = inference_model(model)
    for images in source.dataset():
        count = len(images)
        with default_settings():
            rows = model.predict_on_batch(padded(images, source.batch_size))[:count]
            rows = np.array(rows, np.float32)
        yield rows


@contextmanager
def embedded_images(
    model: keras.Model, paths: Sequence[str | os.PathLike[str]], *, skip_broken: bool = False
) -> Iterator[Float32Array]:
    """Embed image files into a temporary file, with a progress bar and bounded memory.

    Args:
        model: a network of `build_network` or `load_model`.
        paths: image files.
        skip_broken: as for `embed_images`.

    Yields:
        float32 (images, dim), memory-mapped; deleted when the block ends.

    Raises:
        InputError: an image is missing or broken.
    """
    with temporary_rows(len(paths), model.output_shape[-1]) as rows:
        yield embed_images(model, paths, skip_broken=skip_broken, progress=True, out=rows)


@contextmanager
def embedded_features(model: keras.Model, features: Features) -> Iterator[Float32Array]:
    """Embed cached features into a temporary file, like `embedded_images`.

    Args:
        model: the layers that take the features, the second model of `split_at_frozen`.
        features: cached features, of which the first view of each image is embedded.

    Yields:
        float32 (images, dim), memory-mapped, NaN for a broken image; deleted when the block ends.
    """
    with temporary_rows(len(features.rows), model.output_shape[-1]) as rows:
        rows[:] = np.nan
        whole = np.flatnonzero(features.rows[:, 0] >= 0)
        count = max(1, min(FEATURES_AT_ONCE, len(whole)))
        for begin in range(0, len(whole), count):
            part = whole[begin : begin + count]
            inputs = [padded(each, count) for each in features.read(part, 0 * part)]
            with default_settings():
                rows[part] = model.predict_on_batch(inputs)[: len(part)]
        yield rows
