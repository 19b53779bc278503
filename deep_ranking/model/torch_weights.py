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
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
LONGEST_REASON = 200


class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int


class _Array(NamedTuple):
    """What the file says of an array; nothing of it is checked yet.

    Attributes:
        storage: where its values lie.
        offset: number of its first value there.
        shape: its shape.
        strides: for each axis, how many values further its next entry lies.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def rebuilt(cls, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> "_Array":
        """Take the place of `torch._utils._rebuild_tensor_v2`."""
        return cls(storage, offset, shape, strides)

    def taken_from(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array, given all values of its storage.

        Raises:
            ValueError: the values do not lie one after the other in the storage.
        """
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(each) is int and each >= 0 for each in numbers):
            raise ValueError("an array whose place is not given by whole numbers")
        size = math.prod(self.shape)
        if self.offset + size > len(values):
            raise ValueError("an array that is longer than its storage")
        # Its axes in the order in which the values lie, the slowest first.
        order = sorted(range(len(self.shape)), key=lambda axis: (-self.strides[axis], axis))
        sides = [self.shape[axis] for axis in order]
        for place, axis in enumerate(order):
            if sides[place] > 1 and self.strides[axis] != math.prod(sides[place + 1 :]):
                raise ValueError("an array with gaps")
        flat = values[self.offset : self.offset + size]
        return flat.reshape(sides).transpose(np.argsort(order))


class _Unpickler(pickle.Unpickler):
    """Reads ordered dictionaries and arrays; refuses everything else that needs an import."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Array.rebuilt
        if module == "torch" and name in TYPES:
            return TYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}"[:LONGEST_REASON])

    def persistent_load(self, pid: Any) -> Any:
        _kind, dtype, key, _device, count, *_ = pid
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
        return _read(content)
    except Exception as error:  # a pickle can raise errors of any type
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise InputError(f"{path}: not a weight file of arrays alone ({reason})") from None


def _read(content: bytes) -> dict[str, npt.NDArray[Any]]:
    file = io.BytesIO(content)
    magic, version, _, named, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError("another format")
    if not isinstance(named, dict) or not isinstance(keys, list):
        raise ValueError("no dictionary of arrays")
    storages: dict[str, _Storage] = {}
    for name, each in named.items():
        if type(name) is not str or type(each) is not _Array or type(each.storage) is not _Storage:
            raise ValueError("values that are not arrays")
        key, dtype, length = each.storage
        if type(key) is not str or dtype not in TYPES.values() or type(length) is not int:
            raise ValueError("a storage that is not described as one")
        if storages.setdefault(key, each.storage) != each.storage:
            raise ValueError("a storage that is described twice")
    values = {}
    for key in keys:
        storage = storages[key]
        (count,) = np.frombuffer(file.read(8), "<i8")
        size = np.dtype(storage.dtype).itemsize * storage.length
        if count != storage.length or not 0 <= size <= len(content) - file.tell():
            raise ValueError("a storage of another length")
        values[key] = np.frombuffer(file.read(size), storage.dtype)
    if set(values) != set(storages):
        raise ValueError("storages that are missing")
    return {name: each.taken_from(values[each.storage.key]) for name, each in named.items()}
