"""Which files of one content are left out, and of what."""

import os
import shutil

import numpy as np
import pytest

from deep_ranking.datasets import read_folder
from deep_ranking.reports.compared_images import CopiedImage, compare_contents


@pytest.fixture
def folder(tmp_path):
    """A function that writes a file for each path with the bytes of its content."""

    def write(name, files):
        for path, content in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return tmp_path / name

    return write


def test_a_folder_without_copies_stays_as_it_is(folder):
    images = read_folder(folder("u", {"a/1.png": "x", "a/2.png": "y", "b/1.png": "z"}))
    found = compare_contents(images)
    assert found.queries is images and found.gallery is None and found.own is None
    assert found.left_out == {"images": []} and found.contradictions == []


def test_one_image_of_each_content_stays_in_a_folder(folder):
    root = folder(
        "u",
        {
            **{"a/1.png": "x", "a/2.png": "y", "a/3.png": "x"},
            **{"b/1.png": "z", "b/2.png": "x", "b/3.png": "x", "b/4.png": "w"},
        },
    )
    os.symlink(root / "a" / "2.png", root / "a" / "link.png")
    os.link(root / "b" / "4.png", root / "b" / "5.png")
    found = compare_contents(read_folder(root))
    assert found.queries.paths == ["a/1.png", "a/2.png", "b/1.png", "b/4.png"]
    assert found.left_out == {
        "images": [
            CopiedImage(root, "a/3.png", "a/1.png"),
            CopiedImage(root, "a/link.png", "a/2.png"),
            CopiedImage(root, "b/3.png", "b/2.png"),
            CopiedImage(root, "b/5.png", "b/4.png"),
        ]
    }
    assert found.contradictions == [CopiedImage(root, "b/2.png", "a/1.png")]
    assert found.contradictions[0].as_json() == {
        "path": str(root / "b" / "2.png"),
        "of": str(root / "a" / "1.png"),
    }


def test_the_rows_of_each_query_in_a_gallery(folder):
    queries = folder("q", {"a/1.png": "x", "a/2.png": "y", "b/1.png": "z", "b/2.png": "z"})
    # x lies in two classes, y is there twice, and z only under another class.
    gallery = folder(
        "g",
        {
            **{"a/0.png": "other", "a/1.png": "x", "a/2.png": "y", "a/3.png": "y"},
            **{"b/0.png": "another", "b/1.png": "x", "c/1.png": "z"},
        },
    )
    os.symlink(queries / "b" / "1.png", gallery / "b" / "9.png")
    found = compare_contents(read_folder(queries), read_folder(gallery))
    assert found.queries.paths == ["a/1.png", "a/2.png", "b/1.png"]
    assert found.gallery.paths == [
        *("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png", "b/9.png", "c/1.png"),
    ]
    assert found.own.tolist() == [[1, 4], [2, -1], [5, 6]]
    assert found.left_out == {
        "queries": [CopiedImage(queries, "b/2.png", "b/1.png")],
        "gallery": [CopiedImage(gallery, "a/3.png", "a/2.png")],
    }
    assert found.contradictions == [
        CopiedImage(gallery, "b/1.png", "a/1.png"),
        CopiedImage(gallery, "c/1.png", "b/9.png"),
    ]


def test_one_folder_as_queries_and_gallery(folder):
    root = folder("u", {"a/1.png": "x", "a/2.png": "y", "b/1.png": "z", "b/2.png": "y"})
    images = read_folder(root)
    found = compare_contents(images, read_folder(root))
    assert found.own.tolist() == [[0, -1], [1, 3], [2, -1], [1, 3]]
    assert found.contradictions == [CopiedImage(root, "b/2.png", "a/2.png")]  # once
    assert np.array_equal(found.gallery.items.codes, images.items.codes)
    apart = compare_contents(images, read_folder(folder("v", {"a/1.png": "u", "b/1.png": "v"})))
    assert apart.own is None


def test_files_that_cannot_be_read_are_no_copies(folder):
    images = read_folder(folder("u", {"a/1.png": "x", "a/2.png": "x", "b/1.png": "y"}))
    shutil.rmtree(images.root / "a")
    found = compare_contents(images, images)
    assert len(found.queries) == 3 and found.own.tolist() == [[0], [1], [2]]
    assert len(compare_contents(images).queries) == 3
