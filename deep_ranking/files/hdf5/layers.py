"""Read the layers of a Keras weight file, of any Keras version."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from deep_ranking.files.errors import InputError
from deep_ranking.files.hdf5.arrays import check_array
from deep_ranking.files.hdf5.opening import child
from deep_ranking.files.hdf5.texts import read_names


def weights_of(file: Any) -> Any:
    """Return the group that holds the layers of a model file; a weight file is that group itself.

    Raises:
        InputError: `model_weights` is not a group.
    """
    weights = child(file, "model_weights")
    if weights is None:
        return file
    if not isinstance(weights, h5py.Group):
        raise InputError("model_weights is not a group of arrays; expected an .h5 file of a model")
    return weights


def read_layers(
    file: Any, shapes: Mapping[str, Sequence[tuple[int, ...]]]
) -> list[list[npt.NDArray[np.float32]]]:
    """Return the arrays of each layer of a Keras weight file, matched by order, as Keras does.

    Keras has renamed layers over the years but not reordered them. The statistics of a layer
    `normalization`, which normalises pixels, are left out.

    Args:
        file: an open file of weights, or of a whole model.
        shapes: for each layer of the network, the shape of each of its weights, in order.

    Raises:
        InputError: the file holds other layers.
    """
    groups = weights_of(file)
    named = [(name, child(groups, name)) for name in read_names(groups, "layer_names")]
    found = [
        group
        for name, group in named
        if isinstance(group, h5py.Group)
        and read_names(group, "weight_names")
        and not re.fullmatch(r"normalization(_\d+)?", name)
    ]
    if len(found) != len(shapes):
        raise InputError(
            f"it has {len(found)} layers with weights, expected {len(shapes)}; the first expected "
            f"is {next(iter(shapes))}"
        )
    return [read_layer(group, each) for group, each in zip(found, shapes.values(), strict=True)]


def read_layer(group: Any, shapes: Sequence[tuple[int, ...]]) -> list[npt.NDArray[np.float32]]:
    """Return the arrays of one layer of a Keras weight file, in the order of `shapes`.

    Keras 3 names them LAYER/kernel, Keras 2 LAYER/kernel:0. Each file lists its names, in the order
    of the layer's weights.

    Args:
        group: h5py group of the layer.
        shapes: shape of each weight.

    Raises:
        InputError: an array is missing, has another shape or type, or holds NaN or infinity.
    """
    arrays = []
    for data in check_layer(group, shapes):
        array = np.asarray(data[()], np.float32)
        if not np.isfinite(array).all():
            raise InputError(f"array {data.name} holds NaN or infinity; refused")
        arrays.append(array)
    return arrays


def check_layer(group: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Check that `read_layer` would read a layer, and return its h5py data sets.

    Raises:
        InputError: as `read_layer`, except for the values.
    """
    names = read_names(group, "weight_names")
    if len(names) != len(shapes):
        raise InputError(f"{group.name} lists {len(names)} arrays, expected {len(shapes)}")
    return [check_array(group, name, shape) for name, shape in zip(names, shapes, strict=True)]
