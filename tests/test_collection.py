import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from collections_of import make_model, make_table_old
from PIL import Image

from deep_ranking.config import FolderConfig
from deep_ranking.files import InputError, content_digest, open_regular
from deep_ranking.files.content_digest import file_status
from deep_ranking.images import decoding, read_image
from deep_ranking.model.calibration import Calibration
from deep_ranking.search.collection import (
    Collection,
    GalleryImage,
    Settings,
    fitting_batch_size,
    locked,
    own_files,
    sync,
    syncing,
)
from deep_ranking.search.collection.image_table import ImageTable
from deep_ranking.search.collection.merging import merge
from deep_ranking.search.collection.settings import VERSION
from deep_ranking.search.indexing import writable_collection

SIZE, DIMENSION, BATCH = 32, 6, 4
MIX = np.random.default_rng(5).normal(size=(48, DIMENSION))


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.NEAREST).save(path, "PNG")


class Network:
    """An engine that embeds by the colours of an image."""

    image_size, dimension, batch_size, num_threads = SIZE, DIMENSION, BATCH, 0
    name = key = "colours"

    def __init__(self):
        self.num_loaded = self.num_seen = 0
        self.batches = []

    def load(self, paths):
        assert paths
        self.num_loaded += 1
        return self

    def embed(self, images):
        assert images.shape[1:] == (SIZE, SIZE, 3) and images.dtype == np.uint8
        self.batches.append([hashlib.sha256(image).digest() for image in images])
        self.num_seen += int(images.any((1, 2, 3)).sum())
        return embedding_of(images)


def embedding_of(images):
    pooled = np.asarray(images, np.float64).reshape(-1, 4, 8, 4, 8, 3).mean((2, 4))
    rows = (pooled.reshape(-1, 48) / 255 - 0.5) @ MIX
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def settings_for(root, **changes):
    values = {
        "fingerprint": "0123456789abcdef" * 2,
        "dimension": DIMENSION,
        "image_size": SIZE,
        "dtype": "float32",
        "batch_size": BATCH,
        "root": str(root),
    }
    return Settings(**values | changes)


def collection_of(folder, root, **changes):
    model = make_model(folder.parent / f"{folder.name}.h5")
    return Collection.make(folder, settings_for(root, **changes), model)


@pytest.fixture
def root(tmp_path):
    """Nine images of eight contents, in folders and not."""
    root = tmp_path / "photos"
    for seed, path in enumerate(
        ("loose.png", "cat/1.png", "cat/2.png", "cat/in/3.png", "dog/1.png", "dog/2.png")
    ):
        draw(root / path, seed)
    shutil.copy(root / "cat/1.png", root / "dog/copy.png")
    draw(root / os.fsdecode(b"z\xff'\"/\xe9 \xc3\xa9.png"), 10)
    draw(root / "Ünï/日本 %;.png", 11)
    return root


@pytest.fixture
def collection(tmp_path, root):
    return collection_of(tmp_path / "index", root)


def synced(collection, network=None, **options):
    """Sync; the network saw the images that are reported as embedded, and no others."""
    network = network or Network()
    report = sync(collection, network.load, **options)
    assert network.num_seen == report.num_embedded
    assert network.num_loaded <= 1
    return report


def listed(root):
    """All images of a folder, by plain means."""
    return {str(path.relative_to(root)) for path in Path(root).rglob("*.png") if path.is_file()}


def assert_right(collection, root, broken=()):
    """Each image of the folder has its class, its content, and the embedding of its pixels."""
    with contextlib.closing(sqlite3.connect(collection.folder / "images.sqlite")) as base:
        table = base.execute("SELECT path, class, content, row, problem FROM images").fetchall()
    assert {os.fsdecode(path) for path, *_ in table} == listed(root)
    embeddings = np.fromfile(collection.folder / "embeddings.bin", np.float32)
    embeddings = embeddings.reshape(-1, DIMENSION)
    for path_bytes, label, content, row, problem in table:
        path = os.fsdecode(path_bytes)
        assert os.fsdecode(label) == (path.split("/")[0] if "/" in path else "")
        assert content == hashlib.sha256((root / path).read_bytes()).digest()
        assert (row is None) == (problem is not None) == (path in broken)
        if row is not None:
            wanted = embedding_of(read_image(root / path, SIZE)[None])[0]
            np.testing.assert_allclose(embeddings[row], wanted, atol=1e-3)


def set_time(path, seconds):
    os.utime(path, (seconds, seconds))


def test_first_sync_embeds_each_content_once(collection, root):
    report = synced(collection)
    assert report.num_images == 9
    assert report.num_embedded == 8
    assert (report.num_known, report.num_removed, report.broken) == (0, 0, [])
    assert_right(collection, root)
    assert collection.rows().tolist() == list(range(8))
    np.testing.assert_array_equal(
        collection.embeddings(),
        np.fromfile(collection.folder / "embeddings.bin", np.float32).reshape(8, DIMENSION),
    )


def test_nothing_to_do_loads_no_model(collection, root):
    synced(collection)
    files = {
        name: (collection.folder / name).read_bytes()
        for name in ("embeddings.bin", "keys.bin", "blocks.bin")
    }

    def load(paths):
        raise AssertionError("the model was loaded")

    report = sync(collection, load)
    assert (report.num_images, report.num_embedded, report.num_known, report.num_removed) == (
        9,
        0,
        0,
        0,
    )
    assert sync(collection, load, checksum=True).num_known == 0
    for name, content in files.items():
        assert (collection.folder / name).read_bytes() == content


def test_only_what_is_new_or_changed_is_embedded(collection, root):
    synced(collection)
    draw(root / "cat/new.png", 20)
    draw(root / "cat/2.png", 21)  # edited
    (root / "dog/1.png").unlink()
    (root / "dog/2.png").rename(root / "bird.png")  # renamed, and of no class now
    (root / "cat/in/3.png").rename(root / "dog/3.png")  # of another class
    shutil.copy(root / "loose.png", root / "cat/copy.png")
    set_time(root / "cat/1.png", 1_000_000)  # touched
    report = synced(collection)
    assert report.num_embedded == 2
    assert report.num_known == 4
    assert report.num_removed == 3
    assert report.num_images == 10
    assert_right(collection, root)


def test_images_that_change_places_or_come_back_are_not_embedded(collection, root):
    synced(collection)
    one, other, third = root / "cat/1.png", root / "cat/2.png", root / "dog/1.png"
    (root / "dog/copy.png").unlink()
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    set_time(one, 5)
    set_time(other, 5)
    old = third.read_bytes()
    third.unlink()
    assert synced(collection).num_embedded == 0
    assert_right(collection, root)
    third.write_bytes(old)
    report = synced(collection)
    assert (report.num_embedded, report.num_known, report.num_images) == (0, 1, 8)
    assert_right(collection, root)


def test_an_edit_that_keeps_all_that_a_file_system_tells_is_found_by_checksum(collection, root):
    synced(collection)
    image = root / "loose.png"
    draw(image, 30)
    with contextlib.closing(sqlite3.connect(collection.folder / "images.sqlite")) as base:
        status = file_status(image.stat())
        base.execute(
            "UPDATE images SET size = ?, changed = ?, inode = ?, inode_changed = ? WHERE path = ?",
            (*status, b"loose.png"),
        )
        base.commit()
    assert synced(collection).num_embedded == 0
    report = synced(collection, checksum=True)
    assert (report.num_embedded, report.num_known) == (1, 0)
    assert_right(collection, root)


def test_new_permissions_are_hashed_again_and_not_embedded(collection, root):
    synced(collection)
    (root / "loose.png").chmod(0o600)
    os.link(root / "cat/1.png", root.parent / "link")
    report = synced(collection)
    assert (report.num_embedded, report.num_known, report.num_images) == (0, 2, 9)
    assert synced(collection).num_known == 0


def as_of_an_earlier_version(folder, version):
    """Turn an index into one that an earlier version made."""
    values = json.loads((folder / "collection.json").read_text()) | {"version": version}
    del values["precision"]
    if version <= 2:
        make_table_old(folder / "images.sqlite")
        del values["smoothing"]
    if version == 1:
        del values["folders"]
    (folder / "collection.json").write_text(json.dumps(values))


@pytest.mark.parametrize("version", [1, 2, 4])
def test_an_index_of_an_earlier_version_is_read_and_brought_up_to_date(collection, root, version):
    synced(collection)
    as_of_an_earlier_version(collection.folder, version)
    before = {each.name: each.read_bytes() for each in collection.folder.iterdir()}
    old = Collection.open(collection.folder)
    assert old.settings.version == version and old.settings.precision == "float32"
    assert old.rows().tolist() == list(range(8))
    assert {each.name: each.read_bytes() for each in collection.folder.iterdir()} == before
    replace_unseen(root / "cat/2.png", 60)  # what an earlier version would not see
    with writable_collection(collection.folder) as opened:
        report = synced(opened)
    # The tables of versions 1 and 2 do not tell inodes, so all files are hashed again.
    assert (report.num_embedded, report.num_known) == (1, 8 if version <= 2 else 0)
    assert_right(opened, root)
    again = Collection.open(collection.folder)
    assert again.settings.version == VERSION
    assert synced(again).num_known == 0


def test_syncing_in_steps_equals_syncing_at_once(collection, root, tmp_path):
    for path in ("cat/9.png", "dog/9.png", "0.png"):
        synced(collection)
        draw(root / path, len(path))
    synced(collection)
    fresh = collection_of(tmp_path / "fresh", root)
    synced(fresh)

    def by_path(each):
        embeddings = each.embeddings()
        with contextlib.closing(each.images()) as images:
            return {image.path: (image.label, *embeddings[image.row]) for image in images.images()}

    steps, once = by_path(collection), by_path(fresh)
    assert steps.keys() == once.keys()
    for path, (label, *row) in steps.items():
        assert label == once[path][0]
        np.testing.assert_allclose(row, once[path][1:], atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_type_of_the_embeddings(tmp_path, root, dtype):
    collection = collection_of(tmp_path / "index", root, dtype=dtype)
    synced(collection)
    assert collection.embeddings().dtype == dtype
    size = (collection.folder / "embeddings.bin").stat().st_size
    assert size == 8 * DIMENSION * np.dtype(dtype).itemsize
    np.testing.assert_allclose(np.linalg.norm(collection.embeddings(), axis=1), 1, atol=2e-3)


def counting(monkeypatch):
    """Paths that are decoded to say what is wrong with them, or to try them again."""
    seen, decode = [], syncing.decode_image

    def decoded(path, size):
        seen.append(path.name)
        return decode(path, size)

    monkeypatch.setattr(syncing, "decode_image", decoded)
    return seen


def test_broken_images_are_told_and_tried_again_only_when_changed(collection, root, monkeypatch):
    bad, cut = root / "cat/1a.png", root / "dog/cut.png"
    bad.write_text("no image")
    cut.write_bytes((root / "loose.png").read_bytes()[:60])
    report = synced(collection)
    assert (report.num_images, report.num_embedded) == (9, 8)
    assert [path for path, _ in report.broken] == ["cat/1a.png", "dog/cut.png"]
    assert report.broken[0][1] == "not an image that can be read"
    assert "broken image" in report.broken[1][1]
    assert not any(str(root) in problem for _, problem in report.broken)
    assert_right(collection, root, {"cat/1a.png", "dog/cut.png"})
    tried = counting(monkeypatch)
    again = synced(collection)
    assert tried == []
    assert again.broken == report.broken
    set_time(cut, 10)  # touched: looked at, without the network
    assert synced(collection).broken == report.broken
    assert tried == ["cut.png"]
    draw(bad, 40)
    report = synced(collection)
    assert report.num_embedded == 1
    assert [path for path, _ in report.broken] == ["dog/cut.png"]
    bad.rename(root / "moved.png")
    cut.rename(root / "cat/moved cut.png")
    report = synced(collection)
    assert report.num_embedded == 0
    assert [path for path, _ in report.broken] == ["cat/moved cut.png"]
    (root / "cat/moved cut.png").unlink()
    assert synced(collection).broken == []
    assert_right(collection, root)


def test_an_image_that_was_away_when_it_was_to_be_embedded_is_embedded_later(collection, root):
    image, network = root / "cat/2.png", Network()
    data, seconds = image.read_bytes(), image.stat().st_mtime

    def load(paths):
        image.unlink()  # after it was hashed
        return network

    report = sync(collection, load)
    assert report.num_embedded == 7
    assert [path for path, _ in report.broken] == ["cat/2.png"]
    assert synced(collection).broken == []  # it is gone
    image.write_bytes(data)
    set_time(image, seconds)
    report = synced(collection)
    assert report.num_embedded == 1
    assert report.broken == []
    assert_right(collection, root)


def test_what_is_no_file_does_not_stop_a_sync(collection, root, monkeypatch):
    os.mkfifo(root / "cat/pipe.png")
    (root / "cat/dangling.png").symlink_to("nowhere")
    (root / "cat/device.png").symlink_to("/dev/zero")
    draw(root / "folder.png/inner.png", 50)
    with socket.socket(socket.AF_UNIX) as unix:
        monkeypatch.chdir(root)  # a socket's path must be short
        unix.bind("cat/socket.png")

    def opened(path, **options):
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied")
        return open_regular(path, **options)

    draw(root / "dog/locked.png", 51)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "open_regular", opened)
        for _ in range(2):
            report = synced(collection)
            assert report.num_images == 10
            assert dict(report.broken) == {
                "cat/dangling.png": "no such image",
                "cat/device.png": "cannot be read (not a regular file)",
                "cat/pipe.png": "cannot be read (not a regular file)",
                "cat/socket.png": "cannot be read (not a regular file)",
                "dog/locked.png": "cannot be read (Permission denied)",
            }
    for name in ("dangling", "device", "pipe", "socket"):
        (root / f"cat/{name}.png").unlink()
    report = synced(collection)  # what can be read now is tried again
    assert (report.num_embedded, report.broken) == (1, [])
    assert_right(collection, root)


def test_an_image_that_can_no_longer_be_read_is_not_found(collection, root):
    synced(collection)
    image = root / "loose.png"
    image.unlink()
    os.mkfifo(image)
    report = synced(collection)
    assert report.num_images == 8
    assert [path for path, _ in report.broken] == ["loose.png"]


def test_names_with_line_breaks_are_counted(collection, root):
    draw(root / "a\nb.png", 60)
    report = synced(collection)
    assert "1 image left out: a line break in the path" in " ".join(report.lines)
    assert report.num_images == 9


def test_folder_of_images_that_is_gone_or_empty(collection, root, tmp_path):
    synced(collection)
    before = collection.rows().tolist()
    moved = tmp_path / "moved"
    root.rename(moved)
    with pytest.raises(InputError, match="no such folder"):
        synced(collection)
    root.mkdir()
    with pytest.raises(InputError, match="no image in it"):
        synced(collection)
    assert collection.rows().tolist() == before
    collection.change(root=str(moved))  # and what moved as a whole is known
    assert synced(collection).num_embedded == 0
    assert_right(Collection.open(collection.folder), moved)


def test_shards_are_disjoint_and_together_all(tmp_path, root):
    for seed in range(70, 90):
        draw(root / f"more/{seed}.png", seed)
    (root / "bad.png").write_text("no image")
    parts, found, embedded, broken = 3, [], 0, []
    for number in range(1, parts + 1):
        part = collection_of(tmp_path / f"part {number}", root, shard=(number, parts))
        report = synced(part)
        assert report.num_known == 0
        embedded += report.num_embedded
        broken += [path for path, _ in report.broken]
        with contextlib.closing(part.images()) as images:
            paths = [image.path for image in images.images()]
        assert report.num_images == len(paths)
        for path in paths:
            digest = hashlib.sha256((root / path).read_bytes()).digest()
            assert int(digest[:8].hex(), 16) % parts == number - 1
        found += paths
        assert synced(part).num_embedded == 0
    assert sorted(found) == sorted(listed(root) - {"bad.png"})
    assert embedded == 28
    assert broken == ["bad.png"]


def test_lost_embeddings_are_told_and_embedded_again(collection, root):
    synced(collection)
    for name, left in (("embeddings.bin", 0.6), ("keys.bin", 0.4), ("embeddings.bin", 0)):
        file = collection.folder / name
        data = file.read_bytes()
        file.write_bytes(data[: int(left * len(data))])
        with pytest.raises(InputError, match="cut off or missing") as caught:
            collection.embeddings()
        assert str(caught.value).startswith(f"{collection.folder}: ")
        report = synced(collection)
        assert 0 < report.num_embedded <= 8
        assert report.num_images == 9
        assert_right(collection, root)
    (collection.folder / "keys.bin").unlink()
    assert synced(collection).num_embedded == 8
    assert_right(collection, root)


def test_a_full_disk_is_told_before_the_work(collection, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 100))

    def load(paths):
        raise AssertionError("the model was loaded")

    with pytest.raises(InputError, match=re.escape("8 more rows take")) as caught:
        sync(collection, load)
    assert "--dtype float16" in str(caught.value)


@pytest.mark.parametrize("stopped_at", range(4))
def test_stopped_between_batches_goes_on_with_the_same_batches(
    tmp_path, root, monkeypatch, stopped_at
):
    (root / "cat/15.png").write_text("no image")  # in the middle of a batch
    undisturbed, wanted, later = collection_of(tmp_path / "undisturbed", root), Network(), Network()
    synced(undisturbed, wanted)

    class Stopped(Network):
        def embed(self, images):
            if len(self.batches) == stopped_at:
                raise KeyboardInterrupt
            return super().embed(images)

    collection = collection_of(tmp_path / "index", root)
    network = Stopped()
    if stopped_at < 3:  # 9 contents are 3 batches
        with pytest.raises(KeyboardInterrupt):
            sync(collection, network.load)
    report = synced(collection, later)
    assert report.num_embedded + network.num_seen == 8
    assert report.num_known == 0
    assert network.batches + later.batches == wanted.batches
    assert [len(batch) for batch in wanted.batches] == [4, 4, 1]
    for name in ("embeddings.bin", "keys.bin", "blocks.bin"):
        expected = (undisturbed.folder / name).read_bytes()
        assert (collection.folder / name).read_bytes() == expected
    assert_right(collection, root, {"cat/15.png"})


@pytest.mark.slow
@pytest.mark.parametrize("start", ["empty", "synced before"])
def test_killed_at_any_instant_the_next_sync_completes(tmp_path, root, collection, start):
    (root / "cat/15.png").write_text("no image")
    (root / "dog/15.png").write_bytes((root / "loose.png").read_bytes()[:60])
    for seed in range(100, 104):
        draw(root / f"more/{seed}.png", seed)
    if start == "synced before":
        synced(collection)
        for seed in range(200, 206):
            draw(root / f"new/{seed}.png", seed)
        draw(root / "loose.png", 206)
        (root / "cat/1.png").unlink()
        (root / "cat/2.png").rename(root / "cat/renamed.png")
        (root / "new/2035.png").write_text("broken too")
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("killed_syncs.py"),
            collection.folder,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["killed"] >= 20
    assert found["rows"] == (14 if start == "empty" else 22)


def test_making_and_opening(tmp_path, root):
    collection = collection_of(tmp_path / "index", root, shard=(2, 3), index={"kind": "clusters"})
    opened = Collection.open(str(tmp_path / "index"))
    assert opened.settings == collection.settings
    assert opened.settings.shard == (2, 3)
    assert opened.model.read_bytes() == (tmp_path / "index.h5").read_bytes()
    assert opened.embeddings().shape == (0, DIMENSION)
    assert opened.rows().tolist() == []
    opened.change(index={"kind": "exact"})
    assert Collection.open(tmp_path / "index").settings == opened.settings
    assert opened.settings == replace(collection.settings, index={"kind": "exact"})


def test_root_of_odd_bytes(tmp_path):
    root = tmp_path / os.fsdecode(b"\xff\n ")
    draw(root / "a/1.png", 1)
    (root / "bad.png").write_text("no image")
    collection = collection_of(tmp_path / "index", root)
    report = synced(collection)
    assert (report.num_images, len(report.broken)) == (1, 1)
    assert Collection.open(tmp_path / "index").settings.root == str(root)


def test_folder_with_other_files_is_refused(tmp_path, root):
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files, such as notes\.txt"):
        collection_of(folder, root)
    assert [each.name for each in folder.iterdir()] == ["notes.txt"]


def test_a_folder_whose_making_was_stopped_is_made(tmp_path, root, monkeypatch):
    folder = tmp_path / "index"
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "change", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            collection_of(folder, root)
    (folder / ".writing-left.json").write_text("{")
    with pytest.raises(InputError, match="no index here"):
        Collection.open(folder)
    with locked(folder):
        collection = collection_of(folder, root)
        assert synced(collection).num_images == 9


@pytest.mark.parametrize("name", ["collection.json", "model.h5", "images.sqlite"])
def test_missing_files_are_told(collection, name):
    (collection.folder / name).unlink()
    with pytest.raises(InputError) as caught:
        Collection.open(collection.folder)
    assert str(collection.folder) in str(caught.value)
    assert ("no index here" if name == "collection.json" else name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vanishing", ["collection.json", ""])
def test_an_index_that_vanishes_while_it_is_opened_is_told(collection, monkeypatch, vanishing):
    check = own_files.check_own_files

    def vanish(path):
        if vanishing:
            (path / vanishing).unlink()
        else:
            path.rename(path.with_name("moved"))
        check(path)

    monkeypatch.setattr("deep_ranking.search.collection.folder.check_own_files", vanish)
    with pytest.raises(InputError, match="no index here; make one with"):
        Collection.open(collection.folder)


def test_a_journal_that_vanishes_while_files_are_listed_is_no_fault(collection, monkeypatch):
    journal = collection.folder / "images.sqlite-journal"
    listed = [*collection.folder.iterdir(), journal]
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(listed))
    Collection.open(collection.folder)


def test_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for name, reason in (("missing", "no index here; make one with"), ("file", "lists of shards")):
        with pytest.raises(InputError, match=reason):
            Collection.open(tmp_path / name)


def changed_json(text, **changes):
    return json.dumps(json.loads(text) | changes)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1]",
        lambda text: "null",
        lambda text: "[" * 100_000,
        lambda text: "\0",
        lambda text: json.dumps({"version": 1}),
        lambda text: text.replace("dimension", "dimensions"),
        lambda text: changed_json(text, dimension="6"),
        lambda text: changed_json(text, dimension=0),
        lambda text: changed_json(text, image_size=None),
        lambda text: changed_json(text, batch_size=-4),
        lambda text: changed_json(text, dtype="float64"),
        lambda text: changed_json(text, dtype=["float32"]),
        lambda text: changed_json(text, root=5),
        lambda text: changed_json(text, fingerprint=None),
        lambda text: changed_json(text, shard=[1]),
        lambda text: changed_json(text, shard=[3, 2]),
        lambda text: changed_json(text, shard="1/2"),
        lambda text: changed_json(text, index="exact"),
        lambda text: changed_json(text, index={"kind": 3}),
        lambda text: changed_json(text, index={}),
        lambda text: changed_json(text, version="one"),
        lambda text: changed_json(text, version=float("inf")),
        lambda text: changed_json(text, version=float("nan")),
        lambda text: changed_json(text, version=None),
        *(
            lambda text, sizes=sizes: changed_json(text, hits_sizes=sizes)
            for sizes in ({}, "", 2, [2, "1"], [2, None], [2, True])
        ),
        lambda text: changed_json(text, hits_behind="1"),
    ],
)
def test_damaged_settings_are_refused_in_one_line(collection, damage):
    file = collection.folder / "collection.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(InputError) as caught:
        Collection.open(collection.folder)
    assert str(caught.value) == f"{file}: not what `index` wrote; index the images anew"


def test_settings_that_are_no_text(collection):
    file = collection.folder / "collection.json"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a text file; index the images anew"):
        Collection.open(collection.folder)


def test_a_newer_version_is_refused_whatever_it_says(collection):
    file = collection.folder / "collection.json"
    for text in (
        changed_json(file.read_text(), version=VERSION + 1),
        changed_json(file.read_text(), version=VERSION + 2, anything=[]),
        f'{{"version": {VERSION + 3}}}',
    ):
        file.write_text(text)
        with pytest.raises(InputError, match="made by a newer version") as caught:
            Collection.open(collection.folder)
        assert str(caught.value).startswith(f"{file}: ")
        assert "\n" not in str(caught.value)


def test_damaged_model_and_table_are_told(collection, root):
    (collection.folder / "model.h5").write_bytes(b"no model")
    with pytest.raises(InputError, match="not an HDF5 file"):
        _ = collection.calibration
    (collection.folder / "images.sqlite").write_bytes(b"no table" * 1000)
    for read in (collection.rows, collection.embeddings, lambda: synced(collection)):
        with pytest.raises(InputError, match="not the list of images") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_another_model_is_refused_with_both_fingerprints(collection):
    mine, other = collection.settings.fingerprint, "f" * 32
    collection.check_model(mine)
    with pytest.raises(InputError) as caught:
        collection.check_model(other)
    assert mine in str(caught.value)
    assert other in str(caught.value)


def test_calibration_of_the_model_is_taken_again(collection, tmp_path):
    assert collection.calibration is None
    calibration = Calibration((0.0, 1.0), (0.9, 0.1), (0.0, 0.5), (0.5, 2.0), 0.5, 20)
    collection.take_calibration(make_model(tmp_path / "calibrated.h5", calibration=calibration))
    assert collection.calibration == calibration
    assert Collection.open(collection.folder).calibration == calibration


def test_a_second_writer_is_told_who_holds_it(tmp_path):
    folder = tmp_path / "index"
    code = (
        "import sys; from deep_ranking.search.collection import locked\n"
        "with locked(sys.argv[1]):\n print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError) as caught, locked(folder):
            pass
        said = f"{folder}: being written to by process {holder.pid} on {socket.gethostname()} since"
        assert str(caught.value).startswith(said)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(folder):  # who was killed holds nothing
        assert f"process {os.getpid()} " in (folder / "holder").read_text()
        with pytest.raises(InputError, match=f"process {os.getpid()} "), locked(folder):
            pass
    with locked(folder):
        pass


def test_what_goes_wrong_under_the_lock_is_not_taken_for_it(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    with locked(tmp_path):
        pass


def test_reading_needs_no_permission_to_write(collection, root, monkeypatch):
    synced(collection)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a disk that is mounted read-only
    opened = Collection.open(collection.folder)
    assert opened.rows().tolist() == list(range(8))
    assert opened.embeddings().shape == (8, DIMENSION)
    with contextlib.closing(opened.images()) as images:
        assert GalleryImage("loose.png", "", 5) in list(images.images())


def test_batches_fit_into_memory():
    sizes = [fitting_batch_size(size) for size in (32, 64, 224, 512, 1024)]
    assert all(size in (8, 16, 32, 64) for size in sizes)
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("moment", ["_files", "_record_contents", "_embed"])
def test_an_image_that_vanishes_meanwhile_is_told(collection, root, monkeypatch, moment):
    """After it was listed, after its size was asked for, after its content was hashed."""
    vanishing = root / "dog/1.png"
    whole = getattr(syncing, moment)

    def vanish(*arguments, **options):
        vanishing.unlink()
        return whole(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(syncing, moment, vanish)
        report = synced(collection)
    assert [path for path, _ in report.broken] == ["dog/1.png"]
    assert "no such image" in report.broken[0][1] or "gone" in report.broken[0][1]
    assert report.num_embedded == 7
    assert synced(collection).broken == []
    assert_right(collection, root)


def replace_unseen(path, seed):
    """Another picture in the place of a file, of the same size and time of change."""
    with path.open("ab") as file:
        file.write(bytes(max(0, 400 - path.stat().st_size)))
    status = path.stat()
    other = path.with_name("other")
    draw(other, seed)
    with other.open("ab") as file:
        file.write(bytes(status.st_size - other.stat().st_size))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_a_file_replaced_unseen_is_embedded_again(collection, root):
    path = root / "cat/2.png"
    synced(collection)
    replace_unseen(path, 60)
    report = synced(collection)
    assert (report.num_embedded, report.num_known) == (1, 0)
    assert_right(collection, root)


def test_a_flipped_bit_is_named_and_mended(collection, root):
    synced(collection)
    file = collection.folder / "embeddings.bin"
    whole = file.read_bytes()
    for byte in range(0, len(whole), 7):
        content = bytearray(whole)
        content[byte] ^= 1 << byte % 8
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"damaged: rows .* `index --checksum`"):
            np.asarray(collection.embeddings())
    assert synced(collection).num_embedded == 0  # it looks at no row
    report = synced(collection, checksum=True)
    assert report.num_damaged == report.num_embedded > 0
    assert_right(collection, root)
    assert len(collection.embeddings()[collection.rows()]) == 8
    # Of the rows in the damaged block none is in use.
    assert not set(collection.store.rows().damaged()) & set(collection.rows())


def test_a_mended_collection_is_merged_and_not_mended_again(tmp_path, root):
    part = collection_of(tmp_path / "part", root, shard=(1, 1))
    synced(part)
    (root / "cat/2.png").unlink()  # its row is in the first batch, and is not computed again
    file = part.folder / "embeddings.bin"
    file.write_bytes(b"damaged!" + file.read_bytes()[8:])
    report = synced(part, checksum=True)
    assert report.num_damaged == report.num_embedded == BATCH - 1
    assert synced(part, checksum=True).num_damaged == 0
    whole = merge([part], tmp_path / "whole")
    assert_right(whole, root)
    assert whole.rows().tolist() == list(range(7))
    assert not len(whole.store.rows().damaged())


def test_shards_with_other_classes_are_not_merged(tmp_path, root):
    deep = {"folders": {"label": "parent"}}
    one = collection_of(tmp_path / "one", root, shard=(1, 2), **deep)
    other = collection_of(tmp_path / "other", root, shard=(2, 2))
    for part in (one, other):
        synced(part)
    with pytest.raises(InputError, match="label first, not label parent; run `index` again"):
        merge([one, other], tmp_path / "whole")
    with writable_collection(other.folder, folders=FolderConfig(label="parent")) as opened:
        assert synced(opened).num_embedded == 0
    whole = merge([one, opened], tmp_path / "whole")
    assert Collection.open(whole.folder).settings.folders == deep["folders"]
    with contextlib.closing(whole.images()) as images:
        labels = {image.path: image.label for image in images.images()}
    assert labels["cat/in/3.png"] == "cat/in" and labels["cat/1.png"] == "cat"
    for part in (one, opened):  # merged again, it takes the classes of the shards
        part.change(folders={})
        synced(part)
    whole = merge([one, opened], tmp_path / "whole")
    assert whole.settings.folders == {}
    assert_right(whole, root)


def test_shards_are_not_merged_into_other_images_or_a_shard(tmp_path, root):
    parts = [collection_of(tmp_path / f"{n}", root, shard=(n, 2)) for n in (1, 2)]
    for part in parts:
        synced(part)
    with pytest.raises(InputError, match="is a shard itself; choose another --output"):
        merge(parts, parts[0].folder)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root, elsewhere)
    other = collection_of(tmp_path / "other", elsewhere)
    synced(other)
    before = (other.folder / "images.sqlite").read_bytes()
    with pytest.raises(InputError, match=f"holds the images of {elsewhere}, and the shards those"):
        merge(parts, other.folder)
    assert (other.folder / "images.sqlite").read_bytes() == before


def test_nothing_is_hashed_twice(collection, root, monkeypatch):
    monkeypatch.setattr(content_digest, "SETTLED_SECONDS", -60.0)
    hashed, file_digest = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib,
        "file_digest",
        lambda file, *rest: hashed.append(file.name) or file_digest(file, *rest),
    )
    paths = sorted(map(str, root.rglob("*.png")))
    list(content_digest.content_digests(paths))  # as training does before it caches features
    assert sorted(hashed) == paths
    assert synced(collection).num_images == len(paths)
    assert sorted(hashed) == paths


def test_classes_are_counted_once_for_each_state_of_the_images(collection, root, monkeypatch):
    synced(collection)
    counted, classes = [], ImageTable.classes
    monkeypatch.setattr(
        ImageTable, "classes", lambda table: counted.append(table) or classes(table)
    )
    wanted = Counter(path.partition("/")[0] if "/" in path else "" for path in listed(root))
    assert collection.classes() == collection.classes() == wanted
    assert "9 images, 4 classes" in collection.describe()
    assert len(counted) == 1
    other = Collection.open(collection.folder)  # as of another process
    (root / "cat/1.png").unlink()
    synced(other)
    assert collection.classes() == other.classes() == wanted - Counter(["cat"])
    assert len(counted) == 3
