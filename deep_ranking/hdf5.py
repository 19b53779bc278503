"""Arrays out of HDF5 files that may come from a stranger: refused, or read, never followed.

HDF5 can point outside of its file (soft and external links, external storage, virtual data sets),
can claim shapes that no memory holds, can hold a little that expands to much, and can name a
library that is to be loaded to unpack it. Arrays are taken from hard links only, and are read only
when shape and type are what the caller expects and all their bytes lie in the file as they are.
Texts are read only where their type is that of a text: h5py takes the description of some other
types from the file, to the point of reading bytes as pointers.
"""

import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from deep_ranking.errors import InputError
from deep_ranking.hdf5_heaps import longest_text

MAX_TEXT_BYTES = 1 << 20
MAX_TEXTS_BYTES = 1 << 29
"""Bytes of a list of texts, were each of them the longest in the file; a network of Keras describes
itself in a text of a megabyte, and has a thousand layers."""
MAX_NAMES = 100_000
MAX_DEPTH = 8


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
        _look_at_heaps(path)  # refuses those without an end
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read this file") from None
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        # Of the block too, where HDF5 finds only then that the file does not hang together.
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
        if not isinstance(group, h5py.Group) or "\0" in part or part in ("", "."):
            return None
        links = group.id.links
        if not links.exists(part.encode()):
            return None
        if links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise InputError(f"{group.name}/{part} is a link that leads elsewhere; refused")
        try:
            group = group[part]
        except (TypeError, ValueError):  # h5py knows no such object
            raise InputError(f"{group.name}/{part} is of an unknown kind; refused") from None
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
    data = check_array(group, name, shape, dtype)
    return np.asarray(data[()], dtype)


def check_array(
    group: Any, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32
) -> Any:
    """Check that `read_array` may read an array, without reading it.

    Returns:
        The h5py data set.

    Raises:
        InputError: as `read_array`.
    """
    data = child(group, name)
    if not isinstance(data, h5py.Dataset):
        raise InputError(f"holds no array {name}")
    stored = dtype_of_numbers(data)
    if data.shape != shape or stored is None or stored.kind != np.dtype(dtype).kind:
        raise InputError(
            f"array {name} is {stored or 'of no numbers'}{list(data.shape or ())}, "
            f"expected {np.dtype(dtype)}{list(shape)}"
        )
    check_storage(data, name)
    return data


def dtype_of_numbers(data: Any) -> np.dtype[Any] | None:
    """Give the type of an array of numbers or truth values, or None if it holds anything else.

    Args:
        data: an h5py data set.
    """
    kinds = (h5py.h5t.TypeFloatID, h5py.h5t.TypeIntegerID, h5py.h5t.TypeEnumID)
    if not isinstance(data.id.get_type(), kinds):
        return None
    try:
        dtype: np.dtype[Any] = data.dtype
    except (TypeError, ValueError):  # of other bits than NumPy has
        return None
    return dtype if dtype.kind in "biuf" else None


def check_storage(data: Any, name: str) -> None:
    """Check that the bytes of an array lie in its file, all of them, and as they are.

    Args:
        data: an h5py data set of numbers.
        name: what errors call it.

    Raises:
        InputError: they lie elsewhere, are compressed, or are not there.
    """
    if data.external or data.is_virtual:
        raise InputError(f"array {name} keeps its data in another file; refused")
    if data.id.get_create_plist().get_nfilters():
        raise InputError(f"array {name} is compressed, which no file of weights is; refused")
    stored, size = data.id.get_storage_size(), data.file.id.get_filesize()
    if data.nbytes > size or data.nbytes > stored:
        raise InputError(f"array {name} claims more bytes than the file has; refused")
    if data.chunks is not None and math.prod(data.chunks) * data.dtype.itemsize > size:
        raise InputError(f"array {name} lies in pieces that are larger than the file; refused")


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


def names_in(group: Any) -> list[str]:
    """Give the names of all links of a group, in sorted order.

    Raises:
        InputError: there are more than any file of ours has, or one is no text.
    """
    if len(group) > MAX_NAMES:
        raise InputError(f"{group.name} holds {len(group):,} names; refused")
    names = list(group)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{group.name} holds a name that is not UTF-8; refused")
    return sorted(names)


def arrays_in(group: Any) -> Iterator[tuple[str, Any]]:
    """Give all arrays below a group, by their full names, in sorted order; each is reached once.

    All of them together claim no more bytes than the file has.

    Raises:
        InputError: there is anything but groups and arrays of numbers, or it is reached twice.
    """
    claimed, size = 0, group.file.id.get_filesize()
    for name, data in _arrays(group, set(), 0):
        check_storage(data, name)
        claimed += data.nbytes
        if claimed > size:
            raise InputError("its arrays together claim more bytes than the file has; refused")
        yield name, data


def _arrays(group: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if depth > MAX_DEPTH:
        raise InputError(f"{group.name}: groups within groups without end; refused")
    for name in names_in(group):
        found: Any = child(group, name)
        if found is None:
            raise InputError(f"{group.name} holds a thing without a name; refused")
        address = h5py.h5o.get_info(found.id).addr
        if address in seen:  # hard links may form a circle, or more ways than anybody waits for
            raise InputError(f"{found.name} is linked to twice; refused")
        seen.add(address)
        if isinstance(found, h5py.Group):
            yield from _arrays(found, seen, depth + 1)
        elif isinstance(found, h5py.Dataset):
            if found.shape is None or dtype_of_numbers(found) is None:
                raise InputError(f"array {found.name} holds no numbers; refused")
            yield found.name, found
        else:
            raise InputError(f"{found.name} is neither a group nor an array; refused")


def read_text(group: Any, name: str) -> str | None:
    """Read a text attribute, or give None when there is none.

    Raises:
        InputError: it is no text, or longer than any of ours.
    """
    if name not in group.attrs:
        return None
    refused = InputError(f"attribute {name} is not a short text")
    identifier = group.attrs.get_id(name)
    kind = identifier.get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or identifier.shape != ():
        raise refused
    if identifier.get_storage_size() > MAX_TEXT_BYTES:
        raise refused
    if _longest_text(group, kind) > 16 * MAX_TEXT_BYTES:  # of another attribute: Keras has such
        raise refused
    value = group.attrs[name]
    if isinstance(value, bytes | np.bytes_):
        value = bytes(value).decode()
    if not isinstance(value, str) or len(value) > MAX_TEXT_BYTES:
        raise refused
    return value


def _longest_text(group: Any, kind: Any) -> int:
    """Give the bytes that a text of a type can have, if the type does not bound them."""
    return _look_at_heaps(group.file.filename) if kind.is_variable_str() else 0


def _look_at_heaps(path: str | os.PathLike[str]) -> int:
    status = os.stat(path)
    return longest_text(os.fspath(path), status.st_size, status.st_mtime_ns)


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
    names = _listed(group, "weight_names")
    if len(names) != len(shapes):
        raise InputError(f"{group.name} lists {len(names)} arrays, expected {len(shapes)}")
    return list(zip(names, shapes, strict=True))


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
        kind, count = identifier.get_type(), math.prod(identifier.shape)
        if (
            not isinstance(kind, h5py.h5t.TypeStringID)
            or identifier.get_storage_size() > MAX_TEXT_BYTES
            or count * _longest_text(group, kind) > MAX_TEXTS_BYTES
        ):
            raise InputError(f"attribute {each} is not a list of names")
        values = np.atleast_1d(group.attrs[each])
        found += [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        if len(found) > MAX_NAMES:
            raise InputError(f"attribute {each} is not a list of names")
    return found
