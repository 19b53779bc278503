"""What a model file says of itself, read in milliseconds and without TensorFlow."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deep_ranking.calibration import Calibration
from deep_ranking.config import NetworkConfig
from deep_ranking.errors import InputError
from deep_ranking.hdf5 import child, open_hdf5, read_text

CONFIG_ATTRIBUTE = "deep_ranking_network"
CALIBRATION_ATTRIBUTE = "deep_ranking_calibration"
MAX_DEPTH = 8
NUMBERS = "biuf"  # kinds of NumPy types whose bytes are the values


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
        size = Path(path).stat().st_size
        weights = child(file, "model_weights") or file
        if not isinstance(weights, h5py.Group):
            raise InputError("model_weights is no group of arrays; expected an .h5 file of a model")
        for name, array in _arrays(weights, set()):
            if array.nbytes > size:  # our files are not compressed
                raise InputError(f"array {name} claims more bytes than the file has; refused")
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


def _arrays(group: Any, seen: set[int], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """All arrays below a group, by their full names, in sorted order; each is reached once."""
    if depth > MAX_DEPTH:
        raise InputError(f"{group.name}: groups within groups without end; refused")
    for name in sorted(group):
        found: Any = child(group, name)
        address = h5py.h5o.get_info(found.id).addr
        if address in seen:  # hard links may form a circle, or more ways than anybody waits for
            raise InputError(f"{found.name} is linked to twice; refused")
        seen.add(address)
        if isinstance(found, h5py.Group):
            yield from _arrays(found, seen, depth + 1)
        elif isinstance(found, h5py.Dataset):
            if found.external or found.is_virtual:
                raise InputError(f"array {found.name} keeps its data in another file; refused")
            if found.shape is None or found.dtype.kind not in NUMBERS:
                raise InputError(f"array {found.name} holds no numbers; refused")
            yield found.name, found
        else:
            raise InputError(f"{found.name} is neither a group nor an array; refused")
