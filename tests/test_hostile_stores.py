"""Files of an index that a stranger made: refused in one line, and nothing outside is touched."""

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from collections_of import make_collection
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.files.row_store import RECORD, RowStore
from deep_ranking.search.collection import Collection, locked
from deep_ranking.search.index.clusters import ENDING, ClusterIndex
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.searcher import Searcher

NUM_IMAGES, DIMENSION = 90, 6

STORE = ("embeddings.bin", "keys.bin", "blocks.bin")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index of clusters, and the query that each test asks."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    rows = {}
    for number in range(NUM_IMAGES):
        Image.new("L", (8, 8), number).save(folder / f"{number}.png")
        vector = rng.normal(size=DIMENSION)
        rows[f"{number}.png"] = vector / np.linalg.norm(vector)
    index = {"kind": "clusters", "clusters": 2, "probes": 2}
    make_collection(folder / "index", folder, rows, index)
    return folder / "index", np.array([rows["5.png"]], np.float32)


@pytest.fixture
def index(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "index")


def search(folder, query):
    """What `search` does with an index."""
    collection = Collection.open(folder)
    return [each.path for each in Searcher(collection).search(query, 3)[0]]


def refusal(folder, query):
    with pytest.raises(InputError) as caught:
        search(folder, query)
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_sound_one_is_searched(made, index):
    assert search(index, made[1])[0].endswith("/5.png")


@pytest.mark.parametrize(
    "values",
    [
        {"dimension": 10**12},
        {"dimension": -1},
        {"dimension": "6"},
        {"dimension": 6.0},
        {"image_size": 10**6},
        {"batch_size": 10**9},
        {"dtype": "O"},
        {"root": "a\0b"},
        {"root": "\ud800"},
        {"root": 5},
        {"shard": [1e400, 1]},
        {"index": {"kind": "clusters", "probes": "x"}},
        {"index": {"kind": "clusters", "clusters": -5}},
        {"index": {"kind": "milvus"}},
        {"index": {"kind": "../x"}},
        {"index": []},
        {"version": 10**400},
        {"extra": 1},
    ],
    ids=str,
)
def test_settings_that_lie(values, made, index):
    file = index / "collection.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    refusal(index, made[1])


@pytest.mark.parametrize("text", [b"", b"[" * 100_000, b"\xff\xfe", b" " * (2 << 20), b"[]"])
def test_settings_that_are_none(text, made, index):
    (index / "collection.json").write_bytes(text)
    assert "index the images anew" in refusal(index, made[1])


def test_another_width_than_the_model_gives(made, index):
    file = index / "collection.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dimension": 3}))
    assert "numbers" in refusal(index, made[1])
    with pytest.raises(InputError, match="those of its model 7"):
        Searcher(Collection.open(index), open_index_of(made)).search(np.ones((1, 7), "f4"), 1)


def open_index_of(made):
    return open_index(Collection.open(made[0]))


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.bin",
        "keys.bin",
        "blocks.bin",
        "images.sqlite",
        "model.h5",
        "lock",
        "holder",
        "clusters.faiss",
    ],
)
def test_links_are_not_followed(name, made, index, tmp_path):
    other = tmp_path / "somebody's"
    other.write_bytes(b"precious")
    (index / name).unlink(missing_ok=True)
    (index / name).symlink_to(other)
    assert "lie in its folder" in refusal(index, made[1])
    with pytest.raises(InputError, match="lie in its folder"), locked(index):
        pass
    assert other.read_bytes() == b"precious"


@pytest.mark.parametrize("name", [*STORE, "images.sqlite", "clusters.faiss"])
def test_pipes_are_not_waited_for(name, made, index):
    (index / name).unlink()
    os.mkfifo(index / name)
    refusal(index, made[1])


def hot_journal(base, super_journal):
    """A journal that SQLite plays back, and then removes the file that it names."""
    pages = base.stat().st_size // 4096
    magic = bytes.fromhex("d9d505f920a163d7")
    head = magic + struct.pack(">IIIII", 0, 0, pages, 512, 4096)
    name = os.fsencode(super_journal)
    end = struct.pack(">I", (1 << 30) // 4096 + 1) + name
    end += struct.pack(">II", len(name), sum(name)) + magic
    Path(f"{base}-journal").write_bytes(head.ljust(16_384, b"\0") + end)


def test_a_journal_removes_no_file(made, index, tmp_path):
    victim = tmp_path / "precious"
    victim.write_bytes(b"precious")
    bait = tmp_path / "bait.sqlite"
    shutil.copy(index / "images.sqlite", bait)
    hot_journal(bait, victim)
    with closing(sqlite3.connect(bait)) as base:
        base.execute("SELECT COUNT(*) FROM images").fetchone()
    assert not victim.exists()  # so it would have been
    victim.write_bytes(b"precious")
    hot_journal(index / "images.sqlite", victim)
    assert "not the list of images" in refusal(index, made[1])
    assert victim.exists()


ENDLESS = (
    "CREATE VIEW images AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT x AS path, x AS class, x AS size, x AS changed, x AS content, x AS row, x AS problem "
    "FROM n"
)


@pytest.mark.parametrize(
    "statement",
    [
        f"DROP TABLE images; {ENDLESS}",
        "CREATE TRIGGER t AFTER UPDATE ON images BEGIN DELETE FROM images; END",
        "CREATE TABLE other (x)",
        "CREATE INDEX i ON images (abs(row))",
        "UPDATE images SET row = 'text'",
        "UPDATE images SET row = -5",
        "UPDATE images SET row = 1 << 50",
        "UPDATE images SET class = 5",
        "UPDATE images SET class = zeroblob(8 << 20) WHERE path = CAST('5.png' AS BLOB)",
    ],
)
def test_data_bases_that_lie(statement, made, index):
    with closing(sqlite3.connect(index / "images.sqlite")) as base:
        base.executescript(statement)
    said = refusal(index, made[1])
    assert any(text in said for text in ("images.sqlite", "cut off"))


def test_a_write_ahead_log_is_not_ours(made, index):
    with closing(sqlite3.connect(index / "images.sqlite")) as base:
        base.execute("PRAGMA journal_mode = WAL")
    assert "not the list of images" in refusal(index, made[1])


def without_checksums(content):
    """A cluster file as earlier versions wrote it, and as somebody who fakes one may."""
    size = ENDING.unpack(content[-ENDING.size :])[1]
    return content[:size] + content[-ENDING.size :]


def test_clusters_that_lie_do_not_reach_faiss(made, index, tmp_path, monkeypatch):
    """Each byte of what says how large things are, turned over: refused, or read as it is."""
    import faiss

    sound = without_checksums((index / "clusters.faiss").read_bytes())
    sizes = [*range(4, 16), *range(33, 53), *range(53, 65), *range(90, 98)]
    sizes += range(sound.index(b"ilar"), sound.index(b"ilar") + 48)
    probes = range(45, 53)  # which say nothing of what is in the file
    opened = []
    monkeypatch.setattr(faiss, "read_index", lambda *_: opened.append(1))
    for place in sizes:
        if place in probes:
            continue
        data = bytearray(sound)
        data[place] ^= 0x80
        file = tmp_path / "x.faiss"
        file.write_bytes(data)
        with pytest.raises(InputError, match="cut off, damaged"):
            ClusterIndex(file)
    assert not opened
    for body in (b"IBxF" + sound[4:-24], sound[:-25], sound[:-24] + b"x", b"", b"IwFl" * 9):
        file.write_bytes(body + ENDING.pack(b"clusters", len(body)))
        with pytest.raises(InputError, match="cut off, damaged"):
            ClusterIndex(file)
    assert not opened


HOLES = """
import resource, sys
from pathlib import Path
from deep_ranking.files.errors import InputError
from deep_ranking.files.row_store import RowStore
resource.setrlimit(resource.RLIMIT_AS, (4 << 30,) * 2)
try:
    len(RowStore(Path(sys.argv[1]), "embeddings", 6, "float32"))
except InputError as error:
    print(error)
"""


def test_holes_of_gigabytes(tmp_path):
    for name, size in (("keys.bin", RECORD.itemsize << 26), ("embeddings.bin", 24 << 26)):
        with (tmp_path / name).open("wb") as handle:
            handle.truncate(size)
    done = subprocess.run(
        [sys.executable, "-c", HOLES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
    )
    assert "ends a block" in done.stdout


def test_a_store_is_of_regular_files(tmp_path):
    os.mkfifo(tmp_path / "keys.bin")
    (tmp_path / "embeddings.bin").write_bytes(bytes(24))
    with pytest.raises(InputError, match="not a regular file"):
        RowStore(tmp_path, "embeddings", 6, "float32").find()


def test_nothing_is_unpickled():
    """NumPy unpickles in `load` alone, unless told not to, and nobody runs what is in a file."""
    package = Path(__file__).parents[1] / "deep_ranking"
    words = ("np.load(", "pickle", "joblib", "marshal", "eval(", "exec(", "load_extension")
    for file in package.rglob("*.py"):
        lines = file.read_text(encoding="utf-8").splitlines()
        text = "\n".join(line for line in lines if "allow_pickle=False" not in line)
        text = text.replace("can be pickled", "")  # of an `Embedder`
        if file.name == "torch_weights.py":  # its unpickler refuses all but arrays: its own tests
            assert "def find_class" in text and "pickle.load" not in text
            text = text.replace("pickle", "")
        assert not [word for word in words if word in text], file
        assert "keras.models.load_model(" not in text.replace("keras.models.load_model(path)`", "")


@pytest.mark.parametrize("name", STORE)
def test_a_store_does_not_wait_for_a_pipe(tmp_path, name, time_limit):
    os.mkfifo(tmp_path / name)
    store = RowStore(tmp_path, "embeddings", 6, "float32")
    for use in (store.find, store.rows, lambda: store.extend([])):
        with pytest.raises(InputError, match="not a regular file"):
            use()
