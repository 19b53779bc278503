"""Weight files of PyTorch in its first format -> named arrays, without PyTorch and without trust.

Such a file is five pickles one after the other (a magic number, the format's version, facts about
the machine, the named arrays, the keys of their storages), and then the storages: for each key the
number of its values (int64) and the values. A pickle may run any code; the reader here refuses all
but an ordered dictionary of arrays.
"""

import collections
import io
import math
import pickle
from dataclasses import dataclass
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _Array:
    """An array of a storage.

    Attributes:
        storage: where its values lie, one after the other.
        offset: number of its first value there.
        shape: its shape.
        order: its axes in the order in which the values lie there, the slowest first.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    order: tuple[int, ...]

    @classmethod
    def rebuilt(
        cls,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *_: Any,
    ) -> "_Array":
        """Take the place of `torch._utils._rebuild_tensor_v2`."""
        order = tuple(sorted(range(len(shape)), key=lambda axis: (-strides[axis], axis)))
        sides = [shape[axis] for axis in order]
        dense = [math.prod(sides[place + 1 :]) for place in range(len(order))]
        wide = [place for place, side in enumerate(sides) if side > 1]
        if not isinstance(storage, _Storage) or any(
            strides[order[place]] != dense[place] for place in wide
        ):
            raise pickle.UnpicklingError("an array with gaps")
        return cls(storage, offset, shape, order)

    def taken_from(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array, given all values of its storage."""
        flat = values[self.offset :][: math.prod(self.shape)]
        lying = flat.reshape([self.shape[axis] for axis in self.order])
        return lying.transpose(np.argsort(self.order))


class _Unpickler(pickle.Unpickler):
    """Reads ordered dictionaries and arrays; refuses everything else that needs an import."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Array.rebuilt
        if module == "torch" and name in TYPES:
            return TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or dtype not in TYPES.values():
            raise pickle.UnpicklingError(str(kind))
        return _Storage(key, dtype, count)


def read_torch_weights(path: Path, *, sha256: str) -> dict[str, npt.NDArray[Any]]:
    """Read a weight file whose content is known.

    Args:
        path: the file.
        sha256: what the SHA-256 of its content must be, in hexadecimal digits.

    Returns:
        Name -> array, float32 or int64.

    Raises:
        InputError: the file cannot be read, has another content, or holds anything but arrays.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if sha256_of(content).hexdigest() != sha256:
        raise InputError(f"{path}: another content than expected; install its package again")
    try:
        return _read(io.BytesIO(content))
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a weight file of arrays alone ({error})") from None


def _read(file: io.BytesIO) -> dict[str, npt.NDArray[Any]]:
    magic, version, _, named, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError("another format")
    arrays = {name: each for name, each in named.items() if isinstance(each, _Array)}
    if len(arrays) < len(named):
        raise ValueError("values that are not arrays")
    storages = {each.storage.key: each.storage for each in arrays.values()}
    values = {}
    for key in keys:
        storage = storages[key]
        (count,) = np.frombuffer(file.read(8), "<i8")
        if count != storage.count:
            raise ValueError("a storage of another length")
        size = np.dtype(storage.dtype).itemsize * storage.count
        values[key] = np.frombuffer(file.read(size), storage.dtype)
    return {name: each.taken_from(values[each.storage.key]) for name, each in arrays.items()}
