"""Model + image paths -> embeddings."""

import os
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from deep_ranking.pipeline import ImageSource


def embed_images(
    model: keras.Model,
    paths: Sequence[str | os.PathLike[str]],
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> npt.NDArray[np.float32]:
    """Embed image files.

    Args:
        model: a network of `build_network` or `load_model`.
        paths: image files.
        batch_size: images a batch.
        progress: whether to show a progress bar on standard error.

    Returns:
        float32 (images, dim), rows of unit length, in the order of the paths.

    Raises:
        InputError: an image is missing or broken.
    """
    source = ImageSource(paths, image_size=model.input_shape[1], batch_size=batch_size)
    embeddings = np.empty((len(paths), model.output_shape[-1]), np.float32)
    filled = 0
    with (
        source.explained(),
        tqdm(total=len(paths), desc="embedding", unit=" images", disable=not progress) as bar,
    ):
        for images in source.dataset():
            rows = model.predict_on_batch(images)
            embeddings[filled : filled + len(rows)] = rows
            filled += len(rows)
            bar.update(len(rows))
    return embeddings
