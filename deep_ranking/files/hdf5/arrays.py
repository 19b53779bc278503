"""Arrays of numbers: read only if shape and type are as expected and the file holds all bytes."""

import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from deep_ranking.files.errors import InputError
from deep_ranking.files.hdf5.opening import child, names_in

MAX_DEPTH = 8


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
        InputError: it is missing, has another shape or type, or its data is outside the file.
    """
    return np.asarray(check_array(group, name, shape, dtype)[()], dtype)


def check_array(
    group: Any, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32
) -> Any:
    """Check that `read_array` would read an array, and return its h5py data set."""
    data = child(group, name)
    if not isinstance(data, h5py.Dataset):
        raise InputError(f"holds no array {name}")
    stored = _dtype_of_numbers(data)
    if data.shape != shape or stored is None or stored.kind != np.dtype(dtype).kind:
        raise InputError(
            f"array {name} is {stored or 'of no numbers'}{list(data.shape or ())}, "
            f"expected {np.dtype(dtype)}{list(shape)}"
        )
    _check_storage(data, name)
    return data


def _dtype_of_numbers(data: Any) -> np.dtype[Any] | None:
    """Return the type of an array of numbers or booleans, or None if it holds anything else."""
    kinds = (h5py.h5t.TypeFloatID, h5py.h5t.TypeIntegerID, h5py.h5t.TypeEnumID)
    if not isinstance(data.id.get_type(), kinds):
        return None
    try:
        dtype: np.dtype[Any] = data.dtype
    except (TypeError, ValueError):  # a width that NumPy lacks
        return None
    return dtype if dtype.kind in "biuf" else None


def _check_storage(data: Any, name: str) -> None:
    """Check that all bytes of an array are in its file, uncompressed."""
    if data.external or data.is_virtual:
        raise InputError(f"array {name} keeps its data in another file; refused")
    if data.id.get_create_plist().get_nfilters():
        raise InputError(f"array {name} is compressed, but weight files are not; refused")
    stored, size = data.id.get_storage_size(), data.file.id.get_filesize()
    if data.nbytes > size or data.nbytes > stored:
        raise InputError(f"array {name} claims more bytes than the file has; refused")
    if data.chunks is not None and math.prod(data.chunks) * data.dtype.itemsize > size:
        raise InputError(f"array {name} has chunks that are larger than the file; refused")


def arrays_in(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the full name and the data set of each array below a group, in sorted order.

    Raises:
        InputError: there is anything but groups and arrays of numbers, something is linked to
            twice, or the arrays together claim more bytes than the file has.
    """
    claimed, size = 0, group.file.id.get_filesize()
    for name, data in _arrays(group, set(), 0):
        _check_storage(data, name)
        claimed += data.nbytes
        if claimed > size:
            raise InputError("its arrays together claim more bytes than the file has; refused")
        yield name, data


def _arrays(group: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if depth > MAX_DEPTH:
        raise InputError(f"{group.name}: groups are nested too deeply; refused")
    for name in names_in(group):
        found: Any = child(group, name)
        if found is None:
            raise InputError(f"{group.name} holds an object without a name; refused")
        address = h5py.h5o.get_info(found.id).addr
        if address in seen:  # hard links may form a cycle, or too many paths to follow
            raise InputError(f"{found.name} is linked to twice; refused")
        seen.add(address)
        if isinstance(found, h5py.Group):
            yield from _arrays(found, seen, depth + 1)
        elif isinstance(found, h5py.Dataset):
            if found.shape is None or _dtype_of_numbers(found) is None:
                raise InputError(f"array {found.name} holds no numbers; refused")
            yield found.name, found
        else:
            raise InputError(f"{found.name} is neither a group nor an array; refused")
