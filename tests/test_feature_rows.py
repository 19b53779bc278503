import errno
import re
import shutil
from collections import namedtuple

import numpy as np
import pytest

from deep_ranking.embedding.cached_features import (
    NO_SPACE,
    CachedFeatures,
    feature_store,
    flattened,
)
from deep_ranking.files import InputError
from deep_ranking.files.row_store import KEY_BYTES, RECORD

SHAPES = ((2, 3), (4,), ())
WIDTH = 11


def key(number):
    return bytes([number]) * KEY_BYTES


def arrays(numbers, shapes=SHAPES):
    """Arrays that differ in every entry, which float16 holds exactly."""
    numbers = np.asarray(numbers, np.float32)
    result = []
    for part, shape in enumerate(shapes):
        inner = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
        result.append(numbers.reshape(-1, *[1] * len(shape)) * 64 + part * 16 + inner)
    return result


def block(*numbers):
    return [key(number) for number in numbers], flattened(arrays(numbers))


def features_of(store, rows, shapes=SHAPES):
    return CachedFeatures(store.rows(), rows, shapes)


def store_of(folder, *numbers):
    store = feature_store(folder, SHAPES)
    store.extend([block(number) for number in numbers])
    return store


def assert_holds(store, *numbers):
    """Exactly these are found, and each key's row is its own."""
    found = store.find()
    assert sorted(found) == sorted({key(number) for number in numbers})
    rows = np.array([[found[key(number)]] for number in numbers])
    features = features_of(store, rows)
    read = features.read(np.arange(len(numbers)), np.zeros(len(numbers), int))
    for part, expected in zip(read, arrays(numbers), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_what_is_appended_is_found_and_read(tmp_path):
    store = feature_store(tmp_path, SHAPES)
    assert store.find() == {}
    store.extend([block(5, 2), block(7)])
    assert store.find() == {key(5): 0, key(2): 1, key(7): 2}
    assert_holds(store, 2, 7, 5)
    assert (tmp_path / "features.bin").stat().st_size == 3 * store.row_bytes == 3 * 2 * WIDTH
    assert (tmp_path / "keys.bin").stat().st_size == 3 * RECORD.itemsize


def test_views_are_read_each_by_its_row(tmp_path):
    store = store_of(tmp_path, 0, 1, 2, 3, 4, 5)
    features = features_of(store, np.array([[4, 0], [1, 5], [2, 2], [-1, -1]]))
    assert features.shapes == SHAPES
    assert features.file.shape == (6, WIDTH)
    read = features.read(np.array([1, 0, 1, 2]), np.array([1, 0, 0, 1]))
    assert [part.shape for part in read] == [(4, 2, 3), (4, 4), (4,)]
    for part, expected in zip(read, arrays([5, 4, 1, 2]), strict=True):
        assert part.dtype == np.float16
        np.testing.assert_array_equal(part, expected)


def test_values_beyond_float16_are_clipped_and_others_rounded(tmp_path):
    store = feature_store(tmp_path, ((6,),))
    values = np.array([[1e9, -1e9, np.inf, -np.inf, 70000, 0.1]], np.float32)
    store.extend([([key(1)], flattened([values]))])
    (read,) = features_of(store, np.array([[0]]), ((6,),)).read(np.array([0]), np.array([0]))
    assert read.tolist() == [[65504, -65504, 65504, -65504, 65504, np.float16(0.1)]]


def test_empty_blocks_add_nothing(tmp_path):
    store = feature_store(tmp_path, SHAPES)
    store.extend([])
    assert store.find() == {}
    store.extend([block(), block(1), block()])
    assert_holds(store, 1)


@pytest.mark.parametrize(
    ("name", "row_bytes"), [("features.bin", 2 * WIDTH), ("keys.bin", RECORD.itemsize)]
)
def test_torn_row_is_cut_off_and_the_store_goes_on(tmp_path, name, row_bytes):
    whole = tmp_path / "whole"
    store_of(whole, 1, 2, 3)
    content = (whole / name).read_bytes()
    for left in range(row_bytes):
        folder = tmp_path / str(left)
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(content[: 2 * row_bytes + left])
        assert_holds(feature_store(folder, SHAPES), 1, 2)  # before anything is mended
        feature_store(folder, SHAPES).extend([block(4)])
        assert_holds(feature_store(folder, SHAPES), 1, 2, 4)
        assert (folder / "features.bin").stat().st_size == 3 * 2 * WIDTH
        assert (folder / "keys.bin").stat().st_size == 3 * RECORD.itemsize


@pytest.mark.parametrize(
    ("name", "row_bytes"), [("features.bin", 2 * WIDTH), ("keys.bin", RECORD.itemsize)]
)
def test_of_a_torn_block_nothing_is_left(tmp_path, name, row_bytes):
    store = feature_store(tmp_path, SHAPES)
    store.extend([block(1, 2), block(3, 4, 5)])
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[: 4 * row_bytes])  # one row of the last block is missing
    assert_holds(feature_store(tmp_path, SHAPES), 1, 2)
    store.extend([block(6)])
    assert_holds(store, 1, 2, 6)
    assert file.stat().st_size == 3 * row_bytes


@pytest.mark.parametrize("name", ["features.bin", "keys.bin"])
def test_store_that_lost_a_file_begins_anew(tmp_path, name):
    store = store_of(tmp_path, 1, 2)
    (tmp_path / name).unlink()
    assert store.find() == {}
    store.extend([block(3)])
    assert_holds(store, 3)


def test_stopped_between_blocks_keeps_those_before(tmp_path):
    def blocks():
        yield block(1, 2)
        yield block(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feature_store(tmp_path, SHAPES).extend(blocks())
    assert_holds(feature_store(tmp_path, SHAPES), 1, 2, 3)


def test_two_stores_extend_a_folder_one_after_the_other(tmp_path):
    one, other = feature_store(tmp_path, SHAPES), feature_store(tmp_path, SHAPES)
    for number, store in enumerate([one, other, other, one]):
        with store.lock:
            store.extend([block(number)])
    assert one.find() == other.find() == {key(number): number for number in range(4)}
    assert_holds(one, 0, 1, 2, 3)


def test_features_outlive_what_is_appended_later(tmp_path):
    store = store_of(tmp_path, 1, 2)
    features = features_of(store, np.array([[1], [0]]))
    store.extend([block(3)])
    np.testing.assert_array_equal(
        features.read(np.array([0, 1]), np.array([0, 0]))[1], arrays([2, 1])[1]
    )


def test_key_that_came_twice_has_one_of_its_rows(tmp_path):
    store = store_of(tmp_path, 1, 2, 1)
    store.extend([block(2, 3)])
    assert len(store.find()) == 3
    assert_holds(store, 1, 2, 3, 1)


def test_missing_folder_is_made(tmp_path):
    store = store_of(tmp_path / "a" / "b", 1)
    assert store.folder == tmp_path / "a" / "b"
    assert_holds(store, 1)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make this folder"):
        feature_store(tmp_path / "file" / "x", SHAPES)


def test_no_row_at_all(tmp_path):
    with pytest.raises(InputError, match="every image is missing or broken"):
        features_of(feature_store(tmp_path, SHAPES), np.array([[-1, -1], [-1, -1]]))


def test_room_on_the_disk(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    asked = []

    def disk_usage(path):
        asked.append(path)
        return usage(9e12, 0, 4_400_000_000)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    store = feature_store(tmp_path / "features", SHAPES)  # 22 bytes a row
    store.check_space(200_000_000, NO_SPACE)  # 4.4 GB: just enough
    with pytest.raises(InputError) as caught:
        store.check_space(200_000_001, NO_SPACE)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'features'}: 200,000,001 more rows")
    assert "take 4.1 GiB" in message
    assert "4.1 GiB are free" in message
    assert "--cache_dir" in message
    assert set(asked) == {tmp_path / "features"}
    with pytest.raises(InputError, match=re.escape("take 20.5 GiB, and 4.1 GiB are free")):
        store.check_space(1_000_000_000, NO_SPACE)


class FullDisk:
    """A file that takes so many bytes more, and then is out of room as a real one is."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(data[: self.room])
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)


@pytest.mark.parametrize("full", ["features.bin", "blocks.bin", "keys.bin"])
@pytest.mark.parametrize("rows", [0, 0.3, 1, 1.5, 2.9])
def test_full_disk(tmp_path, monkeypatch, full, rows):
    store = store_of(tmp_path, 1, 2)
    path_open = type(tmp_path).open
    room = int(rows * (2 * WIDTH if full == "features.bin" else RECORD.itemsize))

    def opened(path, *arguments, **options):
        file = path_open(path, *arguments, **options)
        return FullDisk(file, room) if path.name == full else file

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", opened)
        with pytest.raises(InputError) as caught:
            store.extend([block(3), block(4), block(5)])
    message = str(caught.value)
    assert message == f"{tmp_path / 'features.bin'}: cannot be written (No space left on device)"
    written = [1, 2, *[3, 4][: int(rows)]]
    assert_holds(store, *written)
    store.extend([block(6)])  # once there is room again
    assert_holds(store, *written, 6)


def test_room_on_this_disk_is_enough_for_a_row(tmp_path):
    feature_store(tmp_path, ((1,),)).check_space(1, NO_SPACE)
