import io
import struct
import tarfile
import zipfile

import pytest
from archives import make_tar, make_zip

from deep_ranking.datasets.public import unpacking
from deep_ranking.datasets.public.unpacking import unpack
from deep_ranking.files import InputError

FILES = {"a/b/1.jpg": b"one" * 1000, "a/2.jpg": b"two", "./c/3.jpg": b"three", "a/notes.txt": b"n"}
HIDDEN = {"__MACOSX/a/1.jpg": b"x", "a/._1.jpg": b"x", ".git/1.jpg": b"x"}
KINDS = {
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": lambda files: make_tar(files, "w:gz"),
}


def run(tmp_path, data):
    """Unpack JPEG files in a folder of a folder, so that one that climbs out is seen."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True, exist_ok=True)
    archive = tmp_path / "archive"
    archive.write_bytes(data)
    return unpack(archive, folder, wanted=lambda name: name.endswith(".jpg"))


def written(tmp_path):
    return {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != "archive"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_wanted_files_and_no_others(tmp_path, kind):
    assert run(tmp_path, KINDS[kind](FILES | HIDDEN)) == 3
    assert written(tmp_path) == {
        "outer/inner/a/b/1.jpg": FILES["a/b/1.jpg"],
        "outer/inner/a/2.jpg": b"two",
        "outer/inner/c/3.jpg": b"three",
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "a/../../evil.jpg",
        "a/..",
        "/evil.jpg",
        "C:/evil.jpg",
        "..\\evil.jpg",
        "a/line\nbreak.jpg",
        "a/\x1b[2J.jpg",
    ],
)
def test_a_name_that_leads_elsewhere(tmp_path, kind, name):
    with pytest.raises(InputError, match="refused: the path") as error:
        run(tmp_path, KINDS[kind]({name: b"evil", "a/1.jpg": b"one"}))
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)
    assert written(tmp_path) == {}


def member(name, kind, target="", mode=0o777):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


@pytest.mark.parametrize(
    "info",
    [
        member("a", tarfile.SYMTYPE, "/tmp"),
        member("a/1.jpg", tarfile.SYMTYPE, "../../../secret"),
        member("a/1.jpg", tarfile.SYMTYPE, "2.jpg"),
        member("a/1.jpg", tarfile.LNKTYPE, "a/2.jpg"),
        member("a/1.jpg", tarfile.CHRTYPE),
        member("a/1.jpg", tarfile.BLKTYPE),
        member("a/1.jpg", tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices_in_a_tar(tmp_path, info):
    with pytest.raises(InputError, match="is a link, a device or a sparse file"):
        run(tmp_path, make_tar({"x": info, "a/1.jpg": b"through the link"}))
    assert written(tmp_path) == {}


def test_a_link_in_a_zip(tmp_path):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        link = zipfile.ZipInfo("a")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/tmp")
        archive.writestr("a/1.jpg", b"through the link")
    with pytest.raises(InputError, match="is a link or a device"):
        run(tmp_path, target.getvalue())
    assert written(tmp_path) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_too_much(tmp_path, kind, monkeypatch):
    zeros = KINDS[kind]({"a/1.jpg": bytes(60_000), "a/unwanted": bytes(60_000)})
    monkeypatch.setattr(unpacking, "MAX_BYTES", 120_000)
    assert run(tmp_path, zeros) == 1
    monkeypatch.setattr(unpacking, "MAX_BYTES", 119_999)
    with pytest.raises(InputError, match="more than 119,999 bytes when unpacked"):
        run(tmp_path, zeros)
    monkeypatch.undo()
    monkeypatch.setattr(unpacking, "MAX_MEMBERS", 1)
    with pytest.raises(InputError, match="more than 1 files in it"):
        run(tmp_path, zeros)


def test_what_follows_the_end_of_a_tar_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_BYTES", 100_000)
    with pytest.raises(InputError, match="more than 100,000 bytes when unpacked"):
        run(tmp_path, make_tar(FILES) + bytes(200_000))


def test_a_zip_that_lies_about_a_size(tmp_path):
    data = make_zip({"a/1.jpg": bytes(5000)})
    lie = data.replace(struct.pack("<I", 5000), struct.pack("<I", 50))
    assert lie != data
    with pytest.raises(InputError, match="broken or cut archive"):
        run(tmp_path, lie)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_cut_archive(tmp_path, kind, share):
    files = {f"a/{number}.jpg": bytes(range(256)) * 20 for number in range(9)}
    data = KINDS[kind](files).rstrip(b"\0")
    with pytest.raises(InputError, match="broken or cut archive"):
        run(tmp_path, data[: int(share * len(data))])


def test_a_tar_cut_between_two_members(tmp_path):
    """Python's reader takes that for the end."""
    files = {f"a/{number}.jpg": bytes(512) for number in range(9)}
    with pytest.raises(InputError, match="without the end mark"):
        run(tmp_path, make_tar(files)[: 5 * 1024])


def test_a_tar_with_a_broken_header_in_its_middle(tmp_path):
    """Python's reader takes that for the end, too."""
    data = bytearray(make_tar({f"a/{number}.jpg": b"x" * 512 for number in range(9)}))
    data[5 * 1024 + 148 : 5 * 1024 + 156] = b"01234567"  # the header's checksum
    with pytest.raises(InputError, match="without the end mark"):
        run(tmp_path, bytes(data))


def test_changed_bytes(tmp_path):
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("a/1.jpg", b"one" * 1000)
    for data in (stored.getvalue(), make_tar({"a/1.jpg": b"one" * 1000}, "w:gz")):
        changed = bytearray(data)
        changed[len(data) // 2 if data[:2] == b"PK" else -6] ^= 1  # pixels, or gzip's checksum
        with pytest.raises(InputError, match="broken or cut archive"):
            run(tmp_path, bytes(changed))


def test_no_archive(tmp_path):
    for data in (b"", b"<html>", b"\x89PNG" + bytes(3000)):
        with pytest.raises(InputError, match="broken or cut archive"):
            run(tmp_path, data)


def test_an_encrypted_zip(tmp_path):
    data = bytearray(make_zip({"a/1.jpg": b"one"}))
    data[6] |= 1  # flag of the file's own header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and of the directory's
    with pytest.raises(InputError, match="is encrypted"):
        run(tmp_path, bytes(data))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_below_a_file(tmp_path, kind):
    with pytest.raises(InputError, match="is a file and a folder"):
        run(tmp_path, KINDS[kind]({"a.jpg": b"one", "a.jpg/2.jpg": b"two"}))
