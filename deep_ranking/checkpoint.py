"""The checkpoint of a training run: one file, replaced as a whole at the end of each epoch.

HDF5 with the arrays `weights/0 ...` and `optimizer/0 ...`, in the order in which Keras lists the
variables, and `state`, the rest as JSON. It lies in the run's folder and is read with the same
caution as a model file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from deep_ranking.errors import InputError
from deep_ranking.files import atomic_path
from deep_ranking.hdf5 import child, open_hdf5, read_array


def save_checkpoint(
    path: Path,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write weights, optimizer and state, atomically.

    Args:
        path: file to write.
        model: the model.
        optimizer: built for the weights that it trains.
        state: what else the run needs to go on, as JSON values.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name, variables in _variables(model, optimizer).items():
            group = file.create_group(name)
            for number, variable in enumerate(variables):
                group[str(number)] = keras.ops.convert_to_numpy(variable)
        file["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)


def read_state(path: Path) -> dict[str, Any]:
    """Read the state of a checkpoint, without its arrays.

    Args:
        path: file of `save_checkpoint`.

    Raises:
        InputError: the file is damaged.
    """
    with open_hdf5(path) as file:
        data = child(file, "state")
        if not isinstance(data, h5py.Dataset) or data.ndim != 1:
            raise InputError("the checkpoint is not whole; start anew with --overwrite")
        text = read_array(file, "state", data.shape, np.uint8).tobytes()
        try:
            state = json.loads(text)
        except (ValueError, RecursionError):
            state = None
        if not isinstance(state, dict):
            raise InputError("the checkpoint is not whole; start anew with --overwrite")
    return state


def restore_variables(
    path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> None:
    """Put weights and optimizer back as they were.

    Args:
        path: file of `save_checkpoint`.
        model: model of the same layers.
        optimizer: optimizer of the same kind, built for the same weights.

    Raises:
        InputError: the file is damaged, or belongs to another network or optimizer; the model is
            unchanged then.
    """
    variables = _variables(model, optimizer)
    with open_hdf5(path) as file:
        arrays = {
            name: [
                read_array(file, f"{name}/{number}", tuple(variable.shape), variable.dtype)
                for number, variable in enumerate(expected)
            ]
            for name, expected in variables.items()
        }
    for name, expected in variables.items():
        for variable, values in zip(expected, arrays[name], strict=True):
            variable.assign(values)


def _variables(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> dict[str, Sequence[Any]]:
    return {"weights": model.weights, "optimizer": optimizer.variables}
