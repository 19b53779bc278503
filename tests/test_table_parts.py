"""Tables of parts that state the contents of images: taken in without the images, and again."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collections_of import make_model

from deep_ranking.config import FolderConfig
from deep_ranking.files import InputError
from deep_ranking.model.header import read_header
from deep_ranking.search import hit_probability
from deep_ranking.search.collection import Collection, arrivals, sync
from deep_ranking.search.indexing import update_index
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.table import index_table, reading
from deep_ranking.search.table.format import TableOrigin, table_schema

DIMENSION = 6
ROOT = "s3://bucket/photos"


@pytest.fixture(autouse=True)
def no_sizes(monkeypatch):
    monkeypatch.setattr(reading.TableFile, "_sizes", lambda file: [])  # a process for each file
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 3)


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "m.h5", embedding_size=DIMENSION)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def digest(name):
    return hashlib.sha256(name.encode()).hexdigest()


def rows_of(names, seed=0):
    """Rows of a table: path -> (content, class, vector)."""
    vectors = unit(np.random.default_rng(seed).normal(size=(len(names), DIMENSION)))
    return {
        name: (digest(name), name.split("/")[0], vector)
        for name, vector in zip(names, vectors, strict=True)
    }


def write_part(path, rows, model, **origin):
    settings = dict(fingerprint=read_header(model).fingerprint, dimension=DIMENSION, image_size=32)
    settings |= dict(root=ROOT, folders={}, precision="float32") | origin
    schema = table_schema(TableOrigin(**settings), has_content=True)
    contents, labels, vectors = zip(*rows.values(), strict=True) if rows else ((), (), ())
    width = schema.field("vector").type.list_size
    columns = [
        pa.array(list(rows), pa.string()),
        pa.array([label or None for label in labels], pa.string()),
        pa.nulls(len(rows), pa.float32()),
        pa.nulls(len(rows), pa.float32()),
        pa.array([list(each) for each in vectors], pa.list_(pa.float32(), width)),
        pa.array(contents, pa.string()),
    ]
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path)


FIRST = rows_of([f"{label}/{i}.jpg" for label in ("owl", "cat") for i in range(5)])
SECOND = rows_of([f"dog/{i}.jpg" for i in range(4)] + ["cat/copy.jpg"], seed=1)
SECOND["cat/copy.jpg"] = (digest("cat/3.jpg"), "cat", FIRST["cat/3.jpg"][2])


@pytest.fixture
def table(tmp_path, model):
    folder = tmp_path / "t.parquet"
    write_part(folder / "part-00000.parquet", FIRST, model)
    write_part(folder / "part-00001.parquet", {}, model)  # all of its images are broken
    (folder / "_SUCCESS").touch()
    (folder / ".part-00002.parquet").touch()
    return folder


def state(folder):
    """Path -> class, content, vector; and the number of vectors."""
    collection = Collection.open(folder)
    rows = collection.embeddings()
    with closing(sqlite3.connect(folder / "images.sqlite")) as base:
        found = base.execute("SELECT path, class, content, row FROM images").fetchall()
        assert {name for (name,) in base.execute("SELECT name FROM sqlite_master")} == {
            "images", "images_by_row", "images_by_content"
        }  # fmt: skip
    images = {
        path.decode(): (content.hex(), label.decode(), rows[row])
        for path, label, content, row in found
    }
    return images, len(collection.store)


def check(folder, wanted, num_rows):
    images, found_rows = state(folder)
    assert found_rows == num_rows
    assert images.keys() == wanted.keys()
    for path, (content, label, vector) in wanted.items():
        assert images[path][:2] == (content, label)
        np.testing.assert_array_equal(images[path][2], vector)


def test_parts_are_taken_in_without_images_and_later_only_what_is_new(table, model, tmp_path):
    folder = tmp_path / "i"
    done = index_table(table, folder, model=model)
    check(folder, FIRST, 10)
    assert (done.taken.num_rows, done.taken.num_taken, done.taken.num_known) == (10, 10, 0)
    assert Collection.open(folder).settings.root == ROOT
    write_part(table / "part-00002.parquet", SECOND, model)
    done = index_table(table, folder)
    check(folder, FIRST | SECOND, 14)  # the copy shares a row
    assert (done.taken.num_rows, done.taken.num_taken, done.taken.num_known) == (5, 5, 0)
    assert f"5 of 5 rows of {table} taken in; 2 parts as at an earlier run." in done.conclusion
    before = (folder / "embeddings.bin").stat().st_mtime_ns
    assert index_table(table, folder).taken.num_parts_known == 3
    again = index_table(table, folder, checksum=True)
    assert (again.taken.num_rows, again.taken.num_known) == (15, 15)
    assert "15 of 15 rows of" in again.conclusion and "15 of them known before." in again.conclusion
    check(folder, FIRST | SECOND, 14)
    assert (folder / "embeddings.bin").stat().st_mtime_ns == before


def test_a_changed_part_changes_its_images(table, model, tmp_path):
    index_table(table, tmp_path / "i", model=model)
    new = rows_of(["owl/0.jpg", "owl/1.jpg"], seed=7)
    new["owl/0.jpg"] = (digest("other"), "barn", new["owl/0.jpg"][2])
    new["owl/1.jpg"] = (digest("owl/1.jpg"), "barn", FIRST["owl/1.jpg"][2])
    write_part(table / "part-00001.parquet", new, model)
    index_table(table, tmp_path / "i")
    check(tmp_path / "i", FIRST | new, 11)


def test_searches_name_the_address_and_open_nothing(table, model, tmp_path):
    done = index_table(table, tmp_path / "i", model=model)
    query = FIRST["cat/2.jpg"][2][None]
    found = Searcher(done.collection).search_embedded(["q"], query, 1)
    assert found[0][0].path == f"{ROOT}/cat/2.jpg" and found[0][0].problem == ""
    assert f"the images are in {ROOT}" in found.note and "\n" not in found.note
    with pytest.raises(InputError, match="photos: an address, and images are only read from"):
        sync(done.collection, lambda _: None)


def test_images_that_are_there_are_known_at_the_next_sync(table, model, tmp_path):
    photos = tmp_path / "photos"
    for name in FIRST:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(name.encode())
    write_part(table / "part-00000.parquet", FIRST, model, root=str(photos))
    (table / "part-00001.parquet").unlink()
    done = index_table(table, tmp_path / "i", model=model)
    found = Searcher(done.collection).search_embedded(["q"], FIRST["cat/2.jpg"][2][None], 1)
    assert found[0][0].problem == ""
    (photos / "cat/2.jpg").write_bytes(b"other")
    found = Searcher(done.collection).search_embedded(["q"], FIRST["cat/2.jpg"][2][None], 1)
    assert found[0][0].problem == "changed"
    (photos / "cat/2.jpg").write_bytes(b"cat/2.jpg")
    report = sync(done.collection, lambda _: None)
    assert (report.num_images, report.num_embedded, report.num_known) == (10, 0, 10)


def of(row, **changes):
    return dict(zip(("content", "label", "vector"), row, strict=True)) | changes


BAD = {
    "NaN": ({"vector": np.full(DIMENSION, np.nan)}, {}, "part-00002.parquet: row 4, .*NaN"),
    "length": ({"vector": np.full(DIMENSION, 0.5)}, {}, "row 4, .*has the length 1.22"),
    "content": ({"content": "ab" * 16}, {}, "row 4, .*content is not the SHA-256"),
    "no content": ({"content": None}, {}, "row 4, .*content is not the SHA-256"),
    "path": ({"path": "../x.jpg"}, {}, "row 4, .*may leave the folder"),
    "path of another part": ({"path": "owl/3.jpg"}, {},
                             r"00002.parquet: row 4, .*path of row 3 of .*00000.parquet, 'owl/3"),
    "model": ({}, {"fingerprint": "f" * 12}, "not of one table with .*other values in the meta"),
    "root": ({}, {"root": "s3://other"}, "not of one table with"),
    "precision": ({}, {"precision": "int8"}, "not of one table with"),
}  # fmt: skip


def with_bad_part(table, model, kind):
    changes, origin, said = BAD[kind]
    rows = dict(SECOND)
    content, label, vector = rows.pop("cat/copy.jpg")
    path = changes.get("path", "cat/copy.jpg")
    rows[path] = (changes.get("content", content), label, changes.get("vector", vector))
    if kind == "no content":
        schema = pq.read_schema(table / "part-00000.parquet")
        loose = schema.set(5, schema.field("content").with_nullable(True))
        contents, labels, vectors = zip(*rows.values(), strict=True)
        columns = [list(rows), labels, [None] * 5, [None] * 5, [list(v) for v in vectors], contents]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, loose, strict=True)]
        pq.write_table(pa.Table.from_arrays(arrays, schema=loose), table / "part-00002.parquet")
    else:
        write_part(table / "part-00002.parquet", rows, model, **origin)
    return said


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_part_changes_nothing(table, model, tmp_path, kind):
    folder = tmp_path / "i"
    said = with_bad_part(table, model, kind)
    with pytest.raises(InputError, match=said) as caught:
        index_table(table, folder, model=model)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or set(os.listdir(folder)) <= {"lock", "holder"}
    good = tmp_path / "good.parquet"
    shutil.copytree(table, good)
    (good / "part-00002.parquet").unlink()
    index_table(good, folder, model=model)
    names = ("embeddings.bin", "keys.bin", "blocks.bin", "parts.json")
    before = {name: (folder / name).read_bytes() for name in names}
    with pytest.raises(InputError):
        index_table(table, folder)
    assert before == {name: (folder / name).read_bytes() for name in before}
    check(folder, FIRST, 10)


def test_parts_that_are_cut_off_or_of_another_table_are_named(table, model, tmp_path):
    part, other = table / "part-00002.parquet", table / "part-00001.parquet"
    write_part(part, SECOND, model)
    data = part.read_bytes()
    part.write_bytes(data[:-20])
    with pytest.raises(InputError, match=r"part-00002\.parquet: not a Parquet file, or a damaged"):
        index_table(table, tmp_path / "i", model=model)
    pq.write_table(pq.read_table(other).drop(["content"]), part)
    said = "00002.parquet: is not of one table with .*00000.parquet: only that has a column 'conte"
    with pytest.raises(InputError, match=said):
        index_table(table, tmp_path / "i", model=model)
    write_part(part, rows_of(["a/1.jpg"]), model, dimension=DIMENSION, root="/photos")
    wide = make_model(tmp_path / "w.h5", embedding_size=9)
    with pytest.raises(InputError, match="vectors have 6 numbers, and the model's 9"):
        index_table(table, tmp_path / "i", model=wide)
    part.unlink()
    (table / "part-00000.parquet").unlink()
    with pytest.raises(InputError, match=r"t\.parquet: has no rows"):
        index_table(table, tmp_path / "i", model=model)


def test_a_part_that_changes_while_it_is_read_is_refused(table, model, tmp_path, monkeypatch):
    vectors = reading.TableFile.vectors

    def slow(file):
        yield from vectors(file)
        os.utime(table / "part-00000.parquet", (1, 1))

    monkeypatch.setattr(reading.TableFile, "vectors", slow)
    with pytest.raises(InputError, match=r"00000\.parquet: changed while it was read; run the"):
        index_table(table, tmp_path / "i", model=model)
    assert set(os.listdir(tmp_path / "i")) <= {"lock", "holder"}


def test_what_a_collection_does_not_take(table, model, tmp_path):
    folder = tmp_path / "i"
    index_table(table, folder, model=model)
    other = make_model(tmp_path / "o.h5", embedding_size=DIMENSION, hidden_size=8)
    for options, said in (
        ({"model": other}, "made by the model .* whose embeddings do not compare"),
        ({"dtype": "float16"}, "made with --dtype float32; choose another --output"),
        ({"folders": FolderConfig(label="parent")}, "classes a table does not change; run `index"),
    ):
        with pytest.raises(InputError, match=said):
            index_table(table, folder, **options)
    elsewhere = tmp_path / "e.parquet"
    for changes, said in (
        (
            {"root": "s3://elsewhere"},
            "of images in s3://elsewhere, and .*i of those in s3://bucket",
        ),
        ({"precision": "int8"}, "was computed in int8, and .*i in float32; choose another"),
        ({"fingerprint": "f" * 12}, "made by the model ffffffffffff, not by"),
    ):
        write_part(elsewhere / "a.parquet", SECOND, model, **changes)
        with pytest.raises(InputError, match=said):
            index_table(elsewhere, folder)
    said = "--label, --classes, .* have no effect: its column 'class'"
    with pytest.raises(InputError, match=said):
        index_table(table, tmp_path / "j", model=model, folders=FolderConfig())
    with pytest.raises(InputError, match="give the model that its vectors were made by"):
        index_table(table, tmp_path / "j")
    assert not (tmp_path / "j").exists()
    check(folder, FIRST, 10)


def test_what_a_killed_run_appended_is_not_appended_again(table, model, tmp_path, monkeypatch):
    folder = tmp_path / "i"
    index_table(table, folder, model=model)
    write_part(table / "part-00002.parquet", SECOND, model)

    class Killed(BaseException):
        pass

    def kill(self, first_row):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(arrivals.Arrivals, "record", kill)
        patch.setattr("deep_ranking.files.row_store.RowStore.cut", lambda self, count: None)
        with pytest.raises(Killed):
            index_table(table, folder)
    assert state(folder)[1] == 14
    images = state(folder)[0]
    assert images.keys() == FIRST.keys()
    index_table(table, folder)
    check(folder, FIRST | SECOND, 14)


def test_classes_come_from_the_paths_where_there_is_no_column(table, model, tmp_path):
    part = table / "part-00000.parquet"
    pq.write_table(pq.read_table(part).drop(["class"]), part)
    (table / "part-00001.parquet").unlink()
    index_table(table, tmp_path / "i", model=model)
    check(tmp_path / "i", FIRST, 10)


def test_the_chance_of_a_hit_of_many_rows_is_that_of_few(model, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    names = [f"c{i % 7}/{i}.jpg" for i in range(150)]
    means = rng.normal(size=(7, DIMENSION))
    vectors = unit(means[np.arange(150) % 7] + rng.normal(size=(150, DIMENSION)))
    rows = {name: (digest(name), name.split("/")[0], vector)
            for name, vector in zip(names, vectors, strict=True)}  # fmt: skip
    rows["c9/alone.jpg"] = (digest("alone"), "c9", vectors[0])
    rows["loose.jpg"] = (digest("loose"), "", vectors[1])
    rows["c1/copy.jpg"] = (digest(names[1]), "c1", vectors[1])
    write_part(tmp_path / "t.parquet" / "a.parquet", rows, model)
    done = index_table(tmp_path / "t.parquet", tmp_path / "i", model=model)
    assert done.collection.hit_calibration is not None
    monkeypatch.setattr(hit_probability, "MOST_LISTED", 10)
    done.collection.change(hits=None, hits_of="", hits_sizes=[])
    update_index(done.collection)
    expected = Collection.open(tmp_path / "i")
    assert expected.hit_calibration == done.collection.hit_calibration
    monkeypatch.undo()
    done.collection.change(hits=None, hits_of="", hits_sizes=[])
    update_index(done.collection)
    assert repr(done.collection.hit_calibration) == repr(expected.hit_calibration)


def test_parts_json_that_is_damaged_costs_time_only(table, model, tmp_path):
    folder = tmp_path / "i"
    index_table(table, folder, model=model)
    for text in ("", "[1]", json.dumps({"a": [1]}), json.dumps({"a": "bcde"})):
        (folder / "parts.json").write_text(text)
        assert index_table(table, folder).taken.num_known == 10
    check(folder, FIRST, 10)


PEAK = """
import sys
from deep_ranking.search.collection import arrivals
from deep_ranking.search.table import index_table
arrivals.CACHE_KIB = 1 << 11
table, output, model = sys.argv[1:]
assert index_table(table, output, model=model).taken.num_taken == int(table.split("-")[-1][:-8])
[peak] = [each for each in open("/proc/self/status") if each.startswith("VmHWM:")]
print(int(peak.split()[1]) // 1024)  # of this process alone, in MB
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(model, tmp_path):
    """A table of all paths or contents in memory would take 60 MB more."""
    peaks = []
    for count in (50_000, 400_000):
        folder = tmp_path / f"t-{count}.parquet"
        write_part(folder / "0.parquet", rows_of(["x.jpg"]), model)
        schema = pq.read_schema(folder / "0.parquet")
        row = pa.array(unit(np.ones((1, DIMENSION))).ravel())
        numbers = range(count)
        columns = [
            pa.array([f"a/{number:09}.jpg" for number in numbers]),
            pa.nulls(count, pa.string()),
            pa.nulls(count, pa.float32()),
            pa.nulls(count, pa.float32()),
            pa.FixedSizeListArray.from_arrays(pa.concat_arrays([row] * count), DIMENSION),
            pa.array([f"{number * 2654435761 % (1 << 61):064x}" for number in numbers]),
        ]
        table = pa.Table.from_arrays(columns, schema=schema)
        pq.write_table(table, folder / "0.parquet", row_group_size=1 << 14)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, folder, tmp_path / f"i-{count}", model],
            capture_output=True, check=True, text=True,
        )  # fmt: skip
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 50, peaks
