"""Keras as an engine: the reference, and what computes models that are not compiled."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

from functools import cached_property

import keras
import numpy as np

from deep_ranking.embedding.batches import padded
from deep_ranking.embedding.cached_features import network_key
from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.model.folding import inference_model
from deep_ranking.model.keras_settings import default_settings


class KerasEngine:
    """A Keras model as an `Engine`.

    Black images fill up a short batch, and their rows are dropped. So the network is traced once,
    and the same images give the same bytes in any batch.

    Args:
        model: from images, float32 (batch, size, size, 3), to rows, float32 (batch, dim).
        batch_size: images a batch.
    """

    num_threads = 0
    name = "Keras"

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        self.image_size = int(model.input_shape[1])
        self.dimension = int(model.output_shape[-1])
        self.batch_size = batch_size
        self._model = model
        with default_settings():
            self._folded = inference_model(model)

    @cached_property
    def key(self) -> str:
        """A digest of layers and weights."""
        return network_key(self._model, "float32")

    def embed(self, images: UInt8Array) -> Float32Array:
        """Embed images, as `Engine` says."""
        with default_settings():
            filled = padded(images, self.batch_size).astype(np.float32)
            rows = self._folded.predict_on_batch(filled)[: len(images)]
            return np.array(rows, np.float32)
