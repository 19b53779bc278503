"""What is given as a file and is none, is too large, or goes on without end."""

import argparse
import gzip
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deep_ranking.cli import train as train_command
from deep_ranking.config import TrainConfig
from deep_ranking.datasets import read_classes, read_partition
from deep_ranking.datasets.layout import arrange_splits, read_split_file
from deep_ranking.datasets.public import CATALOGUE, prepare
from deep_ranking.datasets.public.download import download
from deep_ranking.datasets.public.unpacking import unpack
from deep_ranking.files import InputError, open_regular, read_text_file
from deep_ranking.files import opening as files
from deep_ranking.files.content_digest import content_digest, content_digests
from deep_ranking.images import decode_image, decoding, fitting_size, open_header
from deep_ranking.reports.comparing import read_image_pairs
from deep_ranking.sampling.triplet_file import read_triplets
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.milvus import MilvusIndex
from deep_ranking.search.index.milvus_schema import NAME_FILE
from deep_ranking.training.history import read_history
from deep_ranking.training.run import train

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


def flags_of_earlier_run(path):
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    train_command.run(parser, ["--output", str(path.parent.with_suffix(".h5")), "--resume"])


def settings_of_earlier_run(path):
    (path.parent / "checkpoint.h5").touch()
    config = TrainConfig(
        triplets=path.parent / "triplets.txt", output=path.parent.with_suffix(".h5")
    )
    train(config, resume=True)


def part_of_download(path):
    url = "http://127.0.0.1:1/"  # nobody answers, but the part is looked at first
    download(url, path.with_suffix(""), sha256="0" * 64, num_bytes=10)


def name_of_milvus_collection(path):
    index = MilvusIndex.__new__(MilvusIndex)
    index._collection = SimpleNamespace(folder=path.parent)
    return index._stored_name()


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
    "x.run/config.json": flags_of_earlier_run,
    "y.run/config.json": settings_of_earlier_run,
    "archive.zip.part": part_of_download,
    NAME_FILE: name_of_milvus_collection,
}


@pytest.mark.parametrize("kind", ["fifo", "device"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_neither_waited_for_nor_read(tmp_path, name, kind):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    assert "not a regular file" in message_of(READERS[name], make(kind, tmp_path / name))


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_index_of_clusters_that_is_no_file(tmp_path, kind):
    assert "no index of kind clusters" in message_of(ClusterIndex, make(kind, tmp_path / "x.faiss"))


@pytest.mark.parametrize("read", [flags_of_earlier_run, settings_of_earlier_run])
def test_settings_of_a_run_that_are_too_large(tmp_path, read):
    path = tmp_path / "x.run" / "config.json"
    path.parent.mkdir()
    with path.open("wb") as handle:
        handle.truncate((1 << 20) + 1)
    said = message_of(read, path)
    assert "1,048,577 bytes are more than expected" in said and "--overwrite" in said


@pytest.mark.parametrize("read", [flags_of_earlier_run, settings_of_earlier_run])
@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (None, "gap", "wide"),
        (None, "gap", float("nan")),
        (None, "epochs", True),
        (None, "epochs", 2.5),
        (None, "output", []),
        (None, "shuffle", 1),
        (None, "augmentation", 3),
        (None, "network", None),
        ("network", "image_size", "32"),
        ("network", "hidden_layers", True),
        ("sampling", "strategy", {"a": 1}),
        ("augmentation", "zoom", [0.1]),
        ("augmentation", "zoom", 7.0),
    ],
)
def test_settings_of_a_run_that_are_of_another_type(tmp_path, read, part, name, value):
    path = tmp_path / "x.run" / "config.json"
    path.parent.mkdir()
    settings = json.loads(TrainConfig(output=tmp_path / "x.h5").to_json())
    (settings[part] if part else settings)[name] = value
    path.write_text(json.dumps(settings))
    said = f"{path}: not the settings of a run; start anew by --overwrite"
    assert message_of(read, path) == said


def test_record_of_a_data_set_that_is_too_large(tmp_path):
    path = tmp_path / "dataset.json"
    with path.open("wb") as handle:
        handle.truncate((1 << 20) + 1)
    said = message_of(lambda path: prepare(CATALOGUE["caltech101"], path.parent), path)
    assert "1,048,577 bytes are more than expected" in said and "--output" in said


def test_annotations_of_an_archive_that_are_too_large(tmp_path):
    for folder in ("train", "val"):
        (tmp_path / "unpacked" / folder).mkdir(parents=True)
    with (tmp_path / "unpacked/val/val_annotations.txt").open("wb") as handle:
        handle.truncate((1 << 28) + 1)
    with pytest.raises(InputError, match=r"^val/val_annotations\.txt: .*268,435,457 bytes"):
        arrange_splits(
            tmp_path / "unpacked", tmp_path, left_out=frozenset(), unseen_share=0.2, seed=0
        )


@pytest.mark.parametrize("data", [b"\xff", "text".encode("utf-16")])
def test_text_file_of_other_bytes(tmp_path, data):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    said = message_of(lambda path: read_text_file(path, hint="mend it"), path)
    assert said == f"{path}: not a text file; mend it"


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


def hashed(path):
    """Hash an image as training and indexing do."""
    (content,) = content_digests([path], open_file=decoding.open_image)
    if isinstance(content, InputError):
        raise content
    return content


@pytest.mark.parametrize("read", [lambda path: decode_image(path, 16), hashed])
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
    [
        (read_triplets, b"a,b,c"),
        (read_image_pairs, b"a,b"),
        (read_classes, b"path,label"),
    ],
)
def test_line_without_end(tmp_path, name, read, line):
    path = tmp_path / name
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "wb") as handle:
        handle.write(line + b"\n")
        for _ in range(40):
            handle.write(b"a" * 1_000_000)
    with pytest.raises(InputError, match=r"x\.txt.*:[12]: .*1,048,576 characters"):
        read(path)


def test_line_without_end_in_a_split_file(tmp_path):
    path = tmp_path / "split.csv"
    path.write_bytes(b"path,label,split\n" + b"a" * 40_000_000)
    with pytest.raises(InputError, match=r"split\.csv:2: .*1,048,576 characters"):
        split_file_of(path)


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
