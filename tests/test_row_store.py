import hashlib
import re
import shutil
import struct
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from deep_ranking.files import InputError, row_store, stored_rows
from deep_ranking.files.row_store import RowStore

WIDTH = 3
RECORD_BYTES = 40  # a key of 32 bytes, and a count of 8
BLOCK_BYTES = 40  # a count of 8 bytes, and a checksum of 32


def key(number):
    """A digest that ends in zero bytes, as one may."""
    return bytes([number, 255, 0, number]) + bytes(28)


def values(number):
    return np.array([number, number + 0.5, -number], np.float32)


def block(*numbers):
    rows = np.array([values(number) for number in numbers], np.float32).reshape(-1, WIDTH)
    return [key(number) for number in numbers], rows


def assert_holds(store, *numbers):
    assert len(store) == len(numbers)
    assert store.keys() == [key(number) for number in numbers]
    assert store.find() == {key(number): row for row, number in enumerate(numbers)}
    rows = store.rows()
    assert rows.shape == (len(numbers), WIDTH)
    assert rows.dtype == store.dtype
    np.testing.assert_array_equal(rows, block(*numbers)[1])


def open_store(folder, dtype=np.float32):
    return RowStore(folder, "vectors", WIDTH, dtype)


@pytest.mark.parametrize(("dtype", "letter"), [(np.float32, "f"), (np.float16, "e")])
def test_files_are_rows_and_records(tmp_path, dtype, letter):
    store = open_store(tmp_path, dtype)
    assert_holds(store)
    store.extend([block(7, 1), block(3)])
    store.extend([block(9)])
    assert_holds(store, 7, 1, 3, 9)
    assert_holds(open_store(tmp_path, dtype), 7, 1, 3, 9)
    rows = b"".join(
        struct.pack(f"<3{letter}", number, number + 0.5, -number) for number in (7, 1, 3, 9)
    )
    assert (tmp_path / "vectors.bin").read_bytes() == rows
    records = [(7, 2), (1, 2), (3, 3), (9, 4)]  # the key, and the rows at the end of its block
    packed = [key(number) + struct.pack("<Q", end) for number, end in records]
    assert (tmp_path / "keys.bin").read_bytes() == b"".join(packed)
    row_bytes = store.row_bytes
    checksums = [
        struct.pack("<Q", end)
        + hashlib.sha256(
            b"".join(packed[begin:end]) + rows[begin * row_bytes : end * row_bytes]
        ).digest()
        for begin, end in ((0, 2), (2, 3), (3, 4))
    ]
    assert (tmp_path / "blocks.bin").read_bytes() == b"".join(checksums)


def test_rows_are_mapped_and_not_to_be_written(tmp_path):
    store = open_store(tmp_path)
    store.extend([block(1, 2)])
    rows = store.rows()
    block_of_rows = rows[0:2]
    assert isinstance(block_of_rows, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        block_of_rows[0, 0] = 1


def test_a_key_that_came_twice_has_its_last_row(tmp_path):
    store = open_store(tmp_path)
    store.extend([block(1, 2), block(1)])
    assert store.find() == {key(1): 2, key(2): 1}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_the_type_cannot_hold_is_clipped_and_nan_is_kept(tmp_path, dtype):
    store = open_store(tmp_path, dtype)
    store.extend(
        [
            ([key(1)], np.array([[np.nan, np.nan, np.nan]], np.float32)),
            ([key(2)], np.array([[np.inf, -np.inf, 1e5]])),
            ([key(3)], np.array([[1e39, -1e39, 0]])),
        ]
    )
    largest = {np.float32: 3.4028234663852886e38, np.float16: 65504.0}[dtype]
    most = {np.float32: 1e5, np.float16: 65504.0}[dtype]
    assert np.isnan(store.rows()[0]).all()
    np.testing.assert_array_equal(store.rows()[1], np.array([largest, -largest, most], dtype))
    np.testing.assert_array_equal(store.rows()[2], np.array([largest, -largest, 0], dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", ["vectors.bin", "keys.bin"])
def test_blocks_are_whole_or_absent_wherever_a_file_ends(tmp_path, name, dtype):
    whole = tmp_path / "whole"
    blocks = [(1, 2), (3,), (), (4, 5, 6)]
    open_store(whole, dtype).extend([block(*numbers) for numbers in blocks])
    content = (whole / name).read_bytes()
    unit = RECORD_BYTES if name == "keys.bin" else WIDTH * np.dtype(dtype).itemsize
    assert len(content) == 6 * unit
    folder = tmp_path / "cut"
    needed = {1: 2, 2: 2, 3: 3, 4: 6, 5: 6, 6: 6}  # rows up to the end of the block of each
    for size in range(len(content) + 1):
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(content[:size])
        left = [number for number, rows in needed.items() if size >= rows * unit]
        assert_holds(open_store(folder, dtype), *left)
        if size % unit in (0, 1):
            open_store(folder, dtype).extend([block(8, 9)])
            assert_holds(open_store(folder, dtype), *left, 8, 9)
            count = len(left) + 2
            sizes = [(folder / each).stat().st_size for each in ("vectors.bin", "keys.bin")]
            assert sizes == [count * WIDTH * np.dtype(dtype).itemsize, count * RECORD_BYTES]
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["vectors.bin", "keys.bin"])
def test_a_torn_end_that_is_longer_is_cut_off(tmp_path, name):
    store = open_store(tmp_path)
    store.extend([block(1, 2)])
    with (tmp_path / name).open("ab") as file:
        file.write(bytes(100))
    assert_holds(store, 1, 2)
    store.extend([block(3)])
    assert_holds(store, 1, 2, 3)


@pytest.mark.parametrize("blocks", [[], [(1, 2), (3,)]])
def test_zeros_that_a_power_cut_left_are_cut_off(tmp_path, blocks):
    store = open_store(tmp_path)
    store.extend([block(*numbers) for numbers in blocks])
    for name in ("vectors.bin", "keys.bin", "blocks.bin"):
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(1000))
    held = [number for numbers in blocks for number in numbers]
    assert_holds(store, *held)
    store.extend([block(4)])
    assert_holds(store, *held, 4)
    assert (tmp_path / "blocks.bin").stat().st_size == BLOCK_BYTES * (len(blocks) + 1)


def test_a_block_that_cannot_be_computed_leaves_those_before(tmp_path):
    def blocks():
        yield block(1, 2)
        raise KeyboardInterrupt

    store = open_store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.extend(blocks())
    assert_holds(store, 1, 2)


def flip(file, byte, bit=0):
    content = bytearray(file.read_bytes())
    content[byte] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["vectors.bin", "keys.bin"])
def test_a_flipped_bit_is_named_when_its_block_is_read(tmp_path, name):
    whole = tmp_path / "whole"
    open_store(whole).extend([block(1, 2), block(3, 4), block(5)])
    content = (whole / name).read_bytes()
    unit = len(content) // 5
    for byte in range(2 * unit, 4 * unit):  # of the block in the middle
        folder = tmp_path / "flipped"
        shutil.copytree(whole, folder)
        flip(folder / name, byte, byte % 8)
        rows = open_store(folder).rows()
        np.testing.assert_array_equal(rows[[0, 1, 4]], block(1, 2, 5)[1])
        for index in (2, 3, -2, slice(1, 3), np.array([0, 3]), (3, 0), np.arange(5) == 2):
            said = f"{folder / 'vectors.bin'}: damaged: rows 2 to 3 are not what was written"
            with pytest.raises(InputError, match=re.escape(said)):
                rows[index]
        assert rows.damaged().tolist() == [2, 3]
        shutil.rmtree(folder)


def test_a_flipped_checksum_is_found_too(tmp_path):
    store = open_store(tmp_path)
    store.extend([block(1, 2), block(3)])
    flip(tmp_path / "blocks.bin", 8)  # the first byte of the first checksum
    np.testing.assert_array_equal(store.rows()[2], values(3))
    with pytest.raises(InputError, match="rows 0 to 1 are not what was written"):
        store.rows()[1]


def test_blocks_out_of_order_are_damage(tmp_path):
    store = open_store(tmp_path)
    store.extend([block(1, 2), block(3), block(4)])
    flip(tmp_path / "blocks.bin", 0, 3)  # its end: 10 instead of 2
    for use in (store.rows, lambda: store.extend([block(5)])):
        with pytest.raises(InputError, match="not in order; remove this file, and the next rows"):
            use()
    (tmp_path / "blocks.bin").unlink()  # the remedy
    assert_holds(store, 1, 2, 3, 4)
    store.extend([block(5)])
    assert_holds(store, 1, 2, 3, 4, 5)
    flip(tmp_path / "vectors.bin", 0)
    assert store.rows().damaged().tolist() == [0, 1]


def test_keys_of_which_none_ends_a_block_are_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(row_store, "MAX_TORN_ROWS", 2)
    store = open_store(tmp_path)
    store.extend([block(1, 2), block(3, 4)])
    flip(tmp_path / "keys.bin", 3 * RECORD_BYTES + 32)  # the end of the last row
    for use in (store.rows, lambda: store.extend([block(5)])):
        with pytest.raises(InputError, match="ends a block; remove this file to compute all"):
            use()
    (tmp_path / "keys.bin").unlink()  # the remedy
    store.extend([block(5)])
    assert_holds(store, 5)


def test_a_store_without_checksums_gets_them_when_it_grows(tmp_path):
    store = open_store(tmp_path)
    store.extend([block(1, 2), block(3)])
    checksums = (tmp_path / "blocks.bin").read_bytes()
    (tmp_path / "blocks.bin").unlink()  # as earlier versions leave it
    assert_holds(store, 1, 2, 3)
    store.extend([block(4)])
    assert (tmp_path / "blocks.bin").read_bytes()[: len(checksums)] == checksums
    assert_holds(store, 1, 2, 3, 4)
    flip(tmp_path / "vectors.bin", 0)
    with pytest.raises(InputError, match="rows 0 to 1"):
        store.rows()[0]


@pytest.mark.parametrize("row", range(4))
def test_a_flipped_end_does_not_keep_a_store_without_checksums_from_growing(tmp_path, row):
    store = open_store(tmp_path)
    store.extend([block(1, 2), block(3, 4), block(5)])
    (tmp_path / "blocks.bin").unlink()  # as earlier versions leave it
    flip(tmp_path / "keys.bin", row * RECORD_BYTES + 32, 6)
    store.extend([block(6)])
    assert_holds(store, 1, 2, 3, 4, 5, 6)
    flip(tmp_path / "vectors.bin", row * store.row_bytes)
    damaged = {0: [0, 1], 1: [0, 1, 2, 3], 2: [2, 3], 3: [2, 3, 4]}  # a lost end joins two blocks
    assert store.rows().damaged().tolist() == damaged[row]


def test_a_checksum_without_keys_is_of_a_block_that_was_never_finished(tmp_path):
    store = open_store(tmp_path)
    store.extend([block(1, 2), block(3, 4)])
    keys = tmp_path / "keys.bin"
    keys.write_bytes(keys.read_bytes()[: 2 * RECORD_BYTES])
    assert_holds(store, 1, 2)
    store.extend([block(5)])
    assert_holds(store, 1, 2, 5)
    assert len((tmp_path / "blocks.bin").read_bytes()) == 2 * RECORD_BYTES


def test_rows_are_checked_once(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.extend([block(1, 2), block(3)])
    rows, hashed = store.rows(), []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data: hashed.append(1) or sha256(data))
    for _ in range(3):
        assert len(rows[0:3]) == 3
    assert len(hashed) == 2


def resident(file):
    """Bytes of a mapped file in the memory of this process, as Linux counts them."""
    sizes, is_of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-", line):
            is_of_file = line.endswith(str(file))
        elif is_of_file and line.startswith("Rss:"):
            sizes += int(line.split()[1]) * 1024
    return sizes


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is resident")
def test_rows_of_a_large_store_leave_the_memory_once_they_are_read(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.extend([block(*range(200)) for _ in range(200)])
    rows = store.rows()
    files = [tmp_path / "vectors.bin", tmp_path / "keys.bin"]
    wanted = np.random.default_rng(0).permutation(len(rows))[:100]
    np.testing.assert_array_equal(rows[wanted][:, 0], wanted % 200)
    assert all(resident(file) for file in files)
    monkeypatch.setattr(stored_rows, "LARGE_BYTES", 1)
    np.testing.assert_array_equal(rows[wanted][:, 0], wanted % 200)
    assert [resident(file) for file in files] == [0, 0]
    np.testing.assert_array_equal(rows[10_000:20_000][:, 0], np.arange(10_000) % 200)
    assert all(resident(file) for file in files[:1])
    rows.release(0, 40_000)
    assert resident(files[0]) == 0


def test_room_on_the_disk(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9e12, 0, 6_000_000_000))
    store = open_store(tmp_path, np.float16)
    assert store.row_bytes == 6
    assert open_store(tmp_path).row_bytes == 12
    store.check_space(1_000_000_000, "buy a disk")
    said = f"{tmp_path}: 1,000,000,001 more rows take 5.6 GiB, and 5.6 GiB are free; buy a disk"
    with pytest.raises(InputError, match=re.escape(said)):
        store.check_space(1_000_000_001, "buy a disk")


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make this folder"):
        open_store(tmp_path / "file" / "x")
