import hashlib
import os
import pwd
import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest

from deep_ranking.files import InputError, content_digest, open_regular
from deep_ranking.files.content_digest import TABLE, content_digests, file_status


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A table of this test alone, in which files count as settled at once."""
    monkeypatch.setenv("DEEP_RANKING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content_digest, "SETTLED_SECONDS", -60.0)
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "photos" / f"{number}.png" for number in range(5)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (1000 + number))
    return paths


class Reader:
    """Opens files, and notes which."""

    def __init__(self):
        self.read = []
        self.lock = threading.Lock()

    def __call__(self, path):
        with self.lock:
            self.read.append(path)
        return open_regular(path)


def digests(paths, **options):
    reader = Reader()
    found = list(content_digests(paths, open_file=reader, **options))
    return found, sorted(reader.read)


def expected(paths):
    return [hashlib.sha256(path.read_bytes()).digest() for path in paths]


def test_one_file_and_several(files):
    assert content_digest.content_digest(files[1]) == expected(files)[1]
    whole = hashlib.sha256(files[1].read_bytes() + files[3].read_bytes()).digest()
    assert content_digest.content_digest(files[1], files[3]) == whole


def test_a_known_file_is_not_read_again(files):
    assert digests(files[:3]) == (expected(files)[:3], files[:3])
    assert digests(files) == (expected(files), files[3:])
    assert digests(files[::-1]) == (expected(files)[::-1], [])
    assert digests(files, trust_table=False) == (expected(files), files)


def test_paths_are_the_same_however_they_are_written(files, monkeypatch):
    digests(files)
    monkeypatch.chdir(files[0].parent)
    assert digests(["2.png", "../photos/3.png"]) == (expected(files)[2:4], [])


def same_times(path, status):
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_file_replaced_by_one_of_equal_size_and_time_is_read(files):
    digests(files)
    status = files[0].stat()
    other = files[0].with_name("other")
    other.write_bytes(b"x" * 1000)
    same_times(other, status)
    other.replace(files[0])
    assert digests(files) == (expected(files), files[:1])


def test_a_file_written_over_in_place_is_read(files):
    digests(files)
    status = files[0].stat()
    files[0].write_bytes(b"y" * 1000)
    same_times(files[0], status)
    assert digests(files) == (expected(files), files[:1])


def test_a_file_that_changed_just_now_is_not_remembered(files, monkeypatch):
    monkeypatch.setattr(content_digest, "SETTLED_SECONDS", 3.0)
    assert digests(files) == (expected(files), files)
    assert digests(files) == (expected(files), files)
    now = content_digest.time.time()
    monkeypatch.setattr(content_digest.time, "time", lambda: now + 4)
    assert digests(files)[1] == files
    assert digests(files)[1] == []


def test_a_file_that_changes_while_it_is_read_is_not_remembered(files):
    class Growing:
        def __init__(self, path):
            self.path, self.file = path, open_regular(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def readinto(self, buffer):
            size = self.file.readinto(buffer)
            if size:
                with self.path.open("ab") as handle:
                    handle.write(b"!")
                self.path = self.path.with_name("nothing")
            return size

    list(content_digests(files[:1], open_file=Growing))
    assert digests(files[:1]) == (expected(files[:1]), files[:1])


def test_what_cannot_be_read_is_returned_in_its_place(files):
    files[1].unlink()
    files[3].unlink()
    os.mkfifo(files[3])
    found, _ = digests(files)
    assert [isinstance(each, bytes) for each in found] == [True, False, True, False, True]
    assert isinstance(found[1], InputError) and str(files[1]) in str(found[1])
    assert "not a regular file" in str(found[3])


def test_more_files_than_one_transaction_holds(files, monkeypatch):
    monkeypatch.setattr(content_digest, "FILES_AT_ONCE", 2)
    assert digests(files) == (expected(files), files)
    assert digests(files) == (expected(files), [])


def misspelt_schema():
    """A database that SQLite refuses with a message that is not UTF-8."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE spelt (a)")
        return base.serialize().replace(b"TABLE", b"TABEL").replace(b"spelt", b"\xffpelt")


@pytest.mark.parametrize(
    "content",
    [b"", b"no database", b"SQLite format 3\0" + bytes(4000), misspelt_schema()],
    ids=["empty", "text", "zeros", "not UTF-8"],
)
def test_a_damaged_table_is_begun_anew(files, cache, content):
    cache.mkdir()
    (cache / TABLE).write_bytes(content)
    assert digests(files) == (expected(files), files)
    assert digests(files) == (expected(files), [])


def test_a_table_of_another_version_is_begun_anew(files, cache):
    digests(files)
    with sqlite3.connect(cache / TABLE) as base:
        base.execute("PRAGMA user_version = 9")
    base.close()
    assert digests(files)[1] == files
    assert digests(files)[1] == []


@pytest.mark.parametrize("obstacle", ["file", "folder", "pipe", "locked", "long name"])
def test_without_a_table_every_file_is_read(files, cache, obstacle, monkeypatch):
    monkeypatch.setattr(content_digest, "SECONDS_TO_WAIT", 0.1)
    if obstacle == "file":
        cache.write_bytes(b"in the way")
    else:
        cache.mkdir()
    if obstacle == "folder":
        (cache / TABLE).mkdir()
    if obstacle == "pipe":
        os.mkfifo(cache / TABLE)
    if obstacle == "long name":  # asking for it is an error, as in a folder that may not be entered
        monkeypatch.setenv("DEEP_RANKING_CACHE", str(cache / ("x" * 300)))
    if obstacle == "locked":
        digests(files[:1])
        other = sqlite3.connect(cache / TABLE)
        other.execute("BEGIN EXCLUSIVE")
    for _ in range(2):
        assert digests(files) == (expected(files), files)
    if obstacle == "locked":
        other.close()


def test_without_a_home_every_file_is_read(files, tmp_path, monkeypatch):
    for name in ("DEEP_RANKING_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # as of a user whom nobody added
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert digests(files) == (expected(files), files)
    assert [each.name for each in tmp_path.iterdir()] == ["photos"]


def test_an_inode_may_have_any_number(files, monkeypatch):
    def numbered(ask):
        def answer(*arguments, **options):
            kind, (values, others) = ask(*arguments, **options).__reduce__()
            return kind((values[0], values[1] | 1 << 63, *values[2:]), others)

        return answer

    for name in ("stat", "fstat"):
        monkeypatch.setattr(os, name, numbered(getattr(os, name)))
    assert digests(files) == (expected(files), files)
    assert digests(files) == (expected(files), [])


def test_old_entries_are_forgotten(files, cache, monkeypatch):
    digests(files)
    now = content_digest.time.time()
    monkeypatch.setattr(content_digest.time, "time", lambda: now + 400 * 86_400)
    files[0].write_bytes(b"new")
    digests(files[:1])
    with sqlite3.connect(cache / TABLE) as base:
        assert base.execute("SELECT COUNT(*) FROM contents").fetchone() == (1,)
    base.close()


def test_a_path_that_no_file_can_have_is_returned_as_an_error(files):
    found, _ = digests([files[0], files[0].with_name("a\0b.png"), files[1]])
    assert isinstance(found[1], InputError) and "null byte" in str(found[1])
    assert [found[0], found[2]] == expected(files[:2])


def test_times_beyond_what_a_table_holds_are_bounded():
    """ext4 dates files up to 2446; SQLite holds 63 bits of nanoseconds, up to 2262."""
    status = SimpleNamespace(st_size=5, st_mtime_ns=2**64, st_ino=7, st_ctime_ns=2**65)
    assert file_status(status) == (5, 2**63 - 1, 7, 2**63 - 1)
    status = SimpleNamespace(st_size=5, st_mtime_ns=-(10**18), st_ino=7, st_ctime_ns=3)
    assert file_status(status) == (5, -(10**18), 7, 3)
