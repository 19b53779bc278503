"""The file format of a checkpoint: one file, replaced as a whole at the end of each epoch.

HDF5 with the arrays `weights/0 ...` and `optimizer/0 ...`, in the order in which Keras lists the
variables, and `state`, the rest as JSON. Each of the three carries the SHA-256 of its data:
otherwise training could go on with a damaged number, and nobody would notice. The file is read with
the same caution as a model file. `resuming` says what the state holds.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.hdf5 import child, open_hdf5, read_array, read_text

if TYPE_CHECKING:
    import keras

DIGEST = "sha256"


def save_checkpoint(
    path: Path,
    model: "keras.Model",
    optimizer: "keras.optimizers.Optimizer",
    state: dict[str, Any],
) -> None:
    """Write weights, optimizer and state (JSON values), atomically.

    Raises:
        InputError: the file cannot be written.
    """
    from keras import ops

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name, variables in _variables(model, optimizer).items():
            group = file.create_group(name)
            digest = hashlib.sha256()
            for number, variable in enumerate(variables):
                array = np.ascontiguousarray(ops.convert_to_numpy(variable))
                group[str(number)] = array.reshape(variable.shape)
                digest.update(array.data)
            group.attrs[DIGEST] = digest.hexdigest()
        text = json.dumps(state).encode()
        file["state"] = np.frombuffer(text, np.uint8)
        file["state"].attrs[DIGEST] = hashlib.sha256(text).hexdigest()


def read_state(path: Path) -> dict[str, Any]:
    """Read the state of a checkpoint, without its arrays.

    Raises:
        InputError: the file is damaged.
    """
    with _opened(path) as file:
        data = child(file, "state")
        if not isinstance(data, h5py.Dataset) or data.ndim != 1:
            raise InputError("incomplete")
        text = read_array(file, "state", data.shape, np.uint8)
        _check(data, hashlib.sha256(text.data))
        try:
            state = json.loads(text.tobytes())
        except (ValueError, RecursionError):
            state = None
        if not isinstance(state, dict):
            raise InputError("incomplete")
    return state


def restore_variables(
    path: Path, model: "keras.Model", optimizer: "keras.optimizers.Optimizer"
) -> None:
    """Restore a model of the same layers, and an optimizer that was built for its weights.

    Raises:
        InputError: the file is damaged, or belongs to another network or optimizer. The model is
            then unchanged.
    """
    variables = _variables(model, optimizer)
    arrays = {}
    with _opened(path) as file:
        for name, expected in variables.items():
            arrays[name] = [
                read_array(file, f"{name}/{number}", tuple(variable.shape), variable.dtype)
                for number, variable in enumerate(expected)
            ]
            digest = hashlib.sha256()
            for array in arrays[name]:
                digest.update(np.ascontiguousarray(array).data)
            _check(child(file, name), digest)
    for name, expected in variables.items():
        for variable, values in zip(expected, arrays[name], strict=True):
            variable.assign(values)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a checkpoint; end the message of an error with what to do."""
    try:
        with open_hdf5(path) as file:
            yield file
    except InputError as error:
        raise InputError(f"{error}; start anew by --overwrite") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: damaged; start anew by --overwrite") from None


def _check(item: Any, digest: "hashlib._Hash") -> None:
    """Compare data with its digest, which checkpoints of earlier versions do not have."""
    written = read_text(item, DIGEST)
    if written is not None and written != digest.hexdigest():
        raise InputError(f"damaged: its {item.name.strip('/')} differs from what was written")


def _variables(
    model: "keras.Model", optimizer: "keras.optimizers.Optimizer"
) -> dict[str, Sequence[Any]]:
    return {"weights": model.weights, "optimizer": optimizer.variables}
