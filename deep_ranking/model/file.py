"""The model file: a Keras .h5 that describes itself and opens without running code from it.

`save_model` writes a file that plain `keras.models.load_model(path)` opens, with two JSON
attributes: `deep_ranking_network`, the network's config, and `deep_ranking_calibration` if there is
one. `load_model` checks them against their ranges, builds the network, and copies arrays into it.
It also reads the weights-only files that the blog's own repository writes. `header` reads the
attributes without TensorFlow.
"""

from deep_ranking.model.keras_settings import default_settings

# isort: split

import os
from pathlib import Path

import h5py
import keras

from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.hdf5 import (
    check_layer,
    child,
    names_in,
    open_hdf5,
    read_layer,
    read_text,
    weights_of,
)
from deep_ranking.model.header import (
    CALIBRATION_ATTRIBUTE,
    CONFIG_ATTRIBUTE,
    calibration_in,
    names_of_blog,
)
from deep_ranking.model.mixed_precision import FULL, temporary_policies
from deep_ranking.model.network import build_network


@default_settings()
def save_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write a network of `build_network` atomically, without its optimizer, in float32.

    Args:
        model: the network; its attribute `calibration` is written as well, if it has one.
        path: file to write; its name ends in .h5.

    Example:
        >>> save_model(model, "copy.h5")
        >>> load_model("copy.h5").output_shape
        (None, 8)

    Raises:
        InputError: the file cannot be written, or the model is not one of `build_network`.
    """
    path = Path(path)
    config = getattr(model, "network_config", None)
    if not isinstance(config, NetworkConfig):
        raise InputError(f"{path}: only networks of build_network can be saved by save_model")
    if path.suffix != ".h5":
        raise InputError(f"{path}: expected a file name that ends in .h5")
    with atomic_path(path) as temporary:
        with temporary_policies(FULL, model):
            model.save(temporary, include_optimizer=False, overwrite=True)
        with h5py.File(temporary, "r+") as file:
            file.attrs[CONFIG_ATTRIBUTE] = config.to_json()
            calibration = getattr(model, "calibration", None)
            if calibration is not None:
                file.attrs[CALIBRATION_ATTRIBUTE] = calibration.to_json()


@default_settings()
def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Load a model file of `save_model`, or a weights file of the blog's repository.

    Args:
        path: an .h5 file, trusted or not: no code in it is run, and nothing outside of it is read.

    Returns:
        Model from images, float32 (batch, size, size, 3), RGB in [0, 255], to unit rows. Its
        attribute `calibration` is the file's, or None.

    Example:
        >>> load_model("model.h5").network_config.image_size
        32

    Raises:
        InputError: the file is missing, damaged, or not one of these.
    """
    with open_hdf5(Path(path)) as file:
        text = read_text(file, CONFIG_ATTRIBUTE)
        calibration = calibration_in(file)
        groups = weights_of(file)
        blog_names = names_of_blog(names_in(groups)) if text is None else {}
        config = NetworkConfig(weights=None) if text is None else NetworkConfig.from_json(text)
        # A short description can ask for gigabytes. Check that the arrays exist before building.
        with keras.StatelessScope(initialize_variables=False):
            sketch = build_network(config)
        groups_of_layers = {}
        for layer in sketch.layers:
            if layer.weights:
                name = blog_names.get(layer.name, layer.name)
                group = child(groups, name)
                if not isinstance(group, h5py.Group):
                    raise InputError(f"it has no layer {name}; the file is incomplete")
                check_layer(group, [weight.shape for weight in layer.weights])
                groups_of_layers[layer.name] = group
        model = build_network(config)
        for name, group in groups_of_layers.items():
            layer = model.get_layer(name)
            layer.set_weights(read_layer(group, [weight.shape for weight in layer.weights]))
        model.calibration = calibration
    return model


def opened_model(model: keras.Model | str | os.PathLike[str]) -> keras.Model:
    """Return a model as it is, or load that of a file by `load_model`."""
    return load_model(model) if isinstance(model, str | os.PathLike) else model
