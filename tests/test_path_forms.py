"""Names that look the same and are not: other Unicode normal forms of what is on the disk."""

import os
import unicodedata

import pytest

from deep_ranking.datasets import read_classes
from deep_ranking.files.path_forms import existing_form


def nfc(text):
    return unicodedata.normalize("NFC", text)


def nfd(text):
    return unicodedata.normalize("NFD", text)


COMPOSED, DECOMPOSED = nfc("\u00c4pfel"), nfd("\u00c4pfel")


@pytest.mark.parametrize("given", [nfc, nfd])
@pytest.mark.parametrize("folder", [nfc, nfd])
@pytest.mark.parametrize("name", [nfc, nfd])
def test_each_part_may_have_a_form_of_its_own(tmp_path, monkeypatch, given, folder, name):
    file = tmp_path / folder("\u00e9") / "plain" / name("\u00fc.jpg")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert existing_form(str(tmp_path / given("\u00e9") / "plain" / given("\u00fc.jpg"))) == str(
        file
    )
    monkeypatch.chdir(tmp_path)
    relative = given("\u00e9/plain/\u00fc.jpg")
    assert existing_form(relative) == str(file.relative_to(tmp_path))


def test_what_exists_as_it_is_comes_first(tmp_path):
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / name).write_text(name)
    for name in (COMPOSED, DECOMPOSED):
        assert existing_form(str(tmp_path / name)) == str(tmp_path / name)


@pytest.mark.parametrize(
    "path", ["", "gone.jpg", "\u00e9.jpg", "/\u00e9/\u00fc", "\udcff.jpg", "\u00e9\0"]
)
def test_what_does_not_exist_stays_as_it_is(path):
    assert existing_form(path) == path


def test_other_letters_are_other_names(tmp_path):
    (tmp_path / "\ufb01.jpg").write_bytes(b"")  # a ligature, which only NFKC takes for fi
    (tmp_path / "E.jpg").write_bytes(b"")
    for name in ("fi.jpg", "\u00c9.jpg"):
        assert existing_form(str(tmp_path / name)) == str(tmp_path / name)


@pytest.mark.parametrize("given", [nfc, nfd])
def test_a_class_file_finds_images_whatever_the_form(tmp_path, given):
    """The same image in two forms is one; its path is the file's, as a listing has it."""
    stored = {nfc: nfd, nfd: nfc}[given]
    file = tmp_path / "photos" / stored("\u00c4pfel/\u00e9.jpg")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    path, label = "\u00c4pfel/\u00e9.jpg", "\u00c4pfel"
    lines = [f"{form(path)},{form(label)}" for form in (given, stored)]
    classes = tmp_path / "classes.csv"
    classes.write_text("\n".join(["\ufeffpath,label", *lines, ""]))
    data = read_classes(classes, tmp_path / "photos")
    assert data.paths == [stored("\u00c4pfel/\u00e9.jpg")]
    assert data.items.names == [COMPOSED]
    assert os.path.exists(data.files()[0])
