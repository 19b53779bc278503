"""Layers of a weight file of Keras, of any version."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from deep_ranking.files.errors import InputError
from deep_ranking.files.hdf5.arrays import check_array, read_array
from deep_ranking.files.hdf5.opening import child
from deep_ranking.files.hdf5.texts import read_names


def weights_of(file: Any) -> Any:
    """Give the group of a model file that holds its layers: the file itself where it is weights.

    Raises:
        InputError: there is something else in its place.
    """
    weights = child(file, "model_weights")
    if weights is None:
        return file
    if not isinstance(weights, h5py.Group):
        raise InputError("model_weights is no group of arrays; expected an .h5 file of a model")
    return weights


def read_layers(
    file: Any, shapes: Mapping[str, Sequence[tuple[int, ...]]]
) -> list[list[npt.NDArray[np.float32]]]:
    """Read the weights of all layers of a Keras weight file, by their order, as Keras does.

    The names of layers have changed over the years, their order has not. Statistics of a layer
    `normalization`, which normalises pixels, are left out.

    Args:
        file: an open file of weights, or of a whole model.
        shapes: for each layer of the network the shape of each of its weights, in order.

    Returns:
        The arrays of each layer.

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
            f"it has {len(found)} layers with weights, expected {len(shapes)}, the first of them "
            f"{next(iter(shapes))}"
        )
    return [read_layer(group, each) for group, each in zip(found, shapes.values(), strict=True)]


def read_layer(group: Any, shapes: Sequence[tuple[int, ...]]) -> list[npt.NDArray[np.float32]]:
    """Read the weights of a layer from its group of a Keras weight file, of any version.

    Keras 3 names them LAYER/kernel, Keras 2 LAYER/kernel:0; each file lists its names, in the
    order of the layer's weights.

    Args:
        group: h5py group of the layer.
        shapes: shape of each weight.

    Returns:
        The arrays, in that order.

    Raises:
        InputError: an array is missing, of another shape or type, or has values that are no
            numbers.
    """
    arrays = []
    for name, shape in _named_arrays(group, shapes):
        array = read_array(group, name, shape)
        if not np.isfinite(array).all():
            raise InputError(f"array {group.name}/{name} holds NaN or infinity; refused")
        arrays.append(array)
    return arrays


def check_layer(group: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """Check that `read_layer` may read a layer, without reading it.

    Raises:
        InputError: as `read_layer`, but for the values.
    """
    for name, shape in _named_arrays(group, shapes):
        check_array(group, name, shape)


def _named_arrays(
    group: Any, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[str, tuple[int, ...]]]:
    names = read_names(group, "weight_names")
    if len(names) != len(shapes):
        raise InputError(f"{group.name} lists {len(names)} arrays, expected {len(shapes)}")
    return list(zip(names, shapes, strict=True))
