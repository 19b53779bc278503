"""What a model file says of itself, read in milliseconds and without TensorFlow."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deep_ranking.config import NetworkConfig
from deep_ranking.files.hdf5 import arrays_in, open_hdf5, read_text, weights_of
from deep_ranking.model.calibration import Calibration

CONFIG_ATTRIBUTE = "deep_ranking_network"
CALIBRATION_ATTRIBUTE = "deep_ranking_calibration"


@dataclass(frozen=True)
class ModelHeader:
    """A model file without its arrays.

    Attributes:
        network: the settings that the network is built by.
        calibration: what its distances mean; None if nobody calibrated it.
        fingerprint: 32 hexadecimal digits that follow from the network and its weights: models of
            one fingerprint give the same embeddings.
    """

    network: NetworkConfig
    calibration: Calibration | None
    fingerprint: str


def read_header(path: str | os.PathLike[str]) -> ModelHeader:
    """Read what a model file says of itself.

    Args:
        path: an .h5 file, as for `load_model`.

    Returns:
        Its `ModelHeader`.

    Raises:
        InputError: it is no such file, or is damaged.
    """
    with open_hdf5(Path(path)) as file:
        config = read_text(file, CONFIG_ATTRIBUTE)
        calibration = read_text(file, CALIBRATION_ATTRIBUTE)
        network = NetworkConfig(weights=None) if config is None else NetworkConfig.from_json(config)
        digest = hashlib.sha256(network.to_json().encode())
        for name, array in arrays_in(weights_of(file)):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array[()]).data)
        return ModelHeader(
            network,
            None if calibration is None else Calibration.from_json(calibration),
            digest.hexdigest()[:32],
        )


def read_calibration(path: str | os.PathLike[str]) -> Calibration | None:
    """Read what the distances of a model mean, if it says so; its arrays are not read.

    Args:
        path: an .h5 file, as for `load_model`.

    Raises:
        InputError: it is no such file, or is damaged.
    """
    with open_hdf5(Path(path)) as file:
        text = read_text(file, CALIBRATION_ATTRIBUTE)
        return None if text is None else Calibration.from_json(text)
