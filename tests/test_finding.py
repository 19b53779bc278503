"""Which files of a folder tree are listed as images, and how the others are counted."""

import dataclasses
import os
import shutil
from collections import Counter

import pytest
from conftest import IMAGE_TREE
from PIL import Image

from deep_ranking.datasets import read_folder
from deep_ranking.files import InputError
from deep_ranking.images import find_images, is_image_name, list_names, read_image
from deep_ranking.images.formats import missing_extra


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_listing_of_a_tree(image_tree):
    listing = find_images(str(image_tree))
    assert listing.root == image_tree
    expected = [f"{folder}/{name}" for folder in sorted(IMAGE_TREE) for name in IMAGE_TREE[folder]]
    assert listing.paths == ["loose.jpg", *expected]
    assert listing.left_out.num_unlistable == 0
    for path in listing.paths:
        assert read_image(image_tree / path, 8).shape == (8, 8, 3)


def test_no_image_is_opened(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/2.jpg")  # no image at all
    (tmp_path / "a" / "broken.jpg").symlink_to(tmp_path / "nowhere")
    assert find_images(tmp_path).paths == ["a/1.jpg", "a/broken.jpg", "b/2.jpg"]


def test_names_of_objects_are_listed_as_files_are(image_tree, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(image_tree, root)
    for name in (
        "@eaDir/1.jpg",
        "cats/@eaDir/deep/2.jpg",
        "cats/@eaDir/3.jpg",
        "cats/.deep/a/4.jpg",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    found, listed = find_images(root), list_names("s3://bucket", ["", "cats/", *reversed(names)])
    assert listed.paths == found.paths
    assert dataclasses.replace(found.left_out, empty_folders=()) == listed.left_out
    with pytest.raises(
        InputError, match=r"^s3://bucket: no image in it\. 1 file left out: no image by"
    ):
        list_names("s3://bucket", ["notes.txt"])


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    names = [f"{folder}/{name}.jpg" for folder in "bca" for name in ("z", "A", "m/x", "10", "9")]
    touch(tmp_path, *names)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *details):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert find_images(tmp_path).paths == sorted(names)


@pytest.mark.parametrize(
    "name", ["x.jpg", "x.JPG", "x.Jpeg", "x.bmp", "x.PNG", "x.ppm", "x.GIF", "x.tIff", "x.webp"]
)
def test_image_names(name):
    assert is_image_name(name)
    assert is_image_name(f"a.b/c d/{name}")


@pytest.mark.parametrize("name", ["x", "jpg", "x.txt", "x.jpg.txt", "x.jpg~", "a.jpg/x", "x.jpgg"])
def test_names_of_other_files(name):
    assert not is_image_name(name)


def test_folders_below_a_class_belong_to_it(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/x/2.jpg", "a/x/y/3.jpg", "b/only/deep/4.jpg", "c/none/x.txt")
    data = read_folder(tmp_path)
    assert data.paths == ["a/1.jpg", "a/x/2.jpg", "a/x/y/3.jpg", "b/only/deep/4.jpg"]
    assert data.items.codes.tolist() == [0, 0, 0, 1]
    assert data.items.names == ["a", "b"]


def test_folder_named_like_an_image_is_a_folder(tmp_path):
    touch(tmp_path, "a/x.jpg/1.png", "b.jpg/2.png")
    listing = find_images(tmp_path)
    assert listing.paths == ["a/x.jpg/1.png", "b.jpg/2.png"]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/.2.jpg", "a/.x/3.jpg", ".b/4.jpg", ".5.jpg", "c/6.jpg")
    listing = find_images(tmp_path)
    assert listing.paths == ["a/1.jpg", "c/6.jpg"]
    assert listing.left_out.num_hidden == 4  # what a hidden folder holds is not counted


def test_links_are_followed_and_cycles_end(tmp_path, time_limit):
    root = tmp_path / "root"
    touch(root, "a/1.jpg", "b/2.jpg")
    touch(tmp_path, "elsewhere/3.jpg", "elsewhere/x/4.jpg")
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "x" / "back").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "link.jpg").symlink_to(root / "a" / "1.jpg")
    (root / "c").symlink_to(root / "b")  # a class by another name
    assert find_images(root).paths == [
        "a/1.jpg",
        "a/there/3.jpg",
        "a/there/x/4.jpg",
        "b/2.jpg",
        "b/link.jpg",
        "c/2.jpg",
        "c/link.jpg",
    ]


def test_names_with_a_line_break_are_left_out_and_counted(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2\n.jpg", "a/3\r.jpg", "a/x\ny/4.jpg", "a/n\n.txt", "b/5.jpg")
    touch(tmp_path, "c\n/6.jpg", "c\n/7.jpg")  # a whole class
    listing = find_images(tmp_path)
    assert listing.paths == ["a/1.jpg", "b/5.jpg"]
    assert listing.left_out.num_unlistable == 5


def test_names_that_are_no_unicode(tmp_path):
    (tmp_path / "a").mkdir()
    try:
        (tmp_path / "a" / os.fsdecode(b"\xff\xfe.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes names of Unicode only")
    (path,) = find_images(tmp_path).paths
    assert os.fsencode(path) == b"a/\xff\xfe.jpg"
    assert (tmp_path / path).exists()


def test_loose_images_belong_to_no_class(tmp_path):
    touch(tmp_path, "1.jpg", "2.PNG", "3.txt", "a/4.jpg")
    assert find_images(tmp_path).paths == ["1.jpg", "2.PNG", "a/4.jpg"]
    data = read_folder(tmp_path)
    assert data.paths == ["a/4.jpg"]
    assert data.left_out.num_outside == 2


def listing_error(root):
    with pytest.raises(InputError) as caught:
        find_images(root)
    message = str(caught.value)
    assert message.startswith(f"{root}: ")
    assert "\n" not in message
    return message


def test_no_such_folder(tmp_path):
    assert "no such folder" in listing_error(tmp_path / "x")
    touch(tmp_path, "file.jpg")
    assert "no such folder" in listing_error(tmp_path / "file.jpg")


def test_folder_without_images(tmp_path):
    assert listing_error(tmp_path).endswith("no image in it")
    touch(tmp_path, "a/notes.txt", "b/x/.hidden.jpg")
    message = listing_error(tmp_path)
    assert "1 file left out: no image by the name (1 .txt)" in message
    assert "1 hidden file or folder left out" in message


def test_other_files_are_counted_by_kind(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/notes.txt", "a/NOTES.TXT", "b/film.mp4", "b/IMG_1", "Thumbs.db")
    left_out = find_images(tmp_path).left_out
    assert left_out.others == Counter({".txt": 2, ".mp4": 1, "": 1, "thumbs.db": 1})
    (line,) = (note for note in left_out.notes() if "no image" in note and "file" in note)
    assert line.startswith("5 files left out: no image by the name (2 .txt, ")
    assert "1 without extension" in line and "--by_content" in line


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "__MACOSX",
        "System Volume Information",
        "@Recycle",
        "Lightroom Previews.lrdata",
        "found.000",
    ],
)
def test_folders_of_systems_are_left_out_and_counted(tmp_path, name):
    touch(tmp_path, "a/1.jpg", f"a/{name}/1.jpg/thumb.jpg", f"{name}/2.jpg")
    listing = find_images(tmp_path)
    assert listing.paths == ["a/1.jpg"]
    assert listing.left_out.system_folders == {name: 2}
    assert any(name in note and "2 folders" in note for note in listing.left_out.notes())


def test_folders_without_images_are_named_once(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/empty/note.txt", "b/x/y/note.txt", "b/z/note.txt")
    (tmp_path / "c").mkdir()
    assert find_images(tmp_path).left_out.empty_folders == ("a/empty", "b", "c")


def test_a_folder_that_may_not_be_read_is_counted(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.jpg", "a/closed/2.jpg", "b/3.jpg")
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    listing = find_images(tmp_path)
    assert listing.paths == ["a/1.jpg", "b/3.jpg"]
    assert listing.left_out.unreadable == ("a/closed",)
    assert listing.left_out.empty_folders == ()
    assert "1 folder left out: may not be read (a/closed)" in next(listing.left_out.notes())
    monkeypatch.setattr(os, "scandir", lambda path: refusing("closed"))
    assert "may not be read" in listing_error(tmp_path)


def test_images_by_their_first_bytes(tmp_path):
    picture = Image.new("RGB", (8, 8), "red")
    (tmp_path / "a").mkdir()
    picture.save(tmp_path / "a" / "IMG_0001", "JPEG")
    picture.save(tmp_path / "a" / "x.dat", "PNG")
    for name, text in (("notes", "no image"), ("BMI", "BMI,height"), ("plan", "P6 the plan")):
        (tmp_path / "a" / name).write_text(text)
    os.mkfifo(tmp_path / "a" / "pipe")  # opening it would wait for ever
    with pytest.raises(InputError, match="no image in it"):
        find_images(tmp_path)
    listing = find_images(tmp_path, by_content=True)
    assert listing.paths == ["a/IMG_0001", "a/x.dat"]
    assert listing.left_out.others == {"": 4}
    assert list(listing.left_out.notes()) == [
        "4 files left out: no image by name or content (4 without extension)."
    ]


def test_images_whose_reader_is_not_installed(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.jpg", "a/IMG.HEIC", "b/IMG.heic")
    monkeypatch.setattr("deep_ranking.images.formats.find_spec", lambda name: None)
    assert missing_extra("HEIF") == "deep-ranking[heif]"
    assert missing_extra("JPEG") is None
    listing = find_images(tmp_path)
    assert listing.paths == ["a/1.jpg"]
    assert listing.left_out.without_reader == {"HEIF": 2}
    assert listing.left_out.empty_folders == ()  # b may hold nothing else, and is not empty
    assert next(listing.left_out.notes()).startswith("2 HEIF images left out")
    assert "install deep-ranking[heif]" in next(listing.left_out.notes())
    monkeypatch.setattr("deep_ranking.images.formats.find_spec", lambda name: object())
    assert find_images(tmp_path).paths == ["a/1.jpg", "a/IMG.HEIC", "b/IMG.heic"]
