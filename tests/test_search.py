import json
import math
import os
from contextlib import closing
from dataclasses import asdict, replace

import faiss
import h5py
import numpy as np
import pytest
from collections_of import make_collection

from deep_ranking.cli.main import main
from deep_ranking.files import InputError
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.header import CALIBRATION_ATTRIBUTE
from deep_ranking.model.hit_calibration import HitCalibration
from deep_ranking.model.logistic_regression import LogisticRegression
from deep_ranking.search import ranker as ranker_module
from deep_ranking.search.collection import Collection
from deep_ranking.search.feedback import moved_queries
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.indexing import update_index
from deep_ranking.search.query_classes import classes_of_queries
from deep_ranking.search.results import as_rows
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.subset import matching_labels

DIM = 8
EVERY = [{"kind": "exact"}, {"kind": "clusters", "probes": 99}, {"kind": "hierarchy", "probes": 99}]
# The chance of a hit goes by its distance alone.
HITS = HitCalibration(
    None, LogisticRegression((1.0, 0.0, 0.0, 0.0), (1.0,) * 4, (-4.0, 0.0, 0.0, 0.0), 0.0), 20
)
CALIBRATION = Calibration((0.0, 2.0), (0.9, 0.1), (0.0, 0.5), (0.5, 2.0), 0.5, 20)

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


def test_cosine_and_chance_of_a_hit(tmp_path):
    collection, embeddings = gallery(tmp_path, EVERY[0])
    searcher = Searcher(collection)
    (plain,) = searcher.search(QUERIES[:1], 200)
    assert all(each.hit_probability is None for each in plain)
    searcher.collection.change(hits=HITS)
    (found,) = searcher.search(QUERIES[:1], 200)
    for each in found:
        path = each.path.removeprefix(f"{tmp_path / 'photos'}/")
        row = embeddings[path].astype(np.float64)
        assert each.cosine == pytest.approx(row @ QUERIES[0].astype(np.float64), abs=1e-6)
        expected = 1 / (1 + math.exp(4 * (each.distance - 1))) if each.label else None
        assert each.hit_probability == (expected and pytest.approx(expected, abs=1e-6))
    first = as_rows("q.jpg", found)[1]
    assert first == {
        "query": "q.jpg",
        "rank": 2,
        "distance": found[1].distance,
        "smoothed_distance": None,
        "cosine": 1 - found[1].distance ** 2 / 2,
        "hit_probability": found[1].hit_probability,
        "class": found[1].label,
        "path": found[1].path,
        "problem": "",
    }
    assert len(as_rows("q.jpg", found)) == 122


def test_hits_below_a_probability_are_left_out(tmp_path):
    collection, _ = gallery(tmp_path, EVERY[0])
    collection.change(hits=HITS)
    searcher = Searcher(collection)
    (every,) = searcher.search(QUERIES[:1], 30)
    least = every[9].hit_probability
    for limits in ({}, {"folder": "y"}, {"label": "y"}):
        ((wanted,), (found,)) = (
            searcher.search(QUERIES[:1], 30, **limits, **limit)
            for limit in ({}, {"min_probability": least})
        )
        assert found == [each for each in wanted if (each.hit_probability or 0) >= least]
        assert 0 < len(found) < len(wanted)
    assert searcher.search(QUERIES[:1], 30, min_probability=0.99) == [[]]


def test_a_least_probability_needs_one(tmp_path):
    collection, _ = gallery(tmp_path, EVERY[0])
    with pytest.raises(InputError, match="nothing tells the probability of a hit"):
        Searcher(collection).search(QUERIES, 5, min_probability=0.5)
    collection.settings = replace(collection.settings, version=3)
    with pytest.raises(InputError, match=r"earlier version.* run `index --output"):
        Searcher(collection).search(QUERIES, 5, min_probability=0.5)


@pytest.mark.parametrize("least", [1.5, -0.1, float("nan")])
def test_a_least_probability_is_a_probability(tmp_path, least):
    collection, _ = gallery(tmp_path, EVERY[0])
    with pytest.raises(InputError, match="min_probability must be 0 to 1"):
        Searcher(collection).search(QUERIES, 5, min_probability=least)


def test_a_model_tells_nothing_of_hits(tmp_path):
    collection, _ = gallery(tmp_path, EVERY[0])
    of_earlier_version = {"hits": asdict(HITS.hit) | {"num_queries": 20}}
    with h5py.File(collection.model, "r+") as file:
        file.attrs[CALIBRATION_ATTRIBUTE] = json.dumps(asdict(CALIBRATION) | of_earlier_version)
    collection = Collection.open(collection.folder)
    assert collection.calibration == CALIBRATION
    ((found,),) = Searcher(collection).search(QUERIES[:1], 1)
    assert found.hit_probability is None


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


def of_part(embeddings, folder="", labels=None):
    """What a subset holds of the images of `gallery`, whose classes are their folders."""
    return {
        path: row
        for path, row in embeddings.items()
        if path.startswith(folder) and (labels is None or path.rpartition("/")[0] in labels)
    }


@every_index
@pytest.mark.parametrize("deeper", [False, True])
@pytest.mark.parametrize("count", [1, 20, 500])
def test_a_class_or_a_folder_alone_is_searched_wholly(tmp_path, index, deeper, count, monkeypatch):
    """Also where another class is nearer: 40 of 122 images are of each."""
    if deeper:
        monkeypatch.setattr(ranker_module, "MOST_COMPARED", 0)
    collection, embeddings = gallery(tmp_path, index)
    searcher = Searcher(collection)
    for limits, wanted in (
        ({"label": "y"}, of_part(embeddings, labels={"y"})),
        ({"folder": "x"}, of_part(embeddings, "x/")),
        ({"label": "z", "folder": "z"}, of_part(embeddings, "z/")),
        ({"folder": tmp_path / "photos"}, embeddings),
    ):
        results = searcher.search(QUERIES, count, **limits)
        for query, found in zip(QUERIES, results, strict=True):
            assert len(found) == min(count, len(wanted))
            assert_are(found, nearest(query, wanted)[:count], tmp_path / "photos")


def test_a_deeper_search_goes_on_until_there_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(ranker_module, "MOST_COMPARED", 0)
    collection, embeddings = gallery(tmp_path, {"kind": "clusters", "probes": 99})
    searcher = Searcher(collection)
    asked, search = [], searcher.index.search
    monkeypatch.setattr(
        searcher.index,
        "search",
        lambda queries, count, **rest: asked.append(count) or search(queries, count, **rest),
    )
    (found,) = searcher.search(QUERIES[:1], 10, label="y")
    assert asked == [10, 40, 160]
    assert_are(
        found, nearest(QUERIES[0], of_part(embeddings, labels={"y"}))[:10], tmp_path / "photos"
    )
    monkeypatch.setattr(ranker_module, "DEEPEST", 20)  # then all are compared
    asked.clear()
    again = searcher.search(QUERIES[:1], 10, label="y")
    assert asked == [10] and again == [found]


def test_copies_of_another_class_are_not_found_with_it(tmp_path):
    collection, embeddings = gallery(tmp_path, EVERY[0], copies=[("w/copy.jpg", "x/000.jpg")])
    query = embeddings["x/000.jpg"][None]
    for limits, path in (({"label": "w"}, "w/copy.jpg"), ({"folder": "x"}, "x/000.jpg")):
        (found,) = Searcher(collection).search(query, 3, **limits)
        assert found[0].path == str(tmp_path / "photos" / path)
        assert found[0].distance == 0 and "w/copy.jpg" not in found[1:]
        assert {each.label for each in found} == {path[0]}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("Fruit/Apple/Golden-Delicious", ["Fruit/Apple/Golden-Delicious"]),
        ("Fruit", ["Fruit/Apple/Golden-Delicious", "Fruit/Apple/Royal-Gala", "Fruit/Kiwi"]),
        ("Fruit/Apple/", ["Fruit/Apple/Golden-Delicious", "Fruit/Apple/Royal-Gala"]),
        ("Golden-Delicious", ["Fruit/Apple/Golden-Delicious"]),
        ("Apple", ["Fruit/Apple/Golden-Delicious", "Fruit/Apple/Royal-Gala"]),
        ("Kiwi", ["Kiwi"]),  # rather than Fruit/Kiwi
        (" Cafe\u0301 ", ["Caf\u00e9"]),
    ],
)
def test_the_classes_that_a_name_stands_for(name, labels):
    known = [
        *("", "Fruit/Apple/Golden-Delicious", "Fruit/Apple/Royal-Gala", "Fruit/Kiwi", "Kiwi"),
        *("Fruits", "Caf\u00e9"),
    ]
    assert matching_labels(name, known) == labels


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("golden-delicous", "did you mean Fruit/Apple/Golden-Delicious?"),
        ("fruit/kiwi", "did you mean Fruit/Kiwi"),
        ("zzz", "its classes are Fruit/Apple/Golden-Delicious, Fruit/Kiwi"),
        ("", "its classes are"),
        ("pple", "did you mean Fruit/Apple/Golden-Delicious?"),
        ("kiw", "did you mean Fruit/Kiwi?"),
        ("FRUIT", "did you mean Fruit/Apple/Golden-Delicious, Fruit/Kiwi?"),
    ],
)
def test_a_class_that_is_not_there_is_an_error_with_near_ones(name, said):
    with pytest.raises(InputError, match="no class of the collection") as caught:
        matching_labels(name, ["Fruit/Apple/Golden-Delicious", "Fruit/Kiwi"])
    assert said in str(caught.value)


def test_a_folder_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    collection, _ = gallery(tmp_path, EVERY[0])
    searcher = Searcher(collection)
    (tmp_path / "photos" / "empty").mkdir()
    for folder in ("nowhere", "empty", "x/y", ".."):
        with pytest.raises(InputError, match=r"no image of the collection in it|not below"):
            searcher.search(QUERIES, 3, folder=folder)
    with pytest.raises(InputError, match="no image of the class y in it"):
        searcher.search(QUERIES, 3, folder="x", label="y")
    monkeypatch.chdir(tmp_path / "photos" / "x")
    for folder in (".", tmp_path / "photos" / "x", "../x"):
        (found, *_) = searcher.search(QUERIES, 3, folder=folder)
        assert all("/x/" in each.path for each in found)


def test_feedback_moves_the_query_by_the_formula(tmp_path):
    collection, embeddings = gallery(tmp_path, EVERY[0])
    like = np.stack([embeddings["x/000.jpg"], embeddings["y/001.jpg"]])
    unlike = embeddings["z/002.jpg"][None]
    (found,) = Searcher(collection).search(QUERIES[:1], 9, like=like, unlike=unlike)
    moved = []
    for number, value in enumerate(QUERIES[0]):
        mean = (float(value) + float(like[0][number]) + float(like[1][number])) / 3
        moved.append(mean - 0.4 * float(unlike[0][number]))
    length = math.sqrt(sum(value * value for value in moved))
    moved = np.array([value / length for value in moved], np.float32)
    wanted = nearest(moved, embeddings)[:9]
    assert [each.path for each in found] == [str(tmp_path / "photos" / path) for _, path in wanted]
    for each, (distance, _) in zip(found, wanted, strict=True):
        assert each.distance == pytest.approx(distance, abs=1e-6)


def test_feedback_of_nothing_changes_nothing_and_may_not_cancel_a_query():
    assert moved_queries(QUERIES) is QUERIES
    assert moved_queries(QUERIES, np.empty((0, DIM), np.float32)) is QUERIES
    with pytest.raises(InputError, match="cancel the query"):
        moved_queries(QUERIES[:1], None, QUERIES[:1], unlike_share=1)
    moved = moved_queries(QUERIES, QUERIES[:1], QUERIES[1:])
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)


def test_classes_of_queries(tmp_path):
    collection, _ = gallery(tmp_path, EVERY[0])
    with closing(collection.images(writable=True)) as table, table.change():
        table._base.execute("UPDATE images SET class = ? WHERE class = ?", (b"Fruit/Apple", b"x"))
        table._base.execute("UPDATE images SET class = ? WHERE class = ?", (b"Fruit/Kiwi", b"y"))
    root = tmp_path / "photos"
    (tmp_path / "link").symlink_to(root)
    labels = {
        root / "x/000.jpg": "Fruit/Apple",  # as it is stored, not as its folder is called
        root / "a.jpg": "",
        root / "z/new.jpg": "z",
        tmp_path / "link/x/000.jpg": "Fruit/Apple",
        tmp_path / "queries/Fruit/Kiwi/1.jpg": "Fruit/Kiwi",
        tmp_path / "queries/Kiwi/1.jpg": "Fruit/Kiwi",
        tmp_path / "queries/Fruit/1.jpg": "",
        tmp_path / "queries/kiwi/1.jpg": "",
    }
    assert classes_of_queries(collection, list(map(str, labels))) == list(labels.values())


def looked_at(collection, embeddings):
    """Search for all images, with the files looked at."""
    query = embeddings["x/000.jpg"][None]
    return Searcher(collection).search_embedded(["q.jpg"], query, 200)


def test_files_that_are_gone_or_changed_are_marked(tmp_path):
    collection, embeddings = gallery(tmp_path, EVERY[0])
    root = tmp_path / "photos"
    assert looked_at(collection, embeddings).note == ""
    (root / "x/000.jpg").unlink()
    (root / "y/001.jpg").chmod(0o600)  # with the same content
    status = (root / "y/004.jpg").stat()
    while (root / "y/004.jpg").stat().st_ctime_ns == status.st_ctime_ns:  # within a tick of it
        (root / "y/004.jpg").write_bytes(b"y/999.jpg")
        os.utime(root / "y/004.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    found = looked_at(collection, embeddings)
    problems = {each.path: each.problem for each in found[0] if each.problem}
    assert problems == {str(root / "x/000.jpg"): "gone", str(root / "y/004.jpg"): "changed"}
    assert found[0][0].problem == "gone"
    assert "1 is gone and 1 has changed since the index was made" in found.note
    assert f"index --output {collection.folder}" in found.note
    assert found.text().splitlines()[0].endswith("x/000.jpg  (gone)")
    assert repr(found).endswith(found.note)
    assert found.rows()[0]["problem"] == "gone"


def test_a_folder_that_was_moved_is_told(tmp_path):
    collection, embeddings = gallery(tmp_path, EVERY[0])
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    found = looked_at(collection, embeddings)
    assert {each.problem for each in found[0]} == {"gone"}
    assert "the folder of the images is gone; if the images were moved" in found.note
    assert f"index --output {collection.folder} --images DIR" in found.note
    collection.change(root=str(tmp_path / "elsewhere"))
    assert looked_at(collection, embeddings).note == ""
