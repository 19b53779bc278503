"""Arrays out of HDF5 files that may come from a stranger: refused, or read, never followed.

HDF5 can point outside of its file (soft and external links, external storage, virtual data sets)
and can claim shapes that no memory holds. Arrays are taken from hard links only, and are read only
when shape and type are what the caller expects.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from deep_ranking.errors import InputError
from deep_ranking.hdf5_heaps import check_heaps

MAX_TEXT_BYTES = 1 << 20


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading.

    Args:
        path: the file.

    Yields:
        Its `h5py.File`.

    Raises:
        InputError: there is no such file, it is no HDF5 file, or it is cut off or damaged. An
            `InputError` of the block itself gets the path put before it.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: not a regular file; expected an .h5 file")
    try:
        check_heaps(path)
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read this file") from None
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        what = "cut off" if "truncated" in str(error) else "damaged, or not an HDF5 file"
        raise InputError(f"{path}: {what}; expected an .h5 file") from None


def child(group: Any, name: str) -> Any | None:
    """Give what a hard link in a group leads to, or None when there is no such link.

    Args:
        group: an h5py group.
        name: name of the link; "/" leads through groups, each by a hard link.

    Raises:
        InputError: the link is soft or external.
    """
    for part in name.split("/"):
        if not isinstance(group, h5py.Group):
            return None
        link = group.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{group.name}/{part} is a link that leads elsewhere; refused")
        group = group[part]
    return group


def read_array(
    group: Any, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Read an array of a known shape.

    Args:
        group: an h5py group.
        name: path of the data set below it.
        shape: the shape that it must have.
        dtype: type of the result; the stored type must be of the same kind (float, integer).

    Returns:
        Array of that shape and type.

    Raises:
        InputError: it is missing, or of another shape or type, or its data lies outside the file.
    """
    data = child(group, name)
    if not isinstance(data, h5py.Dataset):
        raise InputError(f"holds no array {name}")
    if data.shape != shape or data.dtype.kind != np.dtype(dtype).kind:
        raise InputError(
            f"array {name} is {data.dtype}{list(data.shape or ())}, "
            f"expected {np.dtype(dtype)}{list(shape)}"
        )
    if data.external or data.is_virtual:
        raise InputError(f"array {name} keeps its data in another file; refused")
    return np.asarray(data[()], dtype)


def read_text(group: Any, name: str) -> str | None:
    """Read a text attribute, or give None when there is none.

    Raises:
        InputError: it is no text, or longer than any of ours.
    """
    if name not in group.attrs:
        return None
    identifier = group.attrs.get_id(name)
    if identifier.get_storage_size() > MAX_TEXT_BYTES or identifier.shape != ():
        raise InputError(f"attribute {name} is not a short text")
    value = group.attrs[name]
    if not isinstance(value, str) or len(value) > MAX_TEXT_BYTES:
        raise InputError(f"attribute {name} is not a short text")
    return value


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
    groups = child(file, "model_weights") or file
    named = [(name, child(groups, name)) for name in _listed(groups, "layer_names")]
    found = [
        group
        for name, group in named
        if isinstance(group, h5py.Group)
        and _listed(group, "weight_names")
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
        InputError: an array is missing or of another shape or type.
    """
    names = _listed(group, "weight_names")
    if len(names) != len(shapes):
        raise InputError(f"{group.name} lists {len(names)} arrays, expected {len(shapes)}")
    return [read_array(group, name, shape) for name, shape in zip(names, shapes, strict=True)]


def _listed(group: Any, name: str) -> list[str]:
    """Read an attribute that lists names; Keras cuts a long list into NAME0, NAME1 ..."""
    numbers = itertools.takewhile(
        group.attrs.__contains__, (f"{name}{k}" for k in itertools.count())
    )
    found: list[str] = []
    for each in [name] if name in group.attrs else list(numbers):
        identifier = group.attrs.get_id(each)
        if math.prod(identifier.shape or ()) == 0:  # HDF5 cannot tell the size of nothing
            continue
        if identifier.get_storage_size() > MAX_TEXT_BYTES:
            raise InputError(f"attribute {each} is not a list of names")
        values = np.atleast_1d(group.attrs[each])
        found += [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return found
