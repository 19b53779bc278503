"""A collection as a Parquet table, and back; tables of other programs and of strangers."""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import types
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collections_of import make_collection, make_model
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.config import FolderConfig
from deep_ranking.files import InputError
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.header import read_header
from deep_ranking.search.collection import Collection, sync
from deep_ranking.search.duplicates import find_duplicates
from deep_ranking.search.indexing import index_images, update_index
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.table import export_table, exporting, index_table, reading
from deep_ranking.search.table.importing import TakenRows

DIMENSION = 6
CALIBRATION = Calibration((0.0, 1.0, 2.0), (0.9, 0.5, 0.1), (0.0, 1.0), (1.0, 2.0), 1.0, 20)
COLUMNS = ["path", "class", "distance_to_class_mean", "probability_of_class", "vector"]


def sizes_in_this_process(file):
    """What a process of its own reads, which takes a quarter of a second to start."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), open(file.path, "rb") as handle:
        stdin = types.SimpleNamespace(buffer=handle)
        code = reading.SIZES.replace("sys.stdin", "stdin").replace(
            "import json, sys", "import json"
        )
        exec(code, {"stdin": stdin})
    return json.loads(printed.getvalue())


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    monkeypatch.setattr(reading.TableFile, "_sizes", sizes_in_this_process)


READ_APART = reading.TableFile._sizes


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images of three classes and of none; two of one content, and one in a deeper folder."""
    root = tmp_path_factory.mktemp("photos")
    names = [
        "loose.png",
        *(f"{label}/{i}.png" for label in ("cat", "dog", "owl") for i in range(5)),
    ]
    for seed, name in enumerate([*names, "loose.png", "cat/deep/9.png", "dog/Ünï 日本.png"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)
    shutil.copy(root / "cat/1.png", root / "cat/copy.png")
    return root


def paths_below(root):
    return sorted(str(each.relative_to(root)) for each in root.rglob("*.png"))


@pytest.fixture(scope="module")
def collection(tmp_path_factory, root):
    rows = unit(np.random.default_rng(3).normal(size=(len(paths_below(root)), DIMENSION)))
    by_path = dict(zip(paths_below(root), rows, strict=True))
    by_path["cat/copy.png"] = by_path["cat/1.png"]
    folder = tmp_path_factory.mktemp("made") / "photos.index"
    made = make_collection(folder, root, by_path, calibration=CALIBRATION)
    with closing(made.images(writable=True)) as images, images.change():
        images._base.execute("UPDATE images SET class = CAST('cat' AS BLOB)"
                             " WHERE class = CAST('cat/deep' AS BLOB)")  # fmt: skip
    update_index(made)  # learns p(hit)
    return made


@pytest.fixture(scope="module")
def model(collection):
    return collection.folder.with_suffix(".h5")


@pytest.fixture(scope="module")
def table(collection, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "photos.parquet"
    export_table(collection, path)
    return path


def rows_by_path(collection):
    rows = collection.embeddings()
    with closing(collection.images()) as images:
        return {image.path: (image.label, rows[image.row]) for image in images.images()}


def test_a_table_has_all_images_as_pyarrow_reads_it(collection, table):
    read = pq.read_table(table)
    assert read.column_names == COLUMNS
    assert read.schema.field("vector").type == pa.list_(pa.float32(), DIMENSION)
    assert read.schema.field("distance_to_class_mean").type == pa.float32()
    expected = rows_by_path(collection)
    found = read.to_pylist()
    assert sorted(each["path"] for each in found) == sorted(expected)
    for each in found:
        label, row = expected[each["path"]]
        assert (each["class"] or "") == label
        np.testing.assert_array_equal(np.float32(each["vector"]), row)
    assert [each["class"] for each in found] == sorted(
        (each["class"] for each in found), key=lambda label: label or ""
    )


def test_distances_are_those_to_the_mean_of_different_images_of_the_class(collection, table):
    by_class = {}
    for label, row in rows_by_path(collection).values():
        by_class.setdefault(label, []).append(tuple(row.tolist()))
    means = {label: unit(np.mean(list(set(rows)), axis=0)) for label, rows in by_class.items()}
    for each in pq.read_table(table).to_pylist():
        if each["class"] is None:
            assert each["distance_to_class_mean"] is each["probability_of_class"] is None
            continue
        distance = np.linalg.norm(np.array(each["vector"]) - means[each["class"]])
        assert each["distance_to_class_mean"] == pytest.approx(distance, abs=1e-6)
        assert each["probability_of_class"] == pytest.approx(0.9 - 0.4 * distance, abs=1e-6)


def test_blocks_that_end_within_classes_give_the_same_rows(
    collection, table, tmp_path, monkeypatch
):
    whole = pq.read_table(table)
    for count in (1, 2, 7):
        monkeypatch.setattr(exporting, "MOST_AT_ONCE", count)
        path = tmp_path / f"{count}.parquet"
        export_table(collection, path)
        assert pq.read_table(path).equals(whole)
        assert pq.read_metadata(path).num_row_groups == -(-len(whole) // count)


def test_the_metadata_say_what_it_was_made_of(collection, table, root):
    said = json.loads(pq.read_schema(table).metadata[b"deep_ranking"])
    assert said == {
        "version": 1,
        "fingerprint": collection.settings.fingerprint,
        "dimension": DIMENSION,
        "image_size": 32,
        "root": str(root),
        "folders": {},
        "precision": "float32",
    }


def test_a_class_without_a_direction_and_a_model_without_calibration(tmp_path, root):
    row, second = unit(np.ones(DIMENSION)), unit(np.array([1, -1, 1, -1, 1, -1]))
    third = [unit(-row / 2 + sign * np.sqrt(0.75) * second) for sign in (1, -1)]
    assert 0 < np.linalg.norm(row.astype(float) + sum(third)) < 1e-6
    rows = {"cat/1.png": row, "cat/2.png": third[0], "cat/3.png": third[1]}
    rows |= {"dog/1.png": row, "loose.png": row}
    made = make_collection(tmp_path / "i", root, rows)
    done = export_table(made.folder, tmp_path / "t.parquet")
    found = {each["path"]: each for each in pq.read_table(tmp_path / "t.parquet").to_pylist()}
    assert found["cat/1.png"]["distance_to_class_mean"] is None
    assert found["dog/1.png"]["distance_to_class_mean"] == pytest.approx(0, abs=1e-6)
    assert found["dog/1.png"]["probability_of_class"] is None
    assert repr(done).startswith(f"{tmp_path / 't.parquet'}: 5 images, 4 with a class, ")
    assert repr(done).endswith("No probabilities: the model is not calibrated (`calibrate`).")


def test_names_that_are_no_text_are_left_out_and_counted(tmp_path):
    root = tmp_path / "photos"
    strange = os.fsdecode(b"z\xff.png")
    for seed, name in enumerate(("a.png", strange)):
        root.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (seed, 0, 0)).save(root / name, "PNG")
    row = unit(np.ones(DIMENSION))
    made = make_collection(tmp_path / "i", root, {"a.png": row, strange: -row})
    done = export_table(made, tmp_path / "t.parquet")
    assert (done.num_rows, done.num_left_out) == (1, 1)
    assert "Left out: 1 image with a name that is no Unicode text" in repr(done)
    assert pq.read_table(tmp_path / "t.parquet")["path"].to_pylist() == ["a.png"]


def test_an_export_that_fails_leaves_the_earlier_one(collection, table, tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    shutil.copy(table, path)
    monkeypatch.setattr(exporting, "MOST_AT_ONCE", 4)
    batch = exporting._batch

    def full(images, *others):
        if images[0].label == "dog":
            raise OSError(28, "No space left on device")
        return batch(images, *others)

    monkeypatch.setattr(exporting, "_batch", full)
    with pytest.raises(InputError, match=r"t\.parquet: cannot be written \(No space left"):
        export_table(collection, path)
    assert os.listdir(tmp_path) == ["t.parquet"]
    assert path.read_bytes() == table.read_bytes()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t.csv", r"t\.csv: expected a name that ends in \.parquet"),
        ("no/t.parquet", "no: no such folder"),
        ("folder.parquet", "is a folder"),
    ],
)
def test_names_of_tables_that_are_refused(collection, tmp_path, name, said):
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(InputError, match=said):
        export_table(collection, tmp_path / name)


def test_without_pyarrow_there_is_one_line(collection, table, model, tmp_path, monkeypatch):
    monkeypatch.setattr("deep_ranking.search.table.format.find_spec", lambda name: None)
    said = r'needs pyarrow, not installed here: pip install "deep-ranking\[parquet\]"'
    with pytest.raises(InputError, match=said):
        export_table(collection, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=said):
        index_table(table, tmp_path / "i", model=model)


def never(_):
    raise AssertionError("the model is loaded")


def test_a_table_taken_in_gives_the_same_searches(collection, table, model, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 4)
    done = index_table(table, tmp_path / "again.index", model=model)
    assert done.taken == TakenRows(num_rows=19, num_taken=19)
    assert "19 of 19 rows of" in done.conclusion and "trust" not in done.conclusion
    again = Collection.open(tmp_path / "again.index")
    expected = rows_by_path(collection)
    found = rows_by_path(again)
    assert found.keys() == expected.keys()
    for path, (label, row) in found.items():
        assert label == expected[path][0]
        np.testing.assert_array_equal(row, expected[path][1])
    queries = unit(np.random.default_rng(8).normal(size=(5, DIMENSION)))
    results = [Searcher(each).search(queries, 10) for each in (collection, again)]
    for before, after in zip(*map(itertools.chain.from_iterable, results), strict=True):
        # Learned from searches in another order of rows.
        assert after.hit_probability == pytest.approx(before.hit_probability, abs=1e-6)
        assert dataclasses.replace(after, hit_probability=before.hit_probability) == before
    groups = [
        [[image.path for image in group.images] for group in find_duplicates(each, 0.5).groups]
        for each in (collection, again)
    ]
    assert groups[0] and groups[0] == groups[1]
    export_table(again, tmp_path / "again.parquet")

    def ordered(path):
        return pq.read_table(path).sort_by("path")

    assert ordered(tmp_path / "again.parquet").equals(ordered(table))


def test_later_syncs_embed_only_what_is_new(table, model, root, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(root, photos)
    index_table(table, tmp_path / "i", model=model, images=photos)
    collection = Collection.open(tmp_path / "i")
    report = sync(collection, never)
    assert (report.num_images, report.num_embedded, report.num_removed) == (19, 0, 0)
    assert index_images(tmp_path / "i").synced.num_embedded == 0
    Image.new("RGB", (9, 9)).save(photos / "new.png")
    with pytest.raises(AssertionError, match="the model is loaded"):
        sync(collection, never)


def other_table(path, paths, vectors=None, **columns):
    """A table as another program writes it, without metadata of ours."""
    if vectors is None:
        vectors = list(unit(np.random.default_rng(1).normal(size=(len(paths), DIMENSION))))
    pq.write_table(pa.table({"vector": vectors, "path": paths, "number": range(len(paths))}
                            | columns), path)  # fmt: skip
    return path


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16(), DIMENSION),
     pa.list_(pa.float64(), DIMENSION), pa.fixed_shape_tensor(pa.float32(), [DIMENSION])],
)  # fmt: skip
def test_tables_of_other_programs(model, root, tmp_path, kind):
    rows = unit(np.random.default_rng(1).normal(size=(2, DIMENSION)))
    if isinstance(kind, pa.BaseExtensionType):
        vectors = pa.ExtensionArray.from_storage(
            kind, pa.array(rows.tolist(), pa.list_(pa.float32(), DIMENSION))
        )
    else:
        vectors = pa.array(list(rows.astype(kind.value_type.to_pandas_dtype())), kind)
    labels = pa.array(["a", None]).dictionary_encode()
    path = other_table(
        tmp_path / "t.parquet", ["cat/1.png", "dog/1.png"], vectors, **{"class": labels}
    )
    done = index_table(path, tmp_path / "i", model=model, images=root)
    found = rows_by_path(Collection.open(tmp_path / "i"))
    assert {path: label for path, (label, _) in found.items()} == {
        "cat/1.png": "a",
        "dog/1.png": "",
    }
    np.testing.assert_allclose(found["dog/1.png"][1], rows[1], atol=1e-3)
    assert done.conclusion.endswith(
        "2 of 2 rows of " f"{path} taken in. It names no model: its vectors are taken on trust. 2 "
        "images of another class than by the first folder, which the next `index` goes by unless "
        "--classes names a file."
    )  # fmt: skip


def test_classes_come_from_the_folders_where_the_table_has_none(model, root, tmp_path):
    names = ["cat/deep/9.png", "loose.png"]
    path = other_table(tmp_path / "t.parquet", names)
    index_table(path, tmp_path / "i", model=model, images=root)
    labels = {p: label for p, (label, _) in rows_by_path(Collection.open(tmp_path / "i")).items()}
    assert labels == {"cat/deep/9.png": "cat", "loose.png": ""}
    done = index_table(
        path, tmp_path / "j", model=model, images=root, folders=FolderConfig(label="parent")
    )
    assert done.collection.settings.folders == {"label": "parent"}
    assert rows_by_path(done.collection)["cat/deep/9.png"][0] == "cat/deep"
    given = other_table(tmp_path / "u.parquet", names, **{"class": ["a", "b"]})
    done = index_table(given, tmp_path / "k", model=model, images=root, folders=FolderConfig())
    assert rows_by_path(done.collection)["cat/deep/9.png"][0] == "cat"
    assert done.taken.num_relabelled == 0


def test_what_a_class_is_goes_with_the_table(root, tmp_path, collection):
    made = make_collection(
        tmp_path / "i", root, {"cat/deep/9.png": unit(np.ones(DIMENSION))},
        folders={"label": "parent"},
    )  # fmt: skip
    export_table(made, tmp_path / "t.parquet")
    done = index_table(tmp_path / "t.parquet", tmp_path / "j", model=tmp_path / "i.h5")
    assert done.collection.settings.folders == {"label": "parent"}
    assert done.taken.num_relabelled == 0
    assert rows_by_path(done.collection)["cat/deep/9.png"][0] == "cat/deep"


def test_images_that_are_missing_or_broken_are_counted_and_left_out(model, root, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(root, photos)
    (photos / "cat/0.png").unlink()
    (photos / "cat/1.png").write_bytes(b"no image")
    (photos / "notes.txt").write_text("no image")
    paths = ["cat/0.png", "cat/1.png", "cat/2.png", "notes.txt", "gone/x.png"]
    path = other_table(tmp_path / "t.parquet", paths)
    done = index_table(path, tmp_path / "i", model=model, images=photos)
    assert list(rows_by_path(done.collection)) == ["cat/2.png"]
    assert (done.taken.num_taken, done.taken.num_missing) == (1, 3)
    assert [name for name, _ in done.taken.broken] == ["cat/1.png"]
    assert (
        "1 of 5 rows of " f"{path} taken in, 3 left out that name no image below the folder, 1 "
        "left out whose file cannot be read."
    ) in done.conclusion  # fmt: skip
    only = other_table(tmp_path / "u.parquet", ["gone/x.png"])
    with pytest.raises(InputError, match=r"none of its 1 row names an image below .*--images"):
        index_table(only, tmp_path / "j", model=model, images=photos)
    assert not (tmp_path / "j" / "collection.json").exists()


def test_images_of_one_content_share_the_first_vector(model, root, tmp_path):
    rows = unit(np.random.default_rng(1).normal(size=(3, DIMENSION)))
    path = other_table(
        tmp_path / "t.parquet", ["cat/1.png", "dog/1.png", "cat/copy.png"], list(rows)
    )
    done = index_table(path, tmp_path / "i", model=model, images=root, dtype="float16")
    found = rows_by_path(done.collection)
    assert len(found) == 3 and len(done.collection.store) == 2
    np.testing.assert_array_equal(found["cat/copy.png"][1], rows[0].astype(np.float16))


SOME = ["cat/1.png", "cat/2.png", "dog/1.png"]


def with_row(row):
    rows = unit(np.random.default_rng(1).normal(size=(3, DIMENSION))).tolist()
    rows[1] = row
    return rows


HALF = [0.5] * 4 + [0.0] * 2
HOSTILE = {
    "parent": (["cat/1.png", "../cat/2.png"], {}, r"row 1, counted from 0: .*may leave the folder"),
    "inner parent": (["a/../../b.png"], {}, "may leave the folder"),
    "absolute": (["/etc/passwd.png"], {}, "row 0, counted from 0: .*is absolute"),
    "dot": (["./cat/1.png"], {}, "not in its shortest form"),
    "two slashes": (["cat//1.png"], {}, "not in its shortest form"),
    "empty path": ([""], {}, "is empty"),
    "null path": (["cat/1.png", None], {}, "row 1, counted from 0: the path None is empty"),
    "zero byte": (["cat/1\0.png"], {}, "holds a zero byte"),
    "twice": ([*SOME, "cat/2.png"], {}, "row 3, counted from 0: has the path of row 1, 'cat/2"),
    "numbers for paths": ([1, 2], {}, "'path' must be text; it is int64"),
    "class of numbers": (SOME, {"class": [1, 2, 3]}, "'class' must be text; it is int64"),
    "no rows": (pa.array([], pa.string()),
                {"vectors": pa.array([], pa.list_(pa.float32()))}, "has no rows"),
    "numbers beyond float64": (SOME, {"vectors": with_row([1e300] * 6)}, "row 1, .*infinite"),
    "NaN": (SOME, {"vectors": with_row([*HALF[:5], float("nan")])}, "row 1, .*NaN"),
    "infinite": (SOME, {"vectors": with_row([*HALF[:5], float("inf")])}, "row 1, .*infinite"),
    "null number": (SOME, {"vectors": with_row([*HALF[:5], None])}, "row 1, .*null; leave"),
    "null vector": (SOME, {"vectors": with_row(None)}, "row 1, .*has no vector; the model's"),
    "short": (SOME, {"vectors": with_row(HALF[:5])}, "row 1, .*has 5 numbers; .* have 6"),
    "long": (SOME, {"vectors": with_row([*HALF, 0.0])}, "holds more numbers than 3 vectors"),
    "huge": (SOME, {"vectors": with_row([0.0] * 2_000_000)}, "holds more numbers than 3 vectors"),
    "not of unit length": (SOME, {"vectors": with_row([0.501] * 4 + [0, 0.0])},
                           r"row 1, .*has the length 1\.002; expected 1: divide"),
    "zero": (SOME, {"vectors": with_row([0.0] * 6)}, "row 1, .*has the length 0; expected 1"),
    "other size": (SOME, {"vectors": pa.array([[1.0, 0]] * 3, pa.list_(pa.float32(), 2))},
                   "its vectors have 2 numbers, and the model's 6"),
    "integers": (SOME, {"vectors": pa.array([[1, 0, 0, 0, 0, 0]] * 3)}, "must be lists of floats"),
    "texts": (SOME, {"vectors": ["a", "b", "c"]}, "must be lists of floats; it is string"),
    "long texts": (["x" * 3_000_000], {}, "'path' are too long to be paths"),
    "one long text in all rows": (["x" * 300_000] * 500, {}, "'path' are too long to be paths"),
    "long class": (SOME, {"class": ["x" * 5000] * 3}, "'class' are too long to be classes"),
}  # fmt: skip


def test_what_cannot_be_smoothed_is_said_before_the_work(table, model, tmp_path):
    with pytest.raises(InputError, match="index in Milvus searches the rows"):
        index_table(table, tmp_path / "i", model=model, index=str(tmp_path / "m.db"), smooth=5)
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_texts_of_all_kinds(model, root, tmp_path, kind):
    paths = pa.array([*SOME, "dog/Ünï 日本.png"], kind)
    labels = pa.array(["a", "b", None, "日本"], kind)
    path = other_table(tmp_path / "t.parquet", paths, **{"class": labels})
    done = index_table(path, tmp_path / "i", model=model, images=root)
    found = {name: label for name, (label, _) in rows_by_path(done.collection).items()}
    assert found == dict(zip(paths.to_pylist(), ["a", "b", "", "日本"], strict=True))


@pytest.mark.parametrize("kind", HOSTILE)
def test_tables_that_are_refused(model, root, tmp_path, kind):
    paths, columns, said = HOSTILE[kind]
    path = other_table(tmp_path / "t.parquet", paths, **columns)
    with pytest.raises(InputError, match=said) as caught:
        index_table(path, tmp_path / "i", model=model, images=root)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 400
    left = set(os.listdir(tmp_path / "i")) if (tmp_path / "i").exists() else set()
    assert left <= {"lock", "holder"}


def test_rows_are_numbered_through_all_blocks(model, root, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 2)
    path = other_table(tmp_path / "t.parquet", [*SOME, "dog/2.png", "../x.png"])
    with pytest.raises(InputError, match="row 4, counted from 0"):
        index_table(path, tmp_path / "i", model=model, images=root)
    path = other_table(tmp_path / "u.parquet", [*SOME, "dog/2.png", "cat/1.png"])
    with pytest.raises(InputError, match="row 4, counted from 0: has the path of row 0"):
        index_table(path, tmp_path / "i", model=model, images=root)


def test_texts_that_are_not_utf_8(model, root, tmp_path):
    raw = pa.array([b"cat/\xff.png"], pa.binary())
    paths = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    path = other_table(tmp_path / "t.parquet", paths)
    with pytest.raises(InputError, match="not a Parquet file, or a damaged one"):
        index_table(path, tmp_path / "i", model=model, images=root)


def test_columns_that_are_missing_or_there_twice(model, root, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": SOME, "embedding": [[1.0]] * 3}), path)
    with pytest.raises(InputError, match="each once; it has path, embedding"):
        index_table(path, tmp_path / "i", model=model, images=root)
    twice = pa.table([SOME, SOME, with_row(HALF)], names=["path", "path", "vector"])
    pq.write_table(twice, path)
    with pytest.raises(InputError, match="each once; it has path, path, vector"):
        index_table(path, tmp_path / "i", model=model, images=root)


@pytest.mark.slow
def test_files_cut_off_or_changed_anywhere_are_refused_in_a_line(
    table, model, tmp_path, monkeypatch
):
    # The metadata of columns, which may end pyarrow's process, are not read in this one.
    monkeypatch.setattr(reading.TableFile, "_sizes", lambda file: [])
    data = table.read_bytes()
    path = tmp_path / "t.parquet"
    rng = np.random.default_rng(0)
    contents = [data[:length] for length in rng.integers(0, len(data), 20)]
    for place in rng.integers(0, len(data), 60):
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        contents.append(bytes(changed))
    refused = 0
    for content in [b"", b"PAR1", b"PAR1PAR1", *contents]:
        path.write_bytes(content)
        try:
            index_table(path, tmp_path / "i", model=model)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
            continue
        shutil.rmtree(tmp_path / "i")
    assert refused > 50


def test_sizes_are_read_apart(table, model, tmp_path, monkeypatch):
    monkeypatch.setattr(reading.TableFile, "_sizes", READ_APART)
    with reading.TableFile(table, DIMENSION) as file:
        assert [list(each) for each in file._sizes()] == sizes_in_this_process(file)
        assert ["vector", 19, 19 * DIMENSION] in [list(each)[:3] for each in file._sizes()]
        assert sum(len(block.paths) for block in file.entries()) == 19
    monkeypatch.setattr(reading, "SIZES", "import os; os.abort()")  # as pyarrow does
    with pytest.raises(InputError, match="a damaged Parquet file"):
        index_table(table, tmp_path / "i", model=model)


def test_a_bit_that_flips_in_a_vector_is_noticed(table, model, tmp_path):
    column = pq.read_metadata(table).row_group(0).column(COLUMNS.index("vector"))
    begin = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
    data = bytearray(table.read_bytes())
    path = tmp_path / "t.parquet"
    for place in range(begin + 60, begin + column.total_compressed_size, 4 * 29):
        data[place] ^= 1
        path.write_bytes(data)
        data[place] ^= 1
        with pytest.raises(InputError, match="not a Parquet file, or a damaged one"):
            index_table(path, tmp_path / "i", model=model)


def test_what_is_no_regular_file_is_not_opened(model, tmp_path, time_limit):
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("pipe.parquet", "not a regular file"), ("no.parquet", "no such file"),
        ("empty", "a folder without parts"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            index_table(tmp_path / name, tmp_path / "i", model=model)


def with_metadata(table, path, **changes):
    read = pq.read_table(table)
    said = json.loads(read.schema.metadata[b"deep_ranking"]) | changes
    pq.write_table(read.replace_schema_metadata({b"deep_ranking": json.dumps(said)}), path)
    return path


@pytest.mark.parametrize(
    "changes",
    [{"version": 2}, {"version": "1"}, {"fingerprint": 5}, {"root": "photos"}, {"root": "/a\0b"},
     {"dimension": -1}, {"folders": {"classes": "/etc/passwd"}}, {"folders": {"label": 3}},
     {"folders": {"label": "none"}}, {"folders": []}],
)  # fmt: skip
def test_metadata_that_are_not_ours(table, model, tmp_path, changes):
    path = with_metadata(table, tmp_path / "t.parquet", **changes)
    with pytest.raises(InputError, match="its metadata 'deep_ranking' are not what"):
        index_table(path, tmp_path / "i", model=model)


def test_a_table_of_another_model_is_refused(table, tmp_path, model):
    other = make_model(tmp_path / "m.h5", embedding_size=DIMENSION, hidden_size=8)
    said = f"made by the model {read_header(model).fingerprint}, not by"
    with pytest.raises(InputError, match=said):
        index_table(table, tmp_path / "i", model=other)
    wide = make_model(tmp_path / "w.h5", embedding_size=9)
    with pytest.raises(InputError, match="vectors have 6 numbers, and the model's 9"):
        index_table(table, tmp_path / "i", model=wide)


def test_the_folder_of_the_images(table, model, tmp_path):
    path = other_table(tmp_path / "t.parquet", SOME)
    with pytest.raises(InputError, match=r"does not say where its images are; give .* --images"):
        index_table(path, tmp_path / "i", model=model)
    path = with_metadata(table, tmp_path / "t.parquet", root="/no/such")
    said = r"/no/such: no such folder, which .*t\.parquet names; check --images"
    with pytest.raises(InputError, match=said):
        index_table(path, tmp_path / "i", model=model)
    with pytest.raises(InputError, match="nowhere: no such folder; check --images"):
        index_table(path, tmp_path / "i", model=model, images=tmp_path / "nowhere")


def test_a_run_that_was_stopped_is_begun_anew(table, model, root, tmp_path, monkeypatch):
    def stop(self, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "change", stop)
        patch.setattr("deep_ranking.search.table.importing._remove_parts", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            index_table(table, tmp_path / "i", model=model)
    assert (tmp_path / "i" / "embeddings.bin").exists()
    with pytest.raises(InputError, match="no index here"):
        Collection.open(tmp_path / "i")
    row = unit(np.ones(DIMENSION))
    other = other_table(tmp_path / "t.parquet", SOME[:1], [row])
    done = index_table(other, tmp_path / "i", model=model, images=root)
    assert len(done.collection.store) == 1
    np.testing.assert_array_equal(rows_by_path(done.collection)[SOME[0]][1], row)


def test_commands(table, model, tmp_path, capsys):
    index = str(tmp_path / "i")
    arguments = ["--output", index, "--from_parquet", str(table), "--model", str(model)]
    assert run_command("index", arguments) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "19 images, 3 classes (the first folder)."
    assert said[-1].startswith(f"{index}: 19 images in index exact. ")
    assert f"19 of 19 rows of {table} taken in." in said[-1]
    out = tmp_path / "out.parquet"
    assert run_command("index", ["--output", index, "--export", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{out}: 19 images, 18 with a class, [\d.]+ KiB\.", said[-1])
    assert pq.read_table(out).sort_by("path").equals(pq.read_table(table).sort_by("path"))
    assert run_command("index", ["--output", index, "--export", str(tmp_path / "a.csv")]) == 1
    assert "expected a name that ends in .parquet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("-o new --from_parquet t.parquet", "--from_parquet needs --model"),
        ("-o new --from_parquet t.parquet -m m.h5 --precision int8", "--precision has no effect"),
        ("-o new --from_parquet t.parquet -m m.h5 --shard 1/2", "--shard has no effect with"),
        ("-o new --export t.parquet", "give --model and --images to make one"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path, monkeypatch, capsys, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    for name in ("old/collection.json", "t.parquet", "m.h5"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit) as end:
        run_command("index", given.split())
    assert end.value.code == 2
    assert said in capsys.readouterr().err
