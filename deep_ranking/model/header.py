"""The header of a model file: config, calibration and fingerprint, read without TensorFlow."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.hdf5 import arrays_in, names_in, open_hdf5, read_text, weights_of
from deep_ranking.model.calibration import Calibration

CONFIG_ATTRIBUTE = "deep_ranking_network"
CALIBRATION_ATTRIBUTE = "deep_ranking_calibration"
COMPILED_ATTRIBUTE = "deep_ranking_compiled"


@dataclass(frozen=True)
class ModelHeader:
    """What a model file says about its model.

    Attributes:
        network: the settings that the network is built from.
        calibration: the model's calibration; None if it was never calibrated.
        fingerprint: 32 hexadecimal digits, a digest of the network and its weights: models with the
            same fingerprint return the same embeddings.
        compiled: precision -> SHA-256 of the model's compiled file, 64 hexadecimal digits.
    """

    network: NetworkConfig
    calibration: Calibration | None
    fingerprint: str
    compiled: dict[str, str] = field(default_factory=dict)


def read_header(path: str | os.PathLike[str]) -> ModelHeader:
    """Read the header of a model file; it reads all arrays for the fingerprint.

    Args:
        path: an .h5 file, as for `load_model`.

    Raises:
        InputError: the file is missing, damaged, or not a model file.
    """
    with open_hdf5(Path(path)) as file:
        config = read_text(file, CONFIG_ATTRIBUTE)
        if config is None:
            names_of_blog(names_in(weights_of(file)))  # raises an error if it is no such file
        network = NetworkConfig(weights=None) if config is None else NetworkConfig.from_json(config)
        digest = hashlib.sha256(network.to_json().encode())
        for name, array in arrays_in(weights_of(file)):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array[()]).data)
        fingerprint = digest.hexdigest()[:32]
        return ModelHeader(network, calibration_in(file), fingerprint, compiled_in(file))


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


def read_digests(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the digests of compiled files that a model file names, by precision.

    Args:
        path: an .h5 file, as for `load_model`.

    Raises:
        InputError: the file is missing, damaged, or not a model file.
    """
    with open_hdf5(Path(path)) as file:
        return compiled_in(file)


def store_calibration(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write a calibration into a model file atomically, replacing an earlier one.

    Args:
        path: file of `save_model`.
        calibration: the model's calibration.

    Raises:
        InputError: there is no such model file, or it cannot be written.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        if read_text(file, CONFIG_ATTRIBUTE) is None:
            raise InputError("not a model that train.py wrote; only those can be calibrated")
    store_attribute(path, CALIBRATION_ATTRIBUTE, calibration.to_json())


def store_attribute(path: Path, name: str, text: str) -> None:
    """Write a text into a model file atomically, replacing an earlier one.

    Args:
        path: the model file; of a link, what it links to is written.
        name: name of the attribute.
        text: its new value.

    Raises:
        InputError: the file cannot be written.
    """
    path = path.resolve() if path.is_symlink() else path
    with atomic_path(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as file:
            file.attrs[name] = text


def compiled_in(file: Any) -> dict[str, str]:
    """Return the digests of compiled files that an open model file names, by precision."""
    text = read_text(file, COMPILED_ATTRIBUTE)
    return {} if text is None else digests_from_json(text)


def digests_from_json(text: str) -> dict[str, str]:
    """Return precision -> SHA-256 of a compiled file, from JSON; nothing else that it holds."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {
        name: digest
        for name, digest in values.items()
        if re.fullmatch("[a-z0-9]{1,16}", name)
        and isinstance(digest, str)
        and re.fullmatch("[0-9a-f]{64}", digest)
    }


def names_of_blog(layers: list[str]) -> dict[str, str]:
    """Return our layer names -> those of a weights-only file of the blog's code.

    Keras 2 numbered layers in the order of creation: the stride-16 convolution before the stride-32
    one, and the two hidden layers before the embedding.

    Raises:
        InputError: these are layers of something else.
    """
    convolutions = _numbered(layers, "conv2d")
    dense = _numbered(layers, "dense")
    if len(convolutions) != 2 or len(dense) != 3:
        raise InputError(
            "not a model of deep ranking: it has no description of its network; expected a file "
            "that train.py wrote"
        )
    ours = ("branch_1_conv", "branch_2_conv", "hidden_1", "hidden_2", "embedding")
    return dict(zip(ours, convolutions + dense, strict=True))


def _numbered(layers: list[str], kind: str) -> list[str]:
    """Return the names KIND, KIND_1, KIND_2 ... among the layers, by number."""
    matches = [each for name in layers if (each := re.fullmatch(rf"{kind}(?:_(\d+))?", name))]
    return [match[0] for match in sorted(matches, key=lambda match: int(match[1] or 0))]
