"""A training run: from a configuration to a run folder and a model file."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)
