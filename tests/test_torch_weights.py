"""Weight files of PyTorch: sound ones are read, all others refused in one line, and none runs."""

import hashlib
import io
import os
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest

from deep_ranking.files import InputError
from deep_ranking.model import torch_weights
from deep_ranking.model.torch_weights import read_torch_weights

VALUES = np.arange(24, dtype=np.float32)


class Storage:
    def __init__(self, values, *, key="0", kind="FloatStorage", count=None):
        self.values, self.key, self.kind = np.asarray(values), key, kind
        self.count = len(self.values) if count is None else count


class Tensor:
    def __init__(self, storage, shape, strides, offset=0):
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return (
                "storage",
                getattr(sys.modules["torch"], obj.kind),
                obj.key,
                "cpu",
                obj.count,
                None,
            )
        return None


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    """Modules under PyTorch's names, for the pickles to name what they hold."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        inner.__name__,
        "_rebuild_tensor_v2",
    )
    inner._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", inner)


@pytest.fixture
def read(tmp_path):
    def write_and_read(named, storages=(), *, keys=None, magic=torch_weights.MAGIC, end=None):
        file = io.BytesIO()
        keys = [each.key for each in storages] if keys is None else keys
        facts = {"little_endian": True}
        for part in (magic, torch_weights.VERSION, facts, named, keys):
            Pickler(file, protocol=2).dump(part)
        for each in storages:
            file.write(np.int64(each.count).tobytes() + each.values.tobytes())
        path, content = tmp_path / "weights.pth", file.getvalue()[:end]
        path.write_bytes(content)
        return read_torch_weights(path, sha256=hashlib.sha256(content).hexdigest())

    return write_and_read


def named(storage, *arguments, **options):
    return OrderedDict(weight=Tensor(storage, *arguments, **options))


def test_arrays_of_any_order_of_axes_are_read(read):
    whole = Storage(VALUES)
    counts = Storage(np.array([7], np.int64), key="1", kind="LongStorage")
    found = read(
        OrderedDict(
            plain=Tensor(whole, (2, 3, 4), (12, 4, 1)),
            turned=Tensor(whole, (4, 1, 6), (1, 99, 4)),  # the stride of a side of 1 means nothing
            part=Tensor(whole, (2, 3), (3, 1), offset=18),
            count=Tensor(counts, (), ()),
        ),
        [whole, counts],
    )
    np.testing.assert_array_equal(found["plain"], VALUES.reshape(2, 3, 4))
    np.testing.assert_array_equal(found["turned"], VALUES.reshape(6, 4).T[:, None])
    np.testing.assert_array_equal(found["part"], VALUES[18:].reshape(2, 3))
    assert found["count"] == 7
    assert found["count"].dtype == np.int64


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


class RunsLater:
    """Gets at `os` without naming it, by an attribute of something that is allowed."""

    def __reduce__(self):
        return getattr, (OrderedDict, "__init__")


@pytest.mark.parametrize("harmful", [Runs(), RunsLater(), Storage, np.float32(1)])
def test_nothing_but_arrays_is_looked_up(read, harmful, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = Storage(VALUES)
    for content in (harmful, OrderedDict(weight=Tensor(whole, (24,), (1,)), more=harmful)):
        with pytest.raises(InputError, match=r"not a weight file of arrays alone \(it asks for"):
            read(content, [whole])
    assert not (tmp_path / "ran").exists()


WHOLE = Storage(VALUES)


@pytest.mark.parametrize(
    ("content", "storages", "reason"),
    [
        (named(WHOLE, (25,), (1,)), [WHOLE], "longer than its storage"),
        (named(WHOLE, (20,), (1,), offset=5), [WHOLE], "longer than its storage"),
        (named(WHOLE, (2**40, 2**40), (2**40, 1)), [WHOLE], "longer than its storage"),
        (named(WHOLE, (4,), (1,), offset=-4), [WHOLE], "whole numbers"),
        (named(WHOLE, (-1,), (1,)), [WHOLE], "whole numbers"),
        (named(WHOLE, (True,), (1,)), [WHOLE], "whole numbers"),
        (named(WHOLE, (4.0,), (1,)), [WHOLE], "whole numbers"),
        (named(WHOLE, (4,), (-1,)), [WHOLE], "whole numbers"),
        (named(WHOLE, 4, (1,)), [WHOLE], "iterable"),
        (named(WHOLE, (4, 2), (1,)), [WHOLE], "index out of range"),
        (named(WHOLE, (4,), (2,)), [WHOLE], "gaps"),
        (named(WHOLE, (4, 4), (0, 1)), [WHOLE], "gaps"),
        (named(WHOLE, (3, 4), (8, 1)), [WHOLE], "gaps"),
        (named("0", (24,), (1,)), [WHOLE], "not arrays"),
        (OrderedDict(weight=7), [WHOLE], "not arrays"),
        (OrderedDict({7: Tensor(WHOLE, (24,), (1,))}), [WHOLE], "not arrays"),
        ([1, 2], [WHOLE], "no dictionary"),
        (named(WHOLE, (24,), (1,)), [], "missing"),
        (named(WHOLE, (24,), (1,)), [WHOLE, Storage(VALUES, key="other")], "other"),
        (named(Storage(VALUES, count=25), (24,), (1,)), [WHOLE], "another length"),
        (named(Storage(VALUES, count=-1), (0,), (1,)), [Storage(VALUES, count=-1)], "length"),
        (named(Storage(VALUES, count=99), (24,), (1,)), [Storage(VALUES, count=99)], "length"),
        (
            named(Storage(VALUES, count=2**62), (24,), (1,)),
            [Storage(VALUES, count=2**62)],
            "length",
        ),
        (named(Storage(VALUES, count="24"), (24,), (1,)), [WHOLE], "described"),
        (named(Storage(VALUES, key=0), (24,), (1,)), [WHOLE], "described"),
        (named(Storage(VALUES, kind="HalfStorage"), (24,), (1,)), [WHOLE], "torch.HalfStorage"),
        (
            named(WHOLE, (24,), (1,)) | {"n": Tensor(Storage([], kind="LongStorage"), (0,), (1,))},
            [WHOLE],
            "described twice",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(read, content, storages, reason):
    with pytest.raises(InputError, match=reason) as error:
        read(content, storages)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_another_format_is_refused(read):
    with pytest.raises(InputError, match="another format"):
        read(named(WHOLE, (24,), (1,)), [WHOLE], magic=7)


def test_keys_that_are_no_list_are_refused(read):
    with pytest.raises(InputError, match="no dictionary of arrays"):
        read(named(WHOLE, (24,), (1,)), [WHOLE], keys="0")


@pytest.mark.parametrize("end", [0, 1, 40, 200, -97, -96, -1])
def test_a_file_cut_anywhere_is_refused(read, end):
    with pytest.raises(InputError, match="not a weight file of arrays alone"):
        read(named(WHOLE, (24,), (1,)), [WHOLE], end=end)


def test_another_content_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_weights, "_read", lambda content: pytest.fail("it was read"))
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(InputError, match=r"weights\.pth: another content than expected"):
        read_torch_weights(path, sha256="0" * 64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.pth: No such file"):
        read_torch_weights(tmp_path / "none.pth", sha256="0" * 64)
