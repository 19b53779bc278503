"""The header of a model file: config, calibration and fingerprint, read without TensorFlow."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.config import NetworkConfig
from deep_ranking.files.hdf5 import arrays_in, open_hdf5, read_text, weights_of
from deep_ranking.model.calibration import Calibration

CONFIG_ATTRIBUTE = "deep_ranking_network"
CALIBRATION_ATTRIBUTE = "deep_ranking_calibration"


@dataclass(frozen=True)
class ModelHeader:
    """What a model file says about its model.

    Attributes:
        network: the settings that the network is built from.
        calibration: the model's calibration; None if it was never calibrated.
        fingerprint: 32 hexadecimal digits, a digest of the network and its weights: models with the
            same fingerprint return the same embeddings.
    """

    network: NetworkConfig
    calibration: Calibration | None
    fingerprint: str


def read_header(path: str | os.PathLike[str]) -> ModelHeader:
    """Read the header of a model file; it reads all arrays for the fingerprint.

    Args:
        path: an .h5 file, as for `load_model`.

    Raises:
        InputError: the file is missing, damaged, or not a model file.
    """
    with open_hdf5(Path(path)) as file:
        config = read_text(file, CONFIG_ATTRIBUTE)
        network = NetworkConfig(weights=None) if config is None else NetworkConfig.from_json(config)
        digest = hashlib.sha256(network.to_json().encode())
        for name, array in arrays_in(weights_of(file)):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array[()]).data)
        return ModelHeader(network, calibration_in(file), digest.hexdigest()[:32])


def read_calibration(path: str | os.PathLike[str]) -> Calibration | None:
    """Read the calibration of a model file, None if it has none, without reading its arrays.

    Args:
        path: an .h5 file, as for `load_model`.

    Raises:
        InputError: the file is missing, damaged, or not a model file.
    """
    with open_hdf5(Path(path)) as file:
        return calibration_in(file)


def calibration_in(file: Any) -> Calibration | None:
    """Return the calibration in an open model file, None if it has none."""
    text = read_text(file, CALIBRATION_ATTRIBUTE)
    return None if text is None else Calibration.from_json(text)
