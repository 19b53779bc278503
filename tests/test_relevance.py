import os
import tempfile

import numpy as np
import pytest
from PIL import Image

from deep_ranking.datasets import read_folder
from deep_ranking.files import InputError
from deep_ranking.sampling import relevance as relevance_module
from deep_ranking.sampling.relevance import (
    FolderTree,
    RowCosine,
    open_relevance,
    read_scored_pairs,
)

EVERY = np.arange(5)


def test_tree_by_hand():
    tree = FolderTree(["a/b/c", "a/b/c", "a/b/d", "a", "x/b/c"])
    # Same folder 1; a and b of three 2/3; a of three 1/3; nothing of "x/b/c": b lies elsewhere.
    expected = [
        [1, 1, 2 / 3, 1 / 3, 0],
        [1, 1, 2 / 3, 1 / 3, 0],
        [2 / 3, 2 / 3, 1, 1 / 3, 0],
        [1 / 3, 1 / 3, 1 / 3, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    np.testing.assert_allclose(tree.scores(EVERY, EVERY), expected)
    np.testing.assert_allclose(tree.scores(EVERY[2:3], EVERY[[3, 0]]), [[1 / 3, 2 / 3]])


def test_cosine_of_rows_is_never_below_0():
    rows = np.array([[1, 0], [0.6, 0.8], [-0.6, 0.8]], np.float32)
    expected = [[1, 0.6, 0], [0.6, 1, 0.28], [0, 0.28, 1]]
    np.testing.assert_allclose(RowCosine(rows).scores(EVERY[:3], EVERY[:3]), expected, atol=1e-6)


def test_totals_are_sums_over_the_others_of_a_category():
    rows = np.random.default_rng(0).random((50, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    categories = np.random.default_rng(1).integers(3, 6, 50)
    expected = [
        sum(rows[i] @ rows[j] for j in range(50) if j != i and categories[i] == categories[j])
        for i in range(50)
    ]
    np.testing.assert_allclose(RowCosine(rows).totals(categories), expected, rtol=1e-5)


def test_totals_of_a_large_category_are_estimated(monkeypatch):
    rows = np.random.default_rng(0).random((400, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    exact = RowCosine(rows).totals(np.zeros(400))
    monkeypatch.setattr(relevance_module, "MAX_REFERENCES", 50)
    estimates = [RowCosine(rows).totals(np.zeros(400), seed) for seed in range(100)]
    assert 0.001 < np.std(estimates, axis=0).mean() / exact.mean() < 0.05
    np.testing.assert_allclose(np.mean(estimates, axis=0), exact, rtol=0.02)


PATHS = ["a/1.jpg", "a/2, 3.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg"]


def scored(tmp_path, text):
    (tmp_path / "scores.csv").write_text(text)
    return read_scored_pairs(tmp_path / "scores.csv", PATHS)


@pytest.mark.parametrize("header", ["", "path,path,score\n", "path1,path2,score\n"])
def test_scored_pairs_by_hand(tmp_path, header):
    text = 'a/1.jpg,"a/2, 3.jpg",0.5\na/3.jpg,a/1.jpg,2\nb/1.jpg,a/1.jpg,4\nelse.jpg,a/1.jpg,9\n'
    pairs = scored(tmp_path, header + text)
    expected = np.zeros((5, 5))
    for i, j, score in ((0, 1, 0.5), (0, 2, 2), (0, 3, 4)):
        expected[i, j] = expected[j, i] = score
    np.testing.assert_array_equal(pairs.scores(EVERY, EVERY), expected)
    # Image 3 is of another category than 0, so its score is in no sum.
    totals = pairs.totals(np.array([0, 0, 0, 1, 1]))
    np.testing.assert_array_equal(totals, [2.5, 0.5, 2, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.jpg,a/3.jpg,1\na/3.jpg,a/1.jpg,2\n", "scores.csv:2: .* have two scores"),
        ("a/1.jpg,a/3.jpg,-1\n", "scores.csv:1: expected a score of 0 or more, received -1"),
        ("a/1.jpg,a/3.jpg,1\na/1.jpg,a/3.jpg,much\n", "scores.csv:2: expected a score"),
        ("a/1.jpg,a/3.jpg,nan\n", "scores.csv:1: expected a score"),
        ("x.jpg,y.jpg,1\n", "none of its pairs is of two of these images.*a/1.jpg"),
        ("a/1.jpg,a/3.jpg\n", "scores.csv:1: expected path1,path2,score, received 2 fields"),
    ],
)
def test_bad_scored_pairs(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        scored(tmp_path, text)


def test_hand_made_features_reserve_their_room(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "a/1.png")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(InputError, match=r"no room .* 1 images \(No space.*TMPDIR") as caught,
        open_relevance("features", read_folder(tmp_path, level=1)),
    ):
        pytest.fail("the block was entered")
    assert str(caught.value).startswith(f"{tempfile.gettempdir()}: ")


def test_hand_made_features_see_colour_and_texture(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 120, (32, 32, 3), np.uint8)
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = 200
    pictures = {
        "a/red.png": noise + np.array([120, 0, 0], np.uint8),
        "a/red again.png": noise[::-1] + np.array([120, 0, 0], np.uint8),
        "a/blue.png": noise + np.array([0, 0, 120], np.uint8),
        "b/stripes.png": stripes,
        "b/turned.png": stripes.transpose(1, 0, 2),
    }
    for name, pixels in pictures.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    data = read_folder(tmp_path, level=1)
    with open_relevance("features", data) as relevance:
        scores = relevance.scores(EVERY, EVERY)
    number = {path: place for place, path in enumerate(data.paths)}
    red, again, blue, stripes, turned = (number[name] for name in pictures)
    np.testing.assert_allclose(np.diag(scores), 1, atol=1e-5)
    np.testing.assert_allclose(scores, scores.T, atol=1e-6)
    assert scores[red, again] > scores[red, blue]  # the colour
    # Two pictures of the same colours: only the texture tells them apart, which is half of it.
    assert 0.49 < scores[stripes, turned] < 0.9


def test_relevance_by_what_is_none(tmp_path, image_tree):
    data = read_folder(image_tree, level=1)
    message = "expected tree, features, backbone, a file of"
    with pytest.raises(InputError, match=message), open_relevance("golden", data):
        pass
    with open_relevance("tree", data) as relevance:
        same = data.categories.codes[EVERY][:, None] == data.categories.codes[EVERY]
        np.testing.assert_array_equal(relevance.scores(EVERY, EVERY) > 0, same)
