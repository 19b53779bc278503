"""Model files of strangers: refused with the reason, nothing run, nothing read outside of them."""

import functools
import json
import marshal
import pickle
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_model_header import write
from torture import models

from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.files.hdf5 import open_hdf5, read_layer
from deep_ranking.model.header import read_header

MEGABYTES = 1024  # of address space, for a process without TensorFlow
SLOW = {"enormous JSON", "many links", "a hole of a terabyte"}
BY_NAME = {case.name: case for case in models.CASES}


@pytest.fixture
def sound(tmp_path):
    path = write(tmp_path / "sound.h5")
    with h5py.File(path, "r+") as file:
        names = [b"embedding/kernel", b"embedding/bias"]
        file[f"{models.WEIGHTS}/embedding"].attrs["weight_names"] = names
    return path


def read_embedding(path):
    """Read a layer as `load_model` does, in the shapes that the sound file has."""
    with open_hdf5(path) as file:
        from deep_ranking.files.hdf5 import child, weights_of

        group = child(weights_of(file), "embedding")
        if group is None:
            raise InputError("it has no layer")
        return read_layer(group, [(3, 4), (4,)])


def outcome(reader, path):
    try:
        reader(path)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "case", [case for case in models.CASES if case.name not in SLOW], ids=lambda case: case.name
)
def test_each_is_refused_in_one_line_or_read(case, sound, tmp_path):
    path = case.make(sound, tmp_path / "model.h5")
    said = outcome(read_header, path)
    if case.due != models.EITHER:
        assert (said is None) == (case.due == models.ACCEPTED)
    for text in (said, outcome(read_embedding, path)):
        if text is not None:
            assert text.startswith(f"{path}: ")
            assert len(text.splitlines()) == 1
            assert text.isprintable()
    assert said is None or case.said in said
    assert not (tmp_path / models.CANARY).exists()


@pytest.mark.parametrize("number", range(0, 50, 7))
def test_cut_off_anywhere(number, sound, tmp_path):
    case = models.Case("cut", functools.partial(models.cut, number / 50), raw=True)
    assert outcome(read_header, case.make(sound, tmp_path / "model.h5"))


def test_the_canary_would_show(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(models.pickled(canary))
    assert canary.is_dir()
    canary.rmdir()
    types.FunctionType(marshal.loads(models.lambda_code(canary)), {"__builtins__": __builtins__})(0)
    assert canary.is_dir()


def test_what_lies_outside_would_be_read_by_others(sound, tmp_path):
    """The baits are such that h5py, left to itself, takes them."""
    wanted = h5py.File(sound)[models.KERNEL][()]
    for name in ("external link", "external storage", "virtual"):
        path = BY_NAME[name].make(sound, tmp_path / "model.h5")
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file[models.KERNEL][()], wanted)
        assert outcome(read_header, path)
        assert outcome(read_embedding, path)
        assert "NaN" not in outcome(read_embedding, path)


READ_ALL = """
import json, resource, sys
from deep_ranking.files.errors import InputError
from deep_ranking.model.header import read_header
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)
for path in sys.argv[2:]:
    try:
        read_header(path)
        print("null", flush=True)
    except InputError as error:
        print(json.dumps(str(error)), flush=True)
"""


@pytest.mark.slow
def test_memory_is_bounded(sound, tmp_path):
    cases = [*models.BOMBS, BY_NAME["network of gigabytes"], BY_NAME["endless device"]]
    paths = [case.make(sound, tmp_path / f"{n}.h5") for n, case in enumerate(cases)]
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(MEGABYTES), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(cases)
    for case, text in zip(cases, said, strict=True):
        assert case.due == models.EITHER or text is not None
        assert text is None or case.said in text


def test_arrays_are_checked_before_a_network_is_built(sound, tmp_path, monkeypatch):
    from deep_ranking.model import file as model_file

    built = []

    def build(config):
        import keras

        from deep_ranking.model.network import build_network

        built.append(keras.src.backend.common.stateless_scope.in_stateless_scope())
        return build_network(config)

    monkeypatch.setattr(model_file, "build_network", build)
    path = BY_NAME["network of more gigabytes"].make(sound, tmp_path / "model.h5")
    with pytest.raises(InputError, match=r"no layer|expected"):
        model_file.load_model(path)
    assert built == [True]  # as a sketch, which holds no number


def test_a_network_of_no_numbers_is_refused(tmp_path):
    from stubs import build_stub

    from deep_ranking.model import file as model_file

    config = NetworkConfig(image_size=32, weights=None, embedding_size=8)
    path = tmp_path / "model.h5"
    model = build_stub(config, seed=0)
    kernel, bias = model.get_layer("embedding").get_weights()
    kernel[1, 2] = np.nan
    model.get_layer("embedding").set_weights([kernel, bias])
    model_file.save_model(model, path)
    patched = pytest.MonkeyPatch()
    with patched.context() as context:
        context.setattr(model_file, "build_network", lambda each: build_stub(each, seed=0))
        with pytest.raises(InputError, match="holds NaN or infinity"):
            model_file.load_model(path)


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000, b"[1]", b"\xff", b'{"num_epochs": "x"}'])
def test_states_of_checkpoints(text, tmp_path):
    from deep_ranking.training.resuming import RunState

    path = tmp_path / "checkpoint.h5"
    with h5py.File(path, "w") as file:
        file["state"] = np.frombuffer(text, np.uint8)
    with pytest.raises(InputError, match=r"incomplete|written by another version"):
        RunState.read(path, None, {})


@pytest.mark.parametrize(
    "values",
    [
        {"fingerprints": []},
        {"history": [1]},
        {"num_epochs": -1},
        {"best": "x"},
        {"fixes": {"output": "elsewhere"}},
        {"fixed_epochs": ["x"]},
    ],
)
def test_types_in_the_state_of_a_checkpoint(values, tmp_path):
    from deep_ranking.training.resuming import RunState

    path = tmp_path / "checkpoint.h5"
    state = {"fingerprints": {}, "num_epochs": 1} | values
    with h5py.File(path, "w") as file:
        file["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    with pytest.raises(InputError, match="written by another version"):
        RunState.read(path, None, {})
