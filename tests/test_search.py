import math
import os
from contextlib import closing

import faiss
import h5py
import numpy as np
import pytest
from collections_of import make_collection

from deep_ranking.cli.main import main
from deep_ranking.files import InputError
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.header import CALIBRATION_ATTRIBUTE
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.indexing import update_index
from deep_ranking.search.results import as_rows
from deep_ranking.search.searcher import Searcher

DIM = 8
EVERY = [{"kind": "exact"}, {"kind": "clusters", "probes": 99}, {"kind": "hierarchy", "probes": 99}]
CALIBRATION = Calibration((0.0, 1.0, 2.0), (0.9, 0.5, 0.1), (0.0, 0.5), (0.5, 2.0), 0.5, 20)

every_index = pytest.mark.parametrize("index", EVERY, ids=lambda index: index["kind"])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """faiss's threads wait for each other on a machine that does other things as well."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


QUERIES = unit(np.random.default_rng(1).normal(size=(3, DIM)))


def contents(count):
    """For each of some images a path, in folders and not, some with odd bytes."""
    odd = os.fsdecode(b"\xff \xc3\xa9'.jpg")
    return [f"{'xyz'[number % 3]}/{number:03}.jpg" for number in range(count)] + ["a.jpg", odd]


def gallery(tmp_path, index, *, copies=()):
    """A collection of 122 images, and of copies: pairs of a path and of what it is a copy of."""
    root = tmp_path / "photos"
    paths = contents(120)
    rows = unit(np.random.default_rng(0).normal(size=(len(paths), DIM)))
    embeddings = dict(zip(paths, rows, strict=True))
    data = {path: path.encode(errors="surrogateescape") for path in paths}
    for path, original in copies:
        embeddings[path], data[path] = embeddings[original], data[original]
    for path, content in data.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return make_collection(tmp_path / "index", root, embeddings, index=index), embeddings


def nearest(query, embeddings):
    """Distance and path of all images, in a loop, nearest first."""
    found = []
    for path, row in embeddings.items():
        squares = ((float(a) - float(b)) ** 2 for a, b in zip(query, row, strict=True))
        found.append((math.sqrt(sum(squares)), path))
    return sorted(found)


def assert_are(results, wanted, root):
    assert [each.rank for each in results] == list(range(1, len(wanted) + 1))
    assert [each.path for each in results] == [str(root / path) for _, path in wanted]
    for each, (distance, path) in zip(results, wanted, strict=True):
        assert each.distance == pytest.approx(distance, rel=1e-12, abs=1e-12)
        assert each.label == (path.split("/")[0] if "/" in path else "")


@every_index
@pytest.mark.parametrize("count", [1, 7, 122, 5000])
def test_results_are_those_of_a_loop(tmp_path, index, count):
    collection, embeddings = gallery(tmp_path, index)
    results = Searcher(Collection.open(collection.folder)).search(QUERIES, count)
    assert len(results) == len(QUERIES)
    for query, found in zip(QUERIES, results, strict=True):
        assert len(found) == min(count, 122)
        assert_are(found, nearest(query, embeddings)[:count], tmp_path / "photos")


@every_index
def test_images_of_one_content_are_found_all(tmp_path, index):
    originals = contents(120)[:4]
    copies = [(f"copies/{number}.jpg", originals[number % 3]) for number in range(30)]
    collection, embeddings = gallery(tmp_path, index, copies=copies)
    assert len(collection.embeddings()) == 122
    query = embeddings[originals[1]][None]
    for count in (1, 5, 11, 12, 60, 1000):
        (found,) = Searcher(collection).search(query, count)
        wanted = nearest(query[0], embeddings)[:count]
        assert_are(found, wanted, tmp_path / "photos")
    assert [each.distance for each in found[:11]] == [0] * 11  # exactly, of 10 copies and itself


@every_index
def test_an_image_that_is_gone_but_not_from_the_index_is_passed_over(tmp_path, index):
    collection, embeddings = gallery(tmp_path, index)
    opened = open_index(collection)
    gone = nearest(QUERIES[0], embeddings)[2][1]
    (tmp_path / "photos" / gone).unlink()
    with closing(collection.images(writable=True)) as images:
        left = [image for image in images.images() if image.path != gone]
        images._base.execute("DELETE FROM images WHERE path = ?", (os.fsencode(gone),))
        assert len(images) == len(left) == 121
    results = Searcher(collection, opened).search(QUERIES, 500)
    del embeddings[gone]
    for query, found in zip(QUERIES, results, strict=True):
        assert_are(found, nearest(query, embeddings), tmp_path / "photos")


def test_an_index_of_nothing_but_what_is_gone(tmp_path):
    collection, _ = gallery(tmp_path, EVERY[1])
    with closing(collection.images(writable=True)) as images:
        images._base.execute("DELETE FROM images")
    assert Searcher(collection).search(QUERIES, 5) == [[], [], []]


def test_cosine_and_probability(tmp_path):
    collection, embeddings = gallery(tmp_path, EVERY[0])
    searcher = Searcher(collection)
    (plain,) = searcher.search(QUERIES[:1], 200)
    assert all(each.probability is None for each in plain)
    searcher.collection.calibration = CALIBRATION
    (found,) = searcher.search(QUERIES[:1], 200)
    for each in found:
        path = each.path.removeprefix(f"{tmp_path / 'photos'}/")
        row = embeddings[path].astype(np.float64)
        assert each.cosine == pytest.approx(row @ QUERIES[0].astype(np.float64), abs=1e-6)
        assert each.probability == pytest.approx(0.9 - 0.4 * each.distance, abs=1e-12)
    assert found[0].probability > found[-1].probability
    first = as_rows("q.jpg", found)[1]
    assert first == {
        "query": "q.jpg",
        "rank": 2,
        "distance": found[1].distance,
        "cosine": 1 - found[1].distance ** 2 / 2,
        "probability": found[1].probability,
        "class": found[1].label,
        "path": found[1].path,
    }
    assert len(as_rows("q.jpg", found)) == 122


def test_calibration_comes_from_the_model_file(tmp_path):
    collection, _ = gallery(tmp_path, EVERY[0])
    with h5py.File(collection.model, "r+") as file:
        file.attrs[CALIBRATION_ATTRIBUTE] = CALIBRATION.to_json()
    searcher = Searcher(Collection.open(collection.folder))
    ((found,),) = searcher.search(QUERIES[:1], 1)
    assert found.probability == pytest.approx(CALIBRATION.probability(found.distance))


@pytest.mark.parametrize("kind", ["clusters", "hierarchy"])
def test_fewer_probes_find_fewer(tmp_path, kind):
    collection, embeddings = gallery(tmp_path, {"kind": kind, "probes": 1})
    searcher = Searcher(collection)
    every = searcher.index.num_clusters
    assert 2 <= every <= 3
    (few,), (all_,) = (searcher.search(QUERIES[:1], 122, probes=probes) for probes in (None, every))
    assert 0 < len(few) < 122
    assert_are(all_, nearest(QUERIES[0], embeddings), tmp_path / "photos")
    assert {each.path for each in few} < {each.path for each in all_}
    assert [each.rank for each in few] == list(range(1, len(few) + 1))


@pytest.mark.parametrize("kind", ["clusters", "hierarchy"])
def test_a_damaged_index_is_told(tmp_path, kind):
    collection, _ = gallery(tmp_path, {"kind": kind})
    file = collection.folder / f"{kind}.faiss"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="cut off, damaged, or no index") as caught:
        Searcher(collection)
    assert str(caught.value).startswith(f"{file}: ")


def test_lost_embeddings_are_told(tmp_path):
    collection, _ = gallery(tmp_path, EVERY[1])
    (collection.folder / "embeddings.bin").unlink()
    with pytest.raises(InputError, match="cut off or missing"):
        Searcher(collection)


def test_an_index_of_unknown_kind_is_told(tmp_path):
    collection, _ = gallery(tmp_path, EVERY[0])
    collection.change(index={"kind": "tree"})
    with pytest.raises(InputError, match="unknown kind tree"):
        Searcher(collection)


def test_the_same_kind_keeps_clusters_and_probes_and_another_does_not(tmp_path):
    collection, _ = gallery(tmp_path, {"kind": "exact"})
    clusters, hierarchy = ({"kind": kind} for kind in ("clusters", "hierarchy"))
    index, _ = update_index(collection, wanted=clusters, clusters=3, probes=2)
    assert (index.num_clusters, index.probes) == (3, 2)
    for wanted in (None, clusters):  # `index` without --index, and `merge` or `index` with it
        index, _ = update_index(collection, wanted=wanted)
        assert (index.num_clusters, index.probes) == (3, 2)
        assert collection.settings.index == clusters | {"clusters": 3, "probes": 2}
    update_index(collection, wanted=hierarchy, probes=1)
    assert Collection.open(collection.folder).settings.index == hierarchy | {"probes": 1}
    assert not (collection.folder / "clusters.faiss").exists()


def test_a_merge_into_an_index_of_the_same_kind_keeps_its_clusters(tmp_path):
    collection, _ = gallery(tmp_path, {"kind": "exact"})
    collection.change(shard=(1, 1))
    output = tmp_path / "merged"
    command = ["merge", str(collection.folder), "--output", str(output), "--index", "clusters"]
    assert main(command) == 0
    kept = {"kind": "clusters", "clusters": 2, "probes": 1}
    update_index(Collection.open(output), clusters=2, probes=1)
    assert main(command) == 0
    assert Collection.open(output).settings.index == kept
