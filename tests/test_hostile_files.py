"""What is given as a file and is none, is too large, or goes on without end."""

import gzip
import os

import numpy as np
import pytest
from PIL import Image

from deep_ranking.datasets import read_classes, read_partition
from deep_ranking.datasets.layout import read_split_file
from deep_ranking.datasets.public.unpacking import unpack
from deep_ranking.embedding.cached_features import content_digest
from deep_ranking.files import InputError, open_regular
from deep_ranking.files import opening as files
from deep_ranking.images import decode_image, decoding, fitting_size, open_header
from deep_ranking.reports.comparing import read_image_pairs
from deep_ranking.sampling.triplet_file import read_triplets
from deep_ranking.training.history import read_history

pytestmark = pytest.mark.usefixtures("time_limit")


def make(kind, path):
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


def message_of(read, path):
    with pytest.raises((InputError, OSError)) as caught:
        read(path)
    error = caught.value
    if isinstance(error, InputError):
        assert str(error).startswith(f"{path}")
        return str(error)
    assert error.filename == str(path)  # what `main` puts before the reason
    return error.strerror


def split_file_of(path):
    return list(read_split_file(path.parent))


def header_of(path):
    with open_header(path) as header:
        return header.size


READERS = {
    "image.png": lambda path: decode_image(path, 16),
    "header.png": header_of,
    "digest.png": content_digest,
    "triplets.txt": read_triplets,
    "triplets.txt.gz": read_triplets,
    "pairs.csv": read_image_pairs,
    "classes.csv": read_classes,
    "partition.txt": read_partition,
    "split.csv": split_file_of,
    "history.csv": read_history,
    "archive.zip": lambda path: unpack(path, path.parent, wanted=bool),
}


@pytest.mark.parametrize("kind", ["fifo", "device"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_neither_waited_for_nor_read(tmp_path, name, kind):
    assert "not a regular file" in message_of(READERS[name], make(kind, tmp_path / name))


def test_size_is_fitted_to_what_is_a_file(tmp_path):
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(tmp_path / "image.png")
    paths = [make("fifo", tmp_path / "fifo.png"), make("device", tmp_path / "device.png")]
    assert fitting_size([*paths, tmp_path / "image.png"], 224) == 96


def test_fifo_in_the_place_of_a_file_that_was_looked_at(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    path.write_text("a file\n")
    seen = path.stat()
    path.unlink()
    os.mkfifo(path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "stat", lambda _: seen)
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)


def test_refused_file_is_closed(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "x")
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads it
        os.open(tmp_path / "x", os.O_WRONLY | os.O_NONBLOCK)


@pytest.mark.parametrize("read", [lambda path: decode_image(path, 16), content_digest])
def test_file_larger_than_any_image(tmp_path, read):
    with (tmp_path / "x.png").open("wb") as handle:
        handle.truncate((1 << 30) + 1)
    assert "1,073,741,825 bytes" in message_of(read, tmp_path / "x.png")


@pytest.mark.parametrize("change", [-7, 7])
def test_image_that_changes_while_it_is_read(tmp_path, monkeypatch, change):
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(path)

    status = path.stat()

    def fstat(descriptor):
        os.truncate(path, status.st_size + change)  # once its size is known
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(decoding, "open_regular", lambda path, **_: path.open("rb"))
    assert "changed while it was read" in message_of(lambda path: decode_image(path, 16), path)


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz"])
@pytest.mark.parametrize(
    ("read", "line"),
    [(read_triplets, b"a,b,c"), (read_image_pairs, b"a,b"), (read_classes, b"path,label")],
)
def test_line_without_end(tmp_path, name, read, line):
    path = tmp_path / name
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "wb") as handle:
        handle.write(line + b"\n")
        for _ in range(40):
            handle.write(b"a" * 1_000_000)
    with pytest.raises(InputError, match=r"x\.txt.*:[12]: .*1,048,576 bytes"):
        read(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_long_files_of_short_lines_have_no_bound(tmp_path, end):
    path = tmp_path / "x.txt"
    path.write_bytes(f"a,b,{'c' * 300}{end}".encode() * 20_000)
    assert len(read_triplets(path)) == 20_000


def test_partition_list_with_a_count_that_no_list_has(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("9" * 5_000 + "\nimage_name item_id evaluation_status\n")
    with pytest.raises(InputError, match=r"list\.txt:1: "):
        read_partition(path)


def test_partition_list_with_a_zero_in_a_path(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"1\nimage_name item_id evaluation_status\na/\0.png x train\n")
    with pytest.raises(InputError, match=r"list\.txt:3: not a text file"):
        read_partition(path)


def test_errors_hold_nothing_that_a_terminal_obeys():
    name = "a\x1b]0;title\x07\x0b\x0c\x1c\x85\u2028\u2029\r\nä\udcff.png"
    message = str(InputError(f"{name}: broken"))
    assert message == (r"a\x1b]0;title\x07\x0b\x0c\x1c\x85\u2028\u2029\r\nä" + "\udcff.png: broken")


def test_partition_list_whose_count_has_an_odd_blank_behind_it(tmp_path):
    path = tmp_path / "list.txt"
    (tmp_path / "a.png").touch()
    path.write_bytes(b"1\x1d\nimage_name item_id evaluation_status\na.png x train\n")
    assert read_partition(path).paths == ["a.png"]
