from collections import Counter

import numpy as np
import pytest
from collections_of import make_collection
from stubs import build_stub

from deep_ranking.config import NetworkConfig
from deep_ranking.datasets import read_folder
from deep_ranking.embedding.embed import embed_images
from deep_ranking.files import InputError
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.neighbours import find_neighbours, nearest_of_other_classes


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_hand(rows, items, count, allowed):
    """The nearest of other classes, image by image."""
    expected = []
    for image, row in enumerate(rows):
        others = [i for i in range(len(rows)) if items[i] != items[image] and allowed[i]]
        others.sort(key=lambda i: np.linalg.norm(rows[i] - row))
        expected.append((others + [-1] * count)[:count])
    return np.array(expected)


@pytest.mark.parametrize("count", [1, 4, 40])
def test_nearest_are_those_by_hand(count):
    # Class 0 is so dense that the nearest 20 of its images are all of it.
    rng = np.random.default_rng(0)
    items = np.repeat([0, 1, 2], [25, 5, 8])
    rows = unit(rng.standard_normal((38, 6)) * np.where(items == 0, 0.05, 1)[:, None] + 0.3)
    allowed = rng.random(38) < 0.8
    index = ExactIndex(rows, np.arange(38))
    for mask in (None, allowed):
        found = nearest_of_other_classes(index, rows, np.arange(38), items, count, allowed=mask)
        expected = by_hand(rows, items, count, np.ones(38, bool) if mask is None else mask)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int32


def test_neighbours_by_an_index_folder(tmp_path, image_tree):
    data = read_folder(image_tree)
    rows = unit(np.random.default_rng(1).standard_normal((len(data), 4)))
    order = np.random.default_rng(2).permutation(len(data))  # rows of the index are in another
    make_collection(
        tmp_path / "index", image_tree, {data.paths[number]: rows[number] for number in order}
    )
    found = find_neighbours(data, 3, tmp_path / "index")
    np.testing.assert_array_equal(
        found, by_hand(rows, data.items.codes, 3, np.ones(len(data), bool))
    )


def test_images_that_the_index_lacks(tmp_path, image_tree):
    data = read_folder(image_tree)
    make_collection(tmp_path / "index", image_tree, {data.paths[0]: np.eye(4, dtype=np.float32)[0]})
    with pytest.raises(
        InputError, match=r"10 of 11 images are not in this index, such as .*--model"
    ):
        find_neighbours(data, 3, tmp_path / "index")


@pytest.fixture(scope="module")
def model():
    return build_stub(NetworkConfig(image_size=32, weights=None, embedding_size=4), seed=0)


def test_neighbours_by_a_model_leave_broken_images_out(tmp_path, write_colors, model):
    write_colors(tmp_path / "images")
    (tmp_path / "images" / "green" / "2.png").write_bytes(b"no image")
    data = read_folder(tmp_path / "images")
    broken = data.paths.index("green/2.png")
    with pytest.raises(InputError, match=r"green/2\.png"):
        find_neighbours(data, 3, model)
    found = find_neighbours(data, 3, model, skip_broken=True)
    rows = embed_images(model, data.files(), skip_broken=True)
    whole = np.arange(len(data)) != broken
    expected = by_hand(np.nan_to_num(rows), data.items.codes, 3, whole)
    np.testing.assert_array_equal(found[whole], expected[whole])
    assert (found[broken] == -1).all()


def test_many_images_are_compared_by_clusters(tmp_path, write_colors, model, monkeypatch):
    write_colors(tmp_path / "images", images=40)
    data = read_folder(tmp_path / "images")
    exact = find_neighbours(data, 5, model)
    monkeypatch.setattr("deep_ranking.search.neighbours.MOST_COMPARED", 100)
    monkeypatch.setattr("deep_ranking.search.neighbours.NUM_MEASURED", 50)
    searched = Counter()

    def counted(kind):
        search = kind.search

        def count(index, queries, *args, **options):
            searched[kind] += len(queries)
            return search(index, queries, *args, **options)

        monkeypatch.setattr(kind, "search", count)

    for kind in (ExactIndex, ClusterIndex):
        counted(kind)
    by_clusters = find_neighbours(data, 5, model)
    hits = [len({*left} & {*right}) for left, right in zip(exact, by_clusters, strict=True)]
    assert np.mean(hits) > 0.9 * 5
    assert searched[ClusterIndex] >= 120
