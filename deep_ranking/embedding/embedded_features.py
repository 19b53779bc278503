"""Cached features -> embeddings, by the layers that follow the frozen ones."""

from deep_ranking.model.keras_settings import default_settings

# isort: split

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

from deep_ranking.embedding.batches import padded
from deep_ranking.embedding.cached_features import Features
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.row_store import temporary_rows

FEATURES_AT_ONCE = 256


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
