import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from collections_of import OLD_TABLE

from deep_ranking.files import InputError
from deep_ranking.search.collection import GalleryImage, ImageTable
from deep_ranking.search.collection.records import FoundFile

A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a?b#c%20" / "images.sqlite"  # what means something in a URI


@pytest.fixture
def table(file):
    file.parent.mkdir()
    with closing(ImageTable(file, writable=True)) as table:
        yield table


def put(table, path, content, label="", *, size=1, changed=1):
    with table.change():
        table.record(FoundFile(path, size, changed, label), content)


def dump(file):
    """What plain SQLite finds in the file."""
    with closing(sqlite3.connect(file)) as base:
        return base.execute(
            "SELECT path, class, size, changed, content, row, problem FROM images ORDER BY path"
        ).fetchall()


def test_file_is_a_plain_data_base(table, file):
    put(table, "k/a.jpg", A, "k", size=5, changed=7)
    with table.change():
        table.set_row(A, 3)
    put(table, "b.jpg", B, "", size=6, changed=8)
    with table.change():
        table.set_problem(B, "broken")
    assert dump(file) == [
        (b"b.jpg", b"", 6, 8, B, None, "broken"),
        (b"k/a.jpg", b"k", 5, 7, A, 3, None),
    ]


def test_images_rows_and_problems(table):
    for path, content in (("b", A), ("a", A), ("c", B), ("d", C), ("e", bytes(32))):
        put(table, f"{path}.jpg", content, path)
    with table.change():
        table.set_row(A, 4)
        table.set_row(B, 0)
        table.set_problem(C, "no image")
    assert len(table) == 3
    assert table.rows().tolist() == [0, 4]
    assert table.rows().dtype == np.int64
    a, b, c = (
        GalleryImage(f"{path}.jpg", path, row) for path, row in [("a", 4), ("b", 4), ("c", 0)]
    )
    assert list(table.images()) == [a, b, c]
    assert table.of_rows([4, 0, 9]) == {4: [a, b], 0: [c]}
    assert table.broken() == [("d.jpg", "no image")]
    assert table.pending() == [(bytes(32), "e.jpg")]
    assert table.num_rows_needed() == 5
    assert table.count_known([FoundFile(f"{path}.jpg", 1, 1) for path in "abdx"]) == 2


def test_images_of_each_class_are_counted_by_the_bytes_of_its_name(table, file):
    for path, label in (("a", "é"), ("b", "z"), ("c", ""), ("d", "é"), ("e", "broken")):
        put(table, f"{path}.jpg", C if label == "broken" else A, label)
    with table.change():
        table.set_row(A, 0)
        table.set_problem(C, "no image")
    assert list(table.classes().items()) == [("", 1), ("z", 1), ("é", 2)]
    with closing(sqlite3.connect(file)) as base, base:
        base.execute("UPDATE images SET class = 7 WHERE path = ?", (b"a.jpg",))
    with pytest.raises(InputError, match=r"images\.sqlite: damaged: it holds an invalid path"):
        table.classes()


def test_the_ends_of_the_rows_are_looked_up_not_searched_for(table, file):
    for path, content in (("a", A), ("b", B), ("c", C)):
        put(table, f"{path}.jpg", content, path)
    with table.change():
        table.set_row(B, 3)
        table.set_row(C, 7)
    asked = []
    table.base.set_trace_callback(asked.append)
    assert table.num_rows_needed() == 8
    with closing(sqlite3.connect(file)) as base:
        plan = [line for (*_, line) in base.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
    assert not [line for line in plan if line.startswith("SCAN images")], plan


def test_empty_table(table):
    assert len(table) == 0
    assert table.rows().shape == (0,)
    assert table.rows().dtype == np.int64
    assert list(table.images()) == table.broken() == table.pending() == []
    assert table.of_rows([]) == table.of_rows([1]) == {}
    assert table.num_rows_needed() == 0


def test_more_rows_than_a_query_takes(table):
    with table.change():
        for number in range(1203):
            content = number.to_bytes(32)
            table.record(FoundFile(f"{number:04}.jpg", 1, 1), content)
            table.set_row(content, number)
    found = table.of_rows(np.arange(1203))  # NumPy's integers too
    assert {row: [image.path for image in images] for row, images in found.items()} == {
        number: [f"{number:04}.jpg"] for number in range(1203)
    }


@pytest.mark.parametrize(
    "path",
    [
        "a'b\"c/;DROP TABLE images;--.jpg",
        "Ü/日本.jpg",
        "e\u0301/\u00e9.jpg",
        os.fsdecode(b"\xff\xfe/\x80.jpg"),
        " / .jpg",
        "%/_.jpg",
        "\t.jpg",
    ],
)
def test_paths_come_back_as_they_were(table, file, path):
    label = path.partition("/")[0]
    put(table, path, A, label)
    put(table, "other.jpg", B)
    with table.change():
        table.set_row(A, 0)
    with closing(ImageTable(file)) as other:
        assert list(other.images()) == [GalleryImage(path, label, 0)]
        assert other.of_rows([0])[0][0].path == path
    assert os.fsencode(path) in [row[0] for row in dump(file)]
    table.record_found([FoundFile(path, 1, 1), FoundFile("other.jpg", 1, 2)])
    assert table.changed() == [FoundFile("other.jpg", 1, 2)]
    with table.change():
        assert table.remove_others() == 0
    with table.change():
        table.set_problem(B, f"{path}: broken")
    assert table.broken()[0][1].endswith(": broken")


def test_changed_are_those_of_another_size_or_time(table):
    put(table, "a.jpg", A, size=10, changed=100)
    put(table, "b.jpg", B, size=10, changed=100)
    put(table, "gone.jpg", C, size=10, changed=100)
    same = FoundFile("a.jpg", 10, 100)
    for other in (FoundFile("b.jpg", 11, 100), FoundFile("b.jpg", 10, 99), FoundFile("B", 10, 100)):
        table.record_found([other, same])
        assert table.changed() == [other]
        assert table.changed(every=True) == sorted([other, same], key=lambda each: each.path)
    table.record_found([])  # what was noted before counts no more
    assert table.changed(every=True) == []


def test_what_is_not_found_is_removed(table, file):
    for path in ("a.jpg", "b.jpg", "c.jpg"):
        put(table, path, A)
    table.record_found([FoundFile("b.jpg", 5, 5)])
    with table.change():
        assert table.remove_others() == 2
    assert [row[0] for row in dump(file)] == [b"b.jpg"]


def test_content_that_is_known_takes_its_row(table, file):
    put(table, "a.jpg", A, "k")
    with table.change():
        table.set_row(A, 7)
    put(table, "new/copy.jpg", A, "new", size=3, changed=4)
    put(table, "a.jpg", A, "k", changed=2)  # touched
    assert dump(file) == [
        (b"a.jpg", b"k", 1, 2, A, 7, None),
        (b"new/copy.jpg", b"new", 3, 4, A, 7, None),
    ]
    put(table, "a.jpg", B, "k", changed=3)  # edited
    assert [row[5] for row in dump(file)] == [None, 7]
    assert table.pending() == [(B, "a.jpg")]


def test_broken_content_is_tried_again_and_may_be_whole_then(table):
    put(table, "a.jpg", A)
    with table.change():
        table.set_problem(A, "no image")
    assert table.pending() == []
    put(table, "a.jpg", A, changed=2)
    assert table.pending() == [(A, "a.jpg")]
    with table.change():
        table.set_problem(A, "no image")
        table.set_row(A, 1)
    assert table.broken() == []
    assert len(table) == 1


def test_pending_gives_each_content_once_by_its_first_path(table):
    for path, content in (("d", A), ("b", B), ("c", A), ("a", C), ("e", B)):
        put(table, path, content)
    assert table.pending() == [(C, "a"), (B, "b"), (A, "c")]


def test_rows_that_were_lost_are_forgotten(table):
    for row, content in enumerate((A, B, C)):
        put(table, f"{row}.jpg", content)
        with table.change():
            table.set_row(content, row)
    with table.change():
        table.forget_rows([], begin=1)
    assert table.rows().tolist() == [0]
    assert [content for content, _ in table.pending()] == [B, C]


def test_a_change_that_raises_is_none(table, file):
    put(table, "a.jpg", A)
    before = dump(file)
    with pytest.raises(KeyboardInterrupt), table.change():
        table.record(FoundFile("b.jpg", 1, 1), B)
        table.set_row(A, 5)
        raise KeyboardInterrupt
    assert dump(file) == before
    put(table, "b.jpg", B)  # and the table can be changed again
    assert len(dump(file)) == 2


def test_a_full_disk_is_said_where_sqlite_has_rolled_back_itself(table, file):
    with (
        pytest.raises(InputError, match=r"cannot be written \(database or disk is full\)"),
        table.change(),
    ):
        table._base.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")
    put(table, "a.jpg", A)
    assert len(dump(file)) == 1


def test_readers_do_not_write(table, file):
    with (
        closing(ImageTable(file)) as reader,
        pytest.raises(InputError, match="cannot be written"),
        reader.change(),
    ):
        reader.record(FoundFile("a.jpg", 1, 1), A)
    assert dump(file) == []


def test_readers_see_what_is_committed_while_another_writes(table, file):
    put(table, "a.jpg", A)
    with table.change():
        table.set_row(A, 0)
        with closing(ImageTable(file)) as reader:
            assert len(reader) == 0
    with closing(ImageTable(file)) as reader:
        assert len(reader) == 1


def test_readers_mend_what_a_killed_writer_left(table, file):
    put(table, "a.jpg", A)
    with table.change():
        table.set_row(A, 0)
    before = dump(file)
    table.close()
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from deep_ranking.search.collection.image_table import ImageTable
        from deep_ranking.search.collection.records import FoundFile
        table = ImageTable(Path(sys.argv[1]), writable=True)
        with table.change():
            for number in range(20_000):  # more than stays in memory
                table.record(FoundFile(f"{number}.jpg", 1, 1), os.urandom(32))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (file.parent / "images.sqlite-journal").stat().st_size > 0
    with closing(ImageTable(file)) as reader:
        assert list(reader.images()) == [GalleryImage("a.jpg", "", 0)]
    assert dump(file) == before


@pytest.mark.parametrize("writable", [False, True])
def test_what_is_no_table_is_refused_in_one_line(tmp_path, writable):
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as base:
        base.execute("CREATE TABLE images (path TEXT)")
        base.commit()
    text = tmp_path / "text.sqlite"
    text.write_text("no data base\n" * 1000)
    for path in (other, text, tmp_path, tmp_path / "no" / "such.sqlite"):
        with pytest.raises(InputError, match="not the list of images") as caught:
            ImageTable(path, writable=writable)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_a_missing_table_is_made_only_by_a_writer(tmp_path):
    file = tmp_path / "images.sqlite"
    with pytest.raises(InputError, match="unable to open"):
        ImageTable(file)
    assert not file.exists()
    ImageTable(file, writable=True).close()
    with closing(ImageTable(file)) as table:
        assert len(table) == 0


def test_a_damaged_table_is_an_error_in_one_line(table, file):
    with table.change():
        for number in range(2000):
            content = number.to_bytes(32)
            table.record(FoundFile(f"{number:04}.jpg", 1, 1), content)
            table.set_row(content, number)
    table.close()
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(content[:half] + b"\xa5" * (len(content) - half))
    with closing(ImageTable(file)) as damaged:
        for read in (
            lambda: list(damaged.images()),
            lambda: damaged.of_rows(list(range(2000))),
        ):
            with pytest.raises(InputError, match="cannot be read") as caught:
                read()
            assert str(caught.value).startswith(f"{file}: ")
    with (
        closing(ImageTable(file, writable=True)) as damaged,
        pytest.raises(InputError, match="cannot be"),
        damaged.change(),
    ):
        damaged.remove_others()


@pytest.mark.parametrize("value", [None, "text", 1 << 70])
def test_a_row_that_a_damaged_index_gives_is_refused(tmp_path, monkeypatch, value):
    """SQLite trusts its own index, so one with a flipped bit gives what the query excludes."""
    table = ImageTable(tmp_path / "images.sqlite", writable=True)
    monkeypatch.setattr(table, "num_rows_needed", lambda: 3)
    monkeypatch.setattr(table, "num_rows", lambda: 2)
    monkeypatch.setattr(table, "_select", lambda *_: iter([(0,), (value,), (2,)]))
    with pytest.raises(InputError, match="an invalid row number"):
        table.rows()
    table.close()


@pytest.fixture
def old_file(tmp_path):
    """A table as versions 1 and 2 of `collection.json` had it."""
    file = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(file)) as base:
        base.execute(OLD_TABLE)
        base.execute("CREATE INDEX IF NOT EXISTS images_by_row ON images (row)")
        base.execute("CREATE INDEX IF NOT EXISTS images_by_content ON images (content)")
        row = (b"k/a.jpg", b"k", 5, 7, A, 3, None)
        base.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        base.commit()
    return file


def columns(file):
    with closing(sqlite3.connect(file)) as base:
        return [row[1] for row in base.execute("PRAGMA table_info(images)")]


def test_readers_take_an_old_table_as_it_is(old_file):
    before = old_file.read_bytes()
    with closing(ImageTable(old_file)) as table:
        assert list(table.images()) == [GalleryImage("k/a.jpg", "k", 3)]
        assert list(table.files()) == [FoundFile("k/a.jpg", 5, 7, "k", None, None)]
        assert table.rows().tolist() == [3]
    assert old_file.read_bytes() == before


def test_a_writer_adds_the_columns_and_keeps_the_rows(old_file):
    with closing(ImageTable(old_file)) as reader:
        for _ in range(2):
            with closing(ImageTable(old_file, writable=True)) as table:
                assert list(table.images()) == [GalleryImage("k/a.jpg", "k", 3)]
        assert list(reader.files()) == [FoundFile("k/a.jpg", 5, 7, "k")]  # opened before
    assert columns(old_file)[-2:] == ["inode", "inode_changed"]
    file = FoundFile("k/a.jpg", 5, 7, "k", 11, 13)
    with closing(ImageTable(old_file, writable=True)) as table:
        table.record_found([file])
        assert table.changed() == [file]  # hashed once more, because its inode is not known
        with table.change():
            table.record(file, A)
        assert table.changed() == []
        assert table.rows().tolist() == [3]
    with closing(ImageTable(old_file)) as table:
        assert list(table.files()) == [file]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW other AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON images BEGIN DELETE FROM images; END",
        "CREATE TABLE others (path)",
        "ALTER TABLE images ADD COLUMN inode INTEGER",
        "ALTER TABLE images ADD COLUMN inode INTEGER DEFAULT 5",
        "CREATE INDEX odd ON images (abs(size))",
    ],
)
@pytest.mark.parametrize("writable", [False, True])
def test_an_old_table_with_anything_else_is_refused(old_file, statement, writable):
    with closing(sqlite3.connect(old_file)) as base:
        base.execute(statement)
        base.commit()
    before = old_file.read_bytes()
    with pytest.raises(InputError, match="not the list of images"):
        ImageTable(old_file, writable=writable)
    assert old_file.read_bytes() == before


@pytest.mark.parametrize("changes", [{"inode": 9}, {"inode_changed": 9}, {"inode": None}])
def test_another_inode_or_its_change_counts(table, changes):
    file = FoundFile("a.jpg", 1, 2, "", 3, 4)
    with table.change():
        table.record(file, A)
    table.record_found([file])
    assert table.changed() == []
    table.record_found([replace(file, **changes)])
    assert table.changed() == [replace(file, **changes)]
