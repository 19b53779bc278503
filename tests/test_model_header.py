import os
import re
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.header import CALIBRATION_ATTRIBUTE, CONFIG_ATTRIBUTE, read_header

SMALL = NetworkConfig(image_size=32, weights=None, hidden_size=16, embedding_size=8)
CALIBRATION = Calibration((0.0, 1.0), (0.9, 0.1), (0.0, 0.5), (0.5, 2.0), 0.5, 20)
KERNEL = "model_weights/embedding/embedding/kernel"


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        KERNEL: rng.normal(size=(3, 4)).astype(np.float32),
        "model_weights/embedding/embedding/bias": rng.normal(size=4).astype(np.float32),
        "model_weights/hidden_1/hidden_1/kernel": rng.normal(size=(2, 3)).astype(np.float32),
    }


def write(path, arrays=None, *, config=SMALL, calibration=None):
    """A file laid out as a model file; no network is needed to read its header."""
    with h5py.File(path, "w") as file:
        for name, array in (weights() if arrays is None else arrays).items():
            file[name] = array
        if config is not None:
            file.attrs[CONFIG_ATTRIBUTE] = config.to_json()
        if calibration is not None:
            file.attrs[CALIBRATION_ATTRIBUTE] = calibration.to_json()
    return path


def fingerprint(path, *arguments, **options):
    return read_header(write(path / "model.h5", *arguments, **options)).fingerprint


def test_header_of_a_file(tmp_path):
    header = read_header(write(tmp_path / "model.h5", calibration=CALIBRATION))
    assert header.network == SMALL
    assert header.calibration == CALIBRATION
    assert re.fullmatch("[0-9a-f]{32}", header.fingerprint)
    assert read_header(write(tmp_path / "other.h5")).calibration is None


def test_a_file_without_a_description_is_the_blogs(tmp_path):
    layers = ("conv2d_1", "conv2d_2", "dense_1", "dense_2", "dense_3")
    ones, zeros = ({f"{name}/kernel": fill(3) for name in layers} for fill in (np.ones, np.zeros))
    header = read_header(write(tmp_path / "model.h5", ones, config=None))
    assert header.network == NetworkConfig(weights=None)
    assert header.fingerprint != fingerprint(tmp_path, zeros, config=None)


@pytest.mark.parametrize("layers", [{}, {"block1_conv1/block1_conv1/kernel": np.ones(3)}], ids=len)
def test_a_file_without_a_description_that_is_not_the_blogs_is_refused(tmp_path, layers):
    """Such as a backbone's weights; `index` would make a folder that takes no other model."""
    path = write(tmp_path / "model.h5", layers, config=None)
    with pytest.raises(InputError, match=r"model\.h5: not a model of deep ranking"):
        read_header(path)


def test_fingerprint_follows_from_network_and_weights_alone(tmp_path):
    first = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == first
    assert fingerprint(tmp_path, calibration=CALIBRATION) == first
    backwards = dict(reversed(weights().items()))
    assert fingerprint(tmp_path, backwards) == first
    assert (
        fingerprint(tmp_path, config=replace(SMALL, weights="imagenet", normalisation="unit"))
        == first
    )


def test_fingerprint_tells_models_apart(tmp_path):
    found = [fingerprint(tmp_path)]
    for name in weights():
        for change in (
            lambda array: np.nextafter(array, np.float32(9)),  # the last bit of each
            lambda array: array.T,
            lambda array: array.ravel(),
            lambda array: array.astype(np.float64),
            lambda array: array[..., ::-1],
        ):
            changed = weights() | {name: change(weights()[name])}
            if all(
                np.array_equal(changed[each], weights()[each])
                and changed[each].dtype == weights()[each].dtype
                for each in changed
            ):
                continue  # a row is what it was, transposed or not
            found.append(fingerprint(tmp_path, changed))
    one = weights()
    one[KERNEL][2, 1] += 1e-6
    found.append(fingerprint(tmp_path, one))
    fewer = weights()
    del fewer[KERNEL]
    found.append(fingerprint(tmp_path, fewer))
    moved = weights()
    moved["model_weights/other"] = moved.pop(KERNEL)
    found.append(fingerprint(tmp_path, moved))
    for field, value in (
        ("image_size", 64),
        ("dropout", 0.1),
        ("embedding_size", 9),
        ("normalisation", "backbone"),
        ("pooling", "max"),
        ("multiscale", "none"),
        ("backbone_size", 64),
    ):
        found.append(fingerprint(tmp_path, config=replace(SMALL, **{field: value})))
    assert len(set(found)) == len(found) > 15


def test_fingerprint_of_real_models(tmp_path):
    from stubs import build_stub

    from deep_ranking.model.file import save_model
    from deep_ranking.model.header import store_calibration

    config = replace(SMALL, embedding_size=4)
    model = build_stub(config, seed=5)
    save_model(model, tmp_path / "first.h5")
    save_model(model, tmp_path / "again.h5")
    save_model(build_stub(config, seed=5), tmp_path / "rebuilt.h5")
    first = read_header(tmp_path / "first.h5")
    assert first.network == config
    for name in ("again", "rebuilt"):
        assert read_header(tmp_path / f"{name}.h5") == first
    store_calibration(tmp_path / "again.h5", CALIBRATION)
    calibrated = read_header(tmp_path / "again.h5")
    assert calibrated == replace(first, calibration=CALIBRATION)
    kernel, bias = model.get_layer("embedding").get_weights()
    bias[2] += 1e-6
    model.get_layer("embedding").set_weights([kernel, bias])
    save_model(model, tmp_path / "changed.h5")
    assert read_header(tmp_path / "changed.h5").fingerprint != first.fingerprint


def test_tensorflow_is_not_loaded(tmp_path):
    path = write(tmp_path / "model.h5")
    code = (
        "import sys; from deep_ranking.model.header import read_header; "
        "print(read_header(sys.argv[1]).fingerprint); "
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == [read_header(path).fingerprint, "[]"]


def circle(file):
    group = file["model_weights/embedding"]
    group["again"] = group
    group["and again"] = group


def many_ways(file):
    """Few groups, and more ways through them than anybody waits for."""
    group = file["model_weights"]
    for level in range(7):
        below = group.create_group(f"level {level}")
        for number in range(40):
            group[f"way {level} {number}"] = below
        group = below


def one_array_many_times(file):
    for number in range(1000):
        file[f"model_weights/copy {number}"] = file[KERNEL]


def deep(file):
    file.create_group("model_weights/" + "/".join("x" * 2000))


def claims_more(file):
    del file[KERNEL]
    file.create_dataset(KERNEL, (1 << 20, 1 << 20), np.float32)  # no byte of it is written


def compressed(file):
    del file[KERNEL]
    file.create_dataset(KERNEL, data=np.zeros(1 << 22, np.float32), compression="gzip")


def external(file):
    del file[KERNEL]
    raw = file.filename + ".raw"
    np.zeros(12, np.float32).tofile(raw)
    file.create_dataset(KERNEL, (3, 4), np.float32, external=[(raw, 0, 48)])


def virtual(file):
    with h5py.File(file.filename + ".other", "w") as other:
        other["x"] = np.zeros((3, 4), np.float32)
    layout = h5py.VirtualLayout((3, 4), np.float32)
    layout[:] = h5py.VirtualSource(file.filename + ".other", "x", (3, 4))
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def soft_link(file):
    file["model_weights/soft"] = h5py.SoftLink("/" + KERNEL)


def external_link(file):
    file["model_weights/elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")


def weights_are_a_link(file):
    del file["model_weights"]
    file["model_weights"] = h5py.SoftLink("/")


def weights_are_an_array(file):
    del file["model_weights"]
    file["model_weights"] = np.zeros((2, 2), np.float32)


def named_type(file):
    file["model_weights/type"] = np.dtype("f8")


def texts(file):
    file.create_dataset("model_weights/texts", data=["a", "b"], dtype=h5py.string_dtype())


def references(file):
    file.create_dataset("model_weights/references", data=[file.ref], dtype=h5py.ref_dtype)


def ragged(file):
    data = file.create_dataset("model_weights/ragged", (2,), h5py.vlen_dtype(np.float32))
    data[0] = [1, 2, 3]


def nothing(file):
    file["model_weights/nothing"] = h5py.Empty("f4")


def description_is_a_number(file):
    file.attrs[CONFIG_ATTRIBUTE] = 5


def description_is_no_json(file):
    file.attrs[CONFIG_ATTRIBUTE] = "{"


def calibration_is_none(file):
    file.attrs[CALIBRATION_ATTRIBUTE] = "[1]"


@pytest.mark.parametrize(
    "damage",
    [
        circle,
        many_ways,
        one_array_many_times,
        deep,
        claims_more,
        compressed,
        external,
        virtual,
        soft_link,
        external_link,
        weights_are_a_link,
        weights_are_an_array,
        named_type,
        texts,
        references,
        ragged,
        nothing,
        description_is_a_number,
        description_is_no_json,
        calibration_is_none,
    ],
    ids=lambda damage: damage.__name__,
)
def test_hostile_files_are_refused_in_one_line(tmp_path, damage):
    path = write(tmp_path / "model.h5")
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_empty_and_small_arrays_are_read(tmp_path):
    arrays = {"a": np.zeros((0, 4), np.float32), "b": np.float32(3), "c": np.arange(5)}
    first = fingerprint(tmp_path, arrays)
    assert fingerprint(tmp_path, arrays | {"b": np.float32(4)}) != first
    assert fingerprint(tmp_path, arrays | {"a": np.zeros((4, 0), "f4")}) != first


@pytest.mark.parametrize("share", [0, 0.001, 0.2, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(tmp_path, share):
    path = write(tmp_path / "model.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut off|damaged, or not an HDF5 file"):
        read_header(path)


def test_what_is_no_hdf5_file_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no model\n" * 100)
    os.mkfifo(tmp_path / "pipe.h5")
    for name, said in (
        ("text.h5", "damaged, or not an HDF5 file"),
        ("missing.h5", "no such file"),
        ("pipe.h5", "not a regular file"),
        (".", "not a regular file"),
    ):
        with pytest.raises(InputError, match=said):
            read_header(tmp_path / name)


def test_heap_of_texts_without_an_end(tmp_path):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs[CONFIG_ATTRIBUTE] = NetworkConfig(weights=None).to_json()
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 32] = bytes(16)  # free space of 0 bytes: HDF5 would not get past it
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"model\.h5: damaged: a heap of texts in it has no end"):
        read_header(path)


def test_heap_of_texts_that_leaps_back_to_itself(tmp_path):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs[CONFIG_ATTRIBUTE] = NetworkConfig(weights=None).to_json()
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 24 : heap + 32] = (2**64 - 16).to_bytes(8, "little")  # 16 more: 0 in 64 bits
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"model\.h5: damaged"):
        read_header(path)
