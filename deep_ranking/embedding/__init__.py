"""Image files -> embeddings, rows of floats."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)
