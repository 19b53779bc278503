"""The functions that learn on a server: TensorFlow starts when this module is imported."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

from functools import partial
from pathlib import Path
from typing import Any

import keras

from deep_ranking.embedding.compiled.compiling import compile_model
from deep_ranking.embedding.compiled.exchanging import ExchangedLayer
from deep_ranking.files import InputError
from deep_ranking.model.file import load_model
from deep_ranking.model.header import read_header
from deep_ranking.serving.learn.learning_process import TeachingReport, Tools
from deep_ranking.training.taught.features import (
    HEAD_LAYER,
    embed_from_features,
    network_with_layout,
    taught_features,
)
from deep_ranking.training.taught.storing_space import write_space
from deep_ranking.training.taught.teaching import TaughtConfig, teach


def make_tools(model: Path) -> Tools:
    """Return the functions that learn, once the network is ready and converted.

    Args:
        model: the model file to go on from.

    Raises:
        InputError: it cannot be used.
    """
    network, fingerprint = network_with_layout(load_model(model)), read_header(model).fingerprint
    return Tools(
        partial(_teach, network, fingerprint),
        partial(_features, network, fingerprint),
        embed_from_features,
        _compiler(network),
        write_space,
    )


def _teach(network: keras.Model, fingerprint: str, **given: Any) -> TeachingReport:
    config = TaughtConfig(**given)
    known = read_header(config.model).fingerprint == fingerprint  # else the index was made anew
    return teach(config, network=network if known else None)


def _features(
    network: keras.Model, fingerprint: str, model: Path, files: list[Path], cache_dir: Path
) -> Any:
    known = read_header(model).fingerprint == fingerprint
    return taught_features(network if known else model, files, cache_dir, skip_broken=True)


def _compiler(network: keras.Model) -> Any:
    """Return what compiles models that were taught from a network."""
    try:
        exchanged = ExchangedLayer(network, HEAD_LAYER)
    except InputError:  # it is converted whole each time, which tells why it cannot be
        return compile_model

    def compile_quickly(model: Path) -> Any:
        try:
            return exchanged.compile(model)
        except InputError:  # such as of another network, since the index was made anew
            return compile_model(model)

    return compile_quickly
