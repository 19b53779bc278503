"""Many images as a Parquet table in parts: the rows of `index`, and nothing left unsaid."""

import csv
import hashlib
import os
import re
import shutil
from contextlib import closing

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collections_of import make_model
from filelock import FileLock
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.config import FolderConfig
from deep_ranking.files import InputError, addresses
from deep_ranking.search.bulk_embedding import embed_table, embedding, parts, ray_engine, sources
from deep_ranking.search.collection import Collection
from deep_ranking.search.indexing import index_images
from deep_ranking.search.table.format import TableOrigin

NAMES = [
    *("loose.png", "a b/1.png", "a/Ünï 日本.png", "a/deep/2.png", "a/0.png"),
    *(f"zebra/{number}.png" for number in range(8)),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images whose order by path is not that by folder, two of one content; and what is none."""
    root = tmp_path_factory.mktemp("bulk") / "photos"
    for seed, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)
    shutil.copy(root / "a/0.png", root / "zebra/copy.png")
    (root / "zebra/notes.txt").write_text("none")
    (root / ".hidden").mkdir()
    shutil.copy(root / "a/0.png", root / ".hidden/0.png")
    return root


@pytest.fixture(scope="module")
def model(compiled_once):
    return compiled_once / "m.h5"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, photos, model):
    """Class and row of each image, by its path, in an index of them."""
    folder = tmp_path_factory.mktemp("bulk") / "photos.index"
    index_images(folder, model=model, images=photos, precision="float32")
    collection = Collection.open(folder)
    rows = collection.embeddings()
    with closing(collection.images()) as images:
        return {each.path: (each.label, rows[each.row].tobytes()) for each in images.images()}


def parts_of(table):
    return sorted(table.glob("part-*.parquet"))


def rows_of(table):
    """Class and row of each image, by its path, in a table in parts; which must have each once."""
    found = pa.concat_tables([pq.read_table(part) for part in parts_of(table)]).to_pylist()
    assert len({each["path"] for each in found}) == len(found)
    return {
        each["path"]: (each["class"] or "", np.float32(each["vector"]).tobytes()) for each in found
    }


def left_out_of(table):
    with open(table / "_left_out.csv", encoding="utf-8", newline="") as file:
        return [tuple(line) for line in csv.reader(file)][1:]


def test_a_table_has_the_bytes_of_an_index(photos, model, indexed, tmp_path):
    done = embed_table(photos, tmp_path / "t.parquet", model=model, part_size=4)
    assert rows_of(done.path) == indexed
    assert (done.num_rows, done.num_parts, done.num_made) == (14, 4, 4)
    assert [pq.read_metadata(part).num_rows for part in parts_of(done.path)] == [4, 4, 4, 2]
    table = pa.concat_tables([pq.read_table(part) for part in parts_of(done.path)])
    paths = table.column("path").to_pylist()
    assert paths == sorted(indexed, key=str.encode)
    digests = [hashlib.sha256((photos / path).read_bytes()).hexdigest() for path in paths]
    assert table.column("content").to_pylist() == digests
    assert table.column("distance_to_class_mean").null_count == 14
    origin = TableOrigin.from_json(table.schema.metadata[b"deep_ranking"], done.path)
    assert (origin.root, origin.precision, origin.dimension) == (str(photos), "float32", 8)
    assert "14 images, 3 classes (the first folder)." in repr(done)
    assert done.conclusion == f"{done.path}: 14 images in 4 parts."
    assert not (done.path / "_left_out.csv").exists()


def stop_at(monkeypatch, number):
    """Make the run fail before it writes a part; return what was made."""
    made, write = [], parts.PartMaker._write

    def failing(self, part, *args):
        if part == number:
            raise KeyboardInterrupt
        made.append(part)
        return write(self, part, *args)

    monkeypatch.setattr(parts.PartMaker, "_write", failing)
    return made


def test_a_run_that_was_stopped_goes_on_by_part(photos, model, indexed, tmp_path, monkeypatch):
    root, table = tmp_path / "photos", tmp_path / "t.parquet"
    shutil.copytree(photos, root)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            embed_table(root, table, model=model, part_size=4)
    kept = {part: part.stat().st_mtime_ns for part in parts_of(table)}
    assert [part.name for part in kept] == ["part-00000.parquet", "part-00001.parquet"]
    Image.new("RGB", (8, 8)).save(root / "a/new.png")  # is not of the images that were listed
    said, made = [], stop_at(monkeypatch, None)
    done = embed_table(root, table, model=model, part_size=4, when_listed=said.append)
    assert made == [2, 3] and done.num_made == 2
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert rows_of(table) == indexed
    assert re.fullmatch(r"14 images, as listed 20.*", said[0]) and said[1:] == [
        "2 of 4 parts are there."
    ]
    again = embed_table(root, table, model=model, part_size=4)
    assert made == [2, 3] and again.num_made == 0 and again.num_rows == 14


def test_progress_goes_on_from_what_is_there(photos, model, tmp_path, monkeypatch):
    table = tmp_path / "t.parquet"
    embed_table(photos, table, model=model, part_size=4)
    parts_of(table)[-1].unlink()  # that of two images
    shown = {}
    real = embedding.progress_bar
    monkeypatch.setattr(
        embedding, "progress_bar", lambda **options: shown.update(options) or real(**options)
    )
    embed_table(photos, table, model=model, part_size=4)
    assert (shown["initial"], shown["total"]) == (12, 14)


def test_other_settings_are_refused(photos, model, tmp_path):
    table = tmp_path / "t.parquet"
    embed_table(photos, table, model=model, part_size=20)
    before = {path: path.read_bytes() for path in table.iterdir()}
    other = make_model(tmp_path / "other.h5", embedding_size=8)
    for what, changes in {
        "part_size 20, not 21": {"part_size": 21},
        "the model ": {"model": other},
        "images .*/photos, not .*/photos/a;": {"images": photos / "a"},
        "classes by the first folder, not --label parent;": {
            "folders": FolderConfig(label="parent")
        },
    }.items():
        given = {"images": photos, "model": model, "part_size": 20} | changes
        with pytest.raises(InputError, match=rf"t\.parquet: made with (--)?{what}"):
            embed_table(output=table, **given)
    assert {path: path.read_bytes() for path in table.iterdir()} == before


def test_what_is_left_out_is_counted_by_name(photos, model, indexed, tmp_path):
    """Of a folder: broken; gone and changed since they were listed."""
    root, table = tmp_path / "photos", tmp_path / "t.parquet"
    shutil.copytree(photos, root)
    (root / "a/broken.png").write_bytes((root / "a/0.png").read_bytes()[:60])

    def meanwhile(_):
        (root / "zebra/3.png").unlink(missing_ok=True)
        shutil.copy(root / "zebra/5.png", root / "zebra/4.png")

    done = embed_table(root, table, model=model, part_size=4, when_listed=meanwhile)
    missing = {"zebra/3.png", "zebra/4.png"}
    assert rows_of(table) == {path: row for path, row in indexed.items() if path not in missing}
    found = left_out_of(table)
    assert [each[:2] for each in found] == [
        ("a/broken.png", "broken"), ("zebra/3.png", "gone"), ("zebra/4.png", "changed"),
    ]  # fmt: skip
    assert str(tmp_path) not in str(found)
    assert "3 left out (1 broken, 1 gone, 1 changed), named in" in done.conclusion
    again = embed_table(root, table, model=model, part_size=4)
    assert left_out_of(table) == found and repr(again).count("zebra/3.png: gone") == 1


@pytest.fixture
def bucket(photos):
    """The images in fsspec's memory."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    for file in photos.rglob("*.*"):
        if file.is_file():
            store.pipe(f"/bucket/photos/{file.relative_to(photos)}", file.read_bytes())
    yield store
    store.store.clear()


def test_an_object_store_gives_the_rows_of_a_folder(bucket, model, indexed, tmp_path):
    bucket.pipe("/bucket/photos/a/broken.png", b"none")

    def meanwhile(_):
        if bucket.exists("/bucket/photos/zebra/3.png"):
            bucket.rm("/bucket/photos/zebra/3.png")
        bucket.pipe("/bucket/photos/zebra/4.png", bucket.cat("/bucket/photos/zebra/5.png"))

    address = "memory://bucket/photos/"
    done = embed_table(address, tmp_path / "t.parquet", model=model, when_listed=meanwhile)
    missing = {"zebra/3.png", "zebra/4.png"}
    assert rows_of(done.path) == {p: row for p, row in indexed.items() if p not in missing}
    assert [each[:2] for each in left_out_of(done.path)] == [
        ("a/broken.png", "broken"), ("zebra/3.png", "gone"), ("zebra/4.png", "changed"),
    ]  # fmt: skip
    assert "1 hidden file or folder left out." in done.lines
    origin = pq.read_schema(parts_of(done.path)[0]).metadata[b"deep_ranking"]
    assert TableOrigin.from_json(origin, done.path).root == "memory://bucket/photos"


def test_a_store_that_stops_answering_ends_the_run_which_is_resumed(
    bucket, model, indexed, tmp_path, monkeypatch
):
    cat_file = bucket.cat_file

    def failing(name):
        if name.endswith("zebra/3.png"):
            raise TimeoutError("slow down")
        return cat_file(name)

    table, options = tmp_path / "t.parquet", {"model": model, "part_size": 4}
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "cat_file", lambda _, name: failing(name))
        with pytest.raises(InputError, match=r"^memory://bucket/photos/zebra/3\.png: cannot be "
                           r"read \(slow down\)$"):  # fmt: skip
            embed_table("memory://bucket/photos", table, **options)
    assert [part.name for part in parts_of(table)] == ["part-00000.parquet", "part-00001.parquet"]
    embed_table("memory://bucket/photos", table, **options)
    assert rows_of(table) == indexed


class NoCredentialsError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoCredentialsError("none"), "no credentials (none); for S3 set AWS_ACCESS_KEY_ID"),
        (PermissionError("Access Denied"), "may not be read (Access Denied); check the cred"),
        (FileNotFoundError("?"), "no such bucket, folder or object"),
    ],
)
def test_a_store_that_refuses_is_one_line(bucket, model, tmp_path, error, said):
    def refuse(*_, **__):
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bucket), "find", refuse)
        with pytest.raises(InputError, match=rf"^memory://bucket: {re.escape(said)}"):
            embed_table("memory://bucket", tmp_path / "t.parquet", model=model)
    assert not (tmp_path / "t.parquet").exists()


def test_packages_that_are_missing_are_named(model, tmp_path, monkeypatch):
    table = tmp_path / "t.parquet"

    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.core.url_to_fs", missing)
        with pytest.raises(InputError, match=r'not installed here: pip install "deep-ranking\[s3'):
            embed_table("s3://bucket", table, model=model)
        with pytest.raises(InputError, match=r"not installed here: .*gcsfs"):
            embed_table("gs://bucket", table, model=model)
    for module, needs in ((addresses, "fsspec"), (ray_engine, "ray")):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
        with pytest.raises(InputError, match=rf'needs {needs}, .*pip install "deep-ranking\['):
            embed_table("s3://bucket", table, model=model, engine=needs if needs == "ray" else
                        "local")  # fmt: skip
    with pytest.raises(InputError, match=r"^nope://x: no address that fsspec opens"):
        monkeypatch.undo()
        embed_table("nope://x", table, model=model)


def write_table(file, **columns):
    pq.write_table(pa.table(columns), file)
    return file


def test_a_parquet_file_names_images_and_classes(photos, bucket, model, indexed, tmp_path):
    """In its own order; with paths from its own folder, from --root, or with the root in them."""
    paths = ["zebra/7.png", "a/0.png", "loose.png", "zebra/gone.png"]
    labels = ["stripes", None, "", "stripes"]
    expected = {path: (label or "", indexed[path][1]) for path, label in zip(paths[:3], labels,
                strict=False)}  # fmt: skip
    address = "memory://bucket/photos"
    for number, (prefix, root) in enumerate(
        (("", photos), (f"{photos}/", photos), ("", address), (f"{address}/", address))
    ):
        named = write_table(
            tmp_path / "named.parquet",
            path=pa.array([prefix + path for path in paths]),
            **{"class": pa.array(labels).dictionary_encode()},
        )
        done = embed_table(named, tmp_path / f"{number}.parquet", model=model, root=root)
        assert rows_of(done.path) == expected
        assert list(rows_of(done.path)) == paths[:3]
        assert [each[:2] for each in left_out_of(done.path)] == [("zebra/gone.png", "gone")]
    again = embed_table(parts_of(done.path)[0], tmp_path / "again.parquet", model=model)
    assert rows_of(again.path) == expected  # a table names its root itself
    shutil.copy(named, bucket_file := tmp_path / "at_an_address.parquet")
    bucket.put(str(bucket_file), "/bucket/photos/named.parquet")
    done = embed_table(f"{address}/named.parquet", tmp_path / "x.parquet", model=model)
    assert rows_of(done.path) == expected


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"url": ["a/0.png"]}, "needs one column 'path', and may have one 'class'; it has url"),
        ({"path": [1]}, "its column 'path' must be text; it is int64"),
        ({"path": ["a/0.png"], "class": [1.0]}, "its column 'class' must be text; it is double"),
        ({"path": ["a/0.png", None]}, "row 1, counted from 0: the path None is empty"),
        ({"path": ["../b.png"]}, "row 0, .*may leave the folder"),
        ({"path": ["s3://b/a.png"]}, "row 0, .*does not start with .*; give --root"),
        ({"path": ["/b/a.png"]}, "row 0, .*does not start with .*; give --root"),
        ({"path": ["b.png", "a.png", "b.png"]}, "row 2, .*has the path of row 0, 'b.png'"),
        ({"path": ["x" * 5000]}, "the texts of its column 'path' are too long"),
        ({"path": pa.array([], pa.string())}, "has no rows"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_parquet_file_of_something_else_is_refused(model, tmp_path, columns, said):
    named = write_table(tmp_path / "named.parquet", **columns)
    with pytest.raises(InputError, match=rf"^{named}: {said}"):
        embed_table(named, tmp_path / "t.parquet", model=model)
    assert not (tmp_path / "t.parquet" / "_embedding.json").exists()


def test_a_parquet_file_that_is_cut_off_or_missing_is_refused(model, tmp_path):
    named = write_table(tmp_path / "named.parquet", path=["a.png"] * 1000)
    named.write_bytes(named.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"named\.parquet: not a Parquet file, or a damaged one"):
        embed_table(named, tmp_path / "t.parquet", model=model)
    with pytest.raises(InputError, match=r"none\.parquet: cannot be read \(No such file"):
        embed_table(tmp_path / "none.parquet", tmp_path / "t.parquet", model=model)


def test_different_paths_of_one_hash_are_no_repetition(photos, model, tmp_path, monkeypatch):
    monkeypatch.setattr("deep_ranking.search.bulk_embedding.path_table._hash", len)
    named = write_table(tmp_path / "named.parquet", path=["zebra/0.png", "zebra/1.png"])
    done = embed_table(named, tmp_path / "t.parquet", model=model, root=photos)
    assert done.num_rows == 2


def test_a_damaged_part_or_record_is_refused(photos, model, tmp_path):
    table = tmp_path / "t.parquet"
    embed_table(photos, table, model=model, part_size=8)
    first, second = parts_of(table)
    whole = first.read_bytes()
    embed_table(photos / "zebra", tmp_path / "other.parquet", model=model, part_size=8)
    other = parts_of(tmp_path / "other.parquet")[0].read_bytes()
    for content in (whole[:100], second.read_bytes(), other):
        first.write_bytes(content)
        with pytest.raises(InputError, match=r"part-00000\.parquet: damaged, or no part 0 of"):
            embed_table(photos, table, model=model, part_size=8)
    first.write_bytes(whole)
    record = table / "_embedding.json"
    for old, new in (('"version": 1', '"version": 2'), ('"part_size": 8', '"part_size": "8"')):
        text = record.read_text()
        record.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=r"_embedding\.json: not what `embed` of this version"):
            embed_table(photos, table, model=model, part_size=8)
        record.write_text(text)


def test_an_output_that_is_something_else_is_refused(photos, model, tmp_path):
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "folder.parquet" / "mine.txt").write_text("mine")
    (tmp_path / "file.parquet").write_text("mine")
    for name, said in (
        ("folder.parquet", "holds other files, such as mine.txt"),
        ("file.parquet", "is a file"),
        ("table", "expected the name of a folder that ends in .parquet"),
    ):
        with pytest.raises(InputError, match=said):
            embed_table(photos, tmp_path / name, model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.parquet", "folder.parquet"]
    for changes, said in (
        ({"part_size": 0}, "part_size must be 1 or more. Received: 0"),
        ({"workers": 0}, "workers must be 1 or more"),
        ({"engine": "spark"}, "engine must be one of local, ray. Received: spark"),
        ({"root": "x"}, "root is for a Parquet file of paths"),
        ({"precision": "int8"}, "not compiled in int8"),
    ):
        with pytest.raises(InputError, match=said):
            embed_table(photos, tmp_path / "t.parquet", model=model, **changes)


def test_a_table_that_another_process_writes_to_is_refused(photos, model, tmp_path):
    table = tmp_path / "t.parquet"
    table.mkdir()
    with (
        FileLock(table / ".lock"),
        pytest.raises(InputError, match=r"t\.parquet: another process writes to it"),
    ):
        embed_table(photos, table, model=model)
    assert embed_table(photos, table, model=model).num_rows == 14


def test_names_that_are_no_text_are_counted(photos, model, tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    shutil.copy(photos / "a/0.png", root / "0.png")
    shutil.copy(photos / "a/0.png", os.fsencode(root) + b"/\xff.png")
    done = embed_table(root, tmp_path / "t.parquet", model=model)
    assert list(rows_of(done.path)) == ["0.png"]
    assert "1 image left out: a name that is no Unicode text" in done.lines[-1]


def test_an_object_that_is_too_large_is_not_read(bucket, model, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 1_000)
    bucket.pipe("/bucket/photos/a/large.png", bytes(1_001))
    done = embed_table("memory://bucket/photos", tmp_path / "t.parquet", model=model)
    assert left_out_of(done.path) == [
        ("a/large.png", "broken", "1,001 bytes are more than expected")
    ]


def test_none_of_the_images_can_be_read(model, tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"photos: no image in it"):
        embed_table(tmp_path / "photos", tmp_path / "t.parquet", model=model)
    (tmp_path / "photos/a.png").write_text("none")
    with pytest.raises(InputError, match=r"none of its 1 image can be embedded; .*_left_out\.csv"):
        embed_table(tmp_path / "photos", tmp_path / "t.parquet", model=model)


def test_the_command_tells_what_it_did(photos, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["--model", str(model), "--images", str(photos), "--output", "t.parquet"]
    assert run_command("embed", argv) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "14 images, 3 classes (the first folder)."
    assert last == (
        "t.parquet: 14 images in 1 part. Index: python -m deep_ranking index --from_parquet "
        f"t.parquet --model {model} --output INDEX"
    )
    assert run_command("embed", [*argv, "--part_size", "5"]) == 1
    assert capsys.readouterr().err.startswith("error: t.parquet: made with --part_size 1000, not 5")


@pytest.mark.parametrize(
    ("images", "flags", "said"),
    [
        ("photos", "--root x", "--root has no effect without a Parquet file"),
        ("photos", "--address auto", "--address has no effect without --engine ray"),
        ("photos", "--workers 2", "--workers has no effect without --engine ray"),
        ("photos", "--label parent --classes c.csv", "--label has no effect with --classes"),
        ("s3://b", "--by_content", "--by_content has no effect with an address"),
        ("s3://b", "--corrections c.csv", "--corrections has no effect with an address"),
        ("s3://b/x.parquet", "--label parent", "--label has no effect with a Parquet file"),
        ("x.parquet", "--classes c.csv", "--classes has no effect with a Parquet file"),
    ],
)
def test_flags_that_cannot_act_are_refused(capsys, images, flags, said):
    with pytest.raises(SystemExit) as end:
        run_command("embed", f"-m m.h5 --images {images} -o t.parquet {flags}".split())
    assert end.value.code == 2 and said in capsys.readouterr().err
