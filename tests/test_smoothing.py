"""Smoothed rows: by loops, kept on disk, updated as if smoothed afresh, and searched."""

import copy
import hashlib
import json
import math
import os
import shutil
import sys
from contextlib import closing

import faiss
import numpy as np
import pytest
from collections_of import make_model

from deep_ranking.files import InputError
from deep_ranking.model.header import read_header
from deep_ranking.search import smoothed_collection, smoothing, smoothing_choice, smoothing_updates
from deep_ranking.search.collection import Collection, Settings
from deep_ranking.search.collection.records import FoundFile
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.indexing import update_index
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.smoothed_collection import update_smoothing
from deep_ranking.search.smoothed_rows import SmoothedWriter, read_smoothed
from deep_ranking.search.smoothing import nearest_rows, smooth_rows, smoothed
from deep_ranking.search.smoothing_choice import choose_smoothing, leave_one_out_precision

DIM = 6


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """faiss's threads wait for each other on a machine that does other things as well."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def drawn(count, seed=0, dim=DIM):
    return unit(np.random.default_rng(seed).normal(size=(count, dim)))


def nearest_in_a_loop(rows, allowed, query, count):
    """Numbers and cosines of the nearest allowed rows: itself first, then ties by number."""
    differences = rows[list(allowed)].astype(np.float64) - rows[query]
    squared = (differences**2).sum(axis=1)
    cosines = dict(zip(allowed, (1 - squared / 2).astype(np.float32), strict=True))
    others = sorted((-cosines[each], each) for each in allowed if each != query)
    return [(query, 1.0)] + [(each, float(-cosine)) for cosine, each in others[: count - 1]]


def smoothed_in_a_loop(rows, allowed, query, count, power):
    total = np.zeros(rows.shape[1])
    for each, cosine in nearest_in_a_loop(rows, allowed, query, count):
        total += max(cosine, 0.0) ** power * rows[each].astype(np.float64)
    return total / math.sqrt(float(total @ total))


@pytest.mark.parametrize(("count", "power"), [(2, 3), (5, 1), (7, 0.5), (40, 5)])
def test_smoothed_rows_are_those_of_a_loop(count, power):
    rows = drawn(30)
    rows[7] = rows[21]
    wanted = [smoothed_in_a_loop(rows, range(30), row, count, power) for row in range(30)]
    np.testing.assert_allclose(smooth_rows(rows, count, power), wanted, atol=1e-6)
    assert smooth_rows(rows, 0, power).tolist() == smooth_rows(rows, 1, power).tolist()
    assert smooth_rows(rows, 1, power).tolist() == rows.tolist()


def test_a_hand_case():
    """Cosines of row 0: 1 itself, 0.8 and -0.6. The last has no weight."""
    rows = np.array([[1, 0], [0.8, 0.6], [-0.6, 0.8]], np.float32)
    # 1 * (1, 0) + 0.8^2 * (0.8, 0.6) = (1.512, 0.384)
    wanted = np.array([1.512, 0.384]) / math.hypot(1.512, 0.384)
    np.testing.assert_allclose(smooth_rows(rows, 3, 2)[0], wanted, atol=1e-6)


def test_neighbours_are_in_order_itself_first_and_ties_by_number():
    corners = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)  # 3 copies, all others tie
    every = np.arange(12)
    found = nearest_rows(corners, every, ExactIndex(corners, every), 6)
    assert found.rows[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.rows[4].tolist() == [4, 3, 5, 0, 1, 2]
    np.testing.assert_allclose(found.similarities[4], [1, 1, 1, 0, 0, 0], atol=1e-7)
    some = np.array([0, 4, 5])
    few = nearest_rows(corners, some, ExactIndex(corners, some), 6)
    assert few.rows.tolist() == [
        [0, 4, 5, -1, -1, -1],
        [4, 5, 0, -1, -1, -1],
        [5, 4, 0, -1, -1, -1],
    ]


def test_the_index_is_asked_for_more_while_rows_may_be_as_near(monkeypatch):
    """30 rows tie for 2 places: those with the smallest numbers have them, whatever faiss says."""
    rows = np.vstack([[1, 0, 0], np.tile([[0, 1, 0]], (30, 1))]).astype(np.float32)
    index = ExactIndex(rows, np.arange(31))
    real = index.search
    asked = []

    def last_ones_first(queries, count):
        asked.append(count)
        found = real(queries, 31)
        order = np.argsort(found.distances * 1e6 - found.rows, axis=1)[:, : min(count, 31)]
        return type(found)(*(np.take_along_axis(each, order, axis=1) for each in found))

    monkeypatch.setattr(index, "search", last_ones_first)
    found = nearest_rows(rows, np.array([0]), index, 3)
    assert found.rows.tolist() == [[0, 1, 2]]
    assert asked == [11, 44]


class Gallery:
    """A collection whose images are numbers, each with an embedding; no file is read."""

    def __init__(self, tmp_path, embeddings, index=None, labels=None):
        self.embeddings = embeddings
        self.labels = labels or [str(number % 3) for number in range(len(embeddings))]
        self.numbers = {self.content(number): number for number in range(len(embeddings))}
        self.root = tmp_path / "photos"
        self.root.mkdir(exist_ok=True)
        model = make_model(tmp_path / "model.h5")
        settings = Settings(
            fingerprint=read_header(model).fingerprint,
            dimension=embeddings.shape[1],
            image_size=32,
            dtype="float32",
            batch_size=4,
            root=str(self.root),
            index=index or {"kind": "exact"},
        )
        self.collection = Collection.make(tmp_path / "index", settings, model)
        self.folder = tmp_path / "index"

    @staticmethod
    def content(number):
        return hashlib.sha256(str(number).encode()).digest()

    def hold(self, numbers):
        """What a sync does where the folder holds these images."""
        collection = self.collection
        missing = sorted(set(numbers) - set(map(self.number, collection.store.keys())))
        contents = [self.content(number) for number in missing]
        collection.store.extend([(contents, self.embeddings[missing])])
        rows = collection.store.find()
        with closing(collection.images(writable=True)) as images, images.change():
            images.clear()
            for number in sorted(numbers):
                label = self.labels[number]
                images.record(FoundFile(f"{label}/{number}", 1, 1, label), self.content(number))
                images.set_row(self.content(number), rows[self.content(number)])

    def number(self, key):
        return self.numbers.get(key, -1)

    def update(self, smooth=None, **options):
        index, _ = update_index(self.collection)
        report = update_smoothing(self.collection, index, smooth=smooth, **options)
        self.collection = Collection.open(self.folder)
        return report

    def smoothed(self):
        """The smoothed row of each image, by its number."""
        rows = read_smoothed(self.collection)
        numbers = {row: self.number(key) for row, key in enumerate(self.collection.store.keys())}
        return {numbers[row]: rows.rows[row] for row in rows.in_use().tolist()}

    def wanted(self, count, power):
        """The same, smoothed afresh by a loop over the rows as they are on the disk."""
        rows = self.collection.embeddings()[:]
        used = self.collection.rows().tolist()
        numbers = {row: self.number(key) for row, key in enumerate(self.collection.store.keys())}
        return {numbers[row]: smoothed_in_a_loop(rows, used, row, count, power) for row in used}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for number, row in wanted.items():
        np.testing.assert_allclose(found[number], row, atol=1e-5, err_msg=str(number))


def with_duplicates(count, seed):
    """Rows in clumps, some of them equal, and some at equal distances."""
    rng = np.random.default_rng(seed)
    rows = unit(drawn(5, seed)[rng.integers(5, size=count)] + rng.normal(0, 0.3, (count, DIM)))
    rows[rng.integers(count, size=8)] = rows[0]
    corners = np.eye(DIM, dtype=np.float32)
    rows[rng.integers(count, size=8)] = corners[rng.integers(DIM, size=8)]
    return rows


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [3, 8, 200])
def test_an_update_equals_smoothing_afresh(tmp_path, seed, count, monkeypatch):
    """Random additions and removals, duplicates among them; K may be above the number of rows."""
    monkeypatch.setattr(smoothing_updates, "ROWS_AT_ONCE", 256)
    rng = np.random.default_rng(seed)
    gallery = Gallery(tmp_path, with_duplicates(70, seed))
    held = set(rng.choice(70, 30, replace=False).tolist())
    gallery.hold(held)
    first = gallery.update(count, power=2)
    assert first.num_recomputed == first.num_rows == 30
    for _ in range(4):
        held -= set(rng.choice(sorted(held), 4, replace=False).tolist())
        held |= set(rng.choice(70, 6, replace=False).tolist())  # some come back to their old rows
        gallery.hold(held)
        report = gallery.update()
        assert report.num_rows == len(held) and report.num_recomputed <= len(held)
        assert_equal(gallery.smoothed(), gallery.wanted(count, 2))


def test_only_rows_that_gain_or_lose_a_neighbour_are_recomputed(tmp_path, monkeypatch):
    rows = with_duplicates(80, 1)
    gallery = Gallery(tmp_path, rows)
    gallery.hold(range(60))
    gallery.update(5)
    real = smoothing_updates.smoothed
    for held, new in (([*range(3, 62)], {60, 61}), ([*range(3, 59)], set())):
        before = neighbours_of(gallery)
        gallery.hold(held)
        computed = []
        monkeypatch.setattr(
            smoothing_updates,
            "smoothed",
            lambda *args, into=computed: into.extend(args[1][:, 0].tolist()) or real(*args),
        )
        report = gallery.update()
        after = neighbours_of(gallery)
        changed = {row for row, nearest in after.items() if before.get(row) != nearest}
        assert set(computed) == changed and new <= changed
        assert 0 < report.num_recomputed == len(changed) < 50


def neighbours_of(gallery):
    rows = read_smoothed(gallery.collection)
    return {row: set(rows.records["neighbours"][row].tolist()) for row in rows.in_use().tolist()}


def test_nothing_is_written_where_nothing_changed(tmp_path):
    gallery = Gallery(tmp_path, drawn(20))
    gallery.hold(range(20))
    gallery.update(4)
    files = {name: (gallery.folder / name).stat() for name in ("smoothed.bin", "collection.json")}
    report = gallery.update()
    assert (report.num_recomputed, report.num_rows, report.reason) == (0, 20, "")
    for name, status in files.items():
        assert (gallery.folder / name).stat().st_ino == status.st_ino


def test_rows_whose_content_is_another_are_smoothed_anew(tmp_path):
    """As after keys.bin was lost: the images are embedded in another order."""
    gallery = Gallery(tmp_path, drawn(24))
    gallery.hold(range(20))
    gallery.update(4)
    for name in ("keys.bin", "embeddings.bin", "blocks.bin"):
        (gallery.folder / name).unlink()
    gallery.hold([*range(8, 20), *range(20, 24), *range(4)])
    gallery.update()
    assert_equal(gallery.smoothed(), gallery.wanted(4, 2))


def test_another_k_or_power_smooths_all_rows(tmp_path):
    gallery = Gallery(tmp_path, drawn(20))
    gallery.hold(range(20))
    for count, power in ((4, 3), (6, 3), (6, 1)):
        assert gallery.update(count, power=power).num_recomputed == 20
        assert_equal(gallery.smoothed(), gallery.wanted(count, power))
        assert gallery.collection.settings.smoothing["neighbours"] == count
    assert gallery.update(0).rows is None
    assert gallery.collection.settings.smoothing is None
    assert not list(gallery.folder.glob("smoothed*"))


def labelled(num_classes, size, noise, seed=0, dim=16):
    rng = np.random.default_rng(seed)
    means = np.repeat(drawn(num_classes, seed, dim), size, axis=0)
    labels = np.repeat([f"class {number}" for number in range(num_classes)], size)
    return unit(means + rng.normal(0, noise, means.shape)), labels


def left_out_in_a_loop(rows, labels, query, count, power):
    """Average precision at R of a query in the other rows, smoothed without it."""
    others = [row for row in range(len(rows)) if row != query]
    asked = rows[query]
    if count:
        asked = smoothed_in_a_loop(rows, range(len(rows)), query, count, power)
    found = []
    for row in others:
        value = rows[row] if not count else smoothed_in_a_loop(rows, others, row, count, power)
        found.append((-float(value @ asked), row))
    hits = [labels[row] == labels[query] for _, row in sorted(found)]
    depth = sum(hits)
    return sum(hits[i] * sum(hits[: i + 1]) / (i + 1) for i in range(depth)) / depth


@pytest.mark.parametrize(("count", "power"), [(0, 1), (4, 1), (9, 3)])
def test_the_choice_leaves_each_query_out(count, power):
    rows, labels = labelled(4, 6, 0.3)
    codes = np.unique(labels, return_inverse=True)[1]
    every, queries = np.arange(24), np.array([0, 3, 7, 8, 20])
    nearest = nearest_rows(rows, every, ExactIndex(rows, every), 12)
    found = leave_one_out_precision(
        rows, codes, queries, nearest, num_neighbours=count, power=power
    )
    wanted = [left_out_in_a_loop(rows, labels, query, count, power) for query in queries]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_classes_that_neighbours_show_are_smoothed_and_others_are_not():
    rows, labels = labelled(20, 12, 0.25)
    choice = choose_smoothing(rows, labels)
    assert choice.num_neighbours in (5, 10, 20) and "chosen by their classes" in choice.reason
    assert "240 images" in choice.reason
    assert choose_smoothing(rows, labels, power=7).power == 7
    # Neighbours are of any class: no smoothing helps, and none is chosen.
    shuffled = np.random.default_rng(0).permutation(labels)
    assert choose_smoothing(rows, shuffled).num_neighbours == 0
    # Pairs among many others: the mean of five mixes them up.
    rows, labels = labelled(100, 2, 0.05)
    assert choose_smoothing(rows, labels).num_neighbours == 0


@pytest.mark.parametrize("labels", [[""] * 100, ["a"] * 100, [str(i) for i in range(100)]])
def test_without_classes_the_choice_is_a_guess(labels):
    few = choose_smoothing(drawn(99), np.array(labels[:99]))
    assert few.num_neighbours == 0 and few.reason.startswith("a guess")
    choice = choose_smoothing(drawn(100), np.array(labels))
    assert (choice.num_neighbours, choice.power) == (20, 2)
    assert choice.reason.startswith("a guess")


def test_a_large_collection_is_sampled_by_whole_classes(monkeypatch):
    monkeypatch.setattr(smoothing_choice, "MOST_SAMPLED", 50)
    monkeypatch.setattr(smoothing_choice, "NUM_QUERIES", 30)
    seen = []
    real = smoothing_choice.leave_one_out_precision

    def noted(rows, codes, queries, *args, **options):
        seen.append((len(rows), np.bincount(codes).tolist(), len(queries)))
        return real(rows, codes, queries, *args, **options)

    monkeypatch.setattr(smoothing_choice, "leave_one_out_precision", noted)
    rows, labels = labelled(20, 12, 0.25)
    choose_smoothing(rows, labels)
    assert set(map(str, seen)) == {"(48, [12, 12, 12, 12], 30)"}


KINDS = [{"kind": "exact"}, {"kind": "clusters"}, {"kind": "hierarchy"}]


@pytest.fixture(params=KINDS, ids=lambda index: index["kind"])
def smooth_gallery(request, tmp_path):
    rows, labels = labelled(12, 15, 0.25)
    gallery = Gallery(tmp_path, rows, request.param, labels.tolist())
    gallery.hold(range(180))
    gallery.update(5)
    return gallery


def ranked_in_a_loop(gallery, query, numbers=None):
    """Number, smoothed distance and distance of images, nearest smoothed rows first."""
    smooth = gallery.wanted(5, 2)
    rows = np.concatenate([query[None], gallery.embeddings])
    held = [0, *(1 + number for number in smooth)]
    asked = smoothed_in_a_loop(rows, held, 0, 5, 2)
    found = []
    for number in smooth if numbers is None else numbers:
        plain = gallery.embeddings[number].astype(np.float64)
        found.append(
            (np.linalg.norm(smooth[number] - asked), number, np.linalg.norm(plain - query))
        )
    return sorted(found)


def test_a_search_with_p_hit_ranks_as_one_without(smooth_gallery):
    query = drawn(4, 8, 16)
    every = max(1, Searcher(smooth_gallery.collection).index.num_clusters)
    found = Searcher(smooth_gallery.collection).search(query, 50, probes=every)
    assert found[0][0].hit_probability is not None
    smooth_gallery.collection.change(hits=None)
    plain = Searcher(smooth_gallery.collection).search(query, 50, probes=every)
    assert plain[0][0].hit_probability is None
    for expected, results in zip(plain, found, strict=True):
        assert [each.path for each in results] == [each.path for each in expected]
        distances = [each.smoothed_distance for each in expected]
        assert [each.smoothed_distance for each in results] == pytest.approx(distances, abs=1e-6)


def test_an_image_of_the_collection_searches_with_its_own_smoothed_row(smooth_gallery):
    every = max(1, Searcher(smooth_gallery.collection).index.num_clusters)
    for number in (0, 47, 179):
        query = np.asarray(smooth_gallery.embeddings[number], np.float32)[None]
        (found,) = Searcher(smooth_gallery.collection).search(query, 3, probes=every)
        assert found[0].path.endswith(f"/{number:03}.jpg") or str(number) in found[0].path
        assert found[0].smoothed_distance < 1e-4


def assert_are(results, wanted):
    numbers = [int(each.path.rpartition("/")[2]) for each in results]
    assert numbers == [number for _, number, _ in wanted]
    for each, (by, _, distance) in zip(results, wanted, strict=True):
        assert each.smoothed_distance == pytest.approx(by, abs=1e-5)
        assert each.distance == pytest.approx(distance, abs=1e-6)


def test_a_search_ranks_by_smoothed_rows_unless_it_is_told_not_to(smooth_gallery):
    gallery = smooth_gallery
    query = drawn(1, 5, 16)
    ranked = ranked_in_a_loop(gallery, query[0])
    searcher = Searcher(gallery.collection)
    every = max(1, searcher.index.num_clusters)
    (found,) = searcher.search(query, 180, probes=every)
    assert_are(found, ranked)
    assert [each.distance for each in found] != sorted(each.distance for each in found)
    words = searcher.ranker.in_words()
    assert words.startswith("Ranked by smoothed rows (over 5 nearest, power 2)")
    plain = Searcher(gallery.collection, smooth=False)
    (found,) = plain.search(query, 180, probes=every)
    by_distance = sorted((distance, number) for _, number, distance in ranked)
    numbers = [int(each.path.rpartition("/")[2]) for each in found]
    assert numbers == [number for _, number in by_distance]
    assert all(each.smoothed_distance is None for each in found) and plain.ranker.in_words() == ""
    assert_are(searcher.search_exactly(query, 10)[0], ranked[:10])


def test_a_part_of_the_collection_is_ranked_by_smoothed_rows(smooth_gallery):
    query = drawn(1, 6, 16)
    searcher = Searcher(smooth_gallery.collection)
    numbers = range(15, 30)
    for limits in ({"label": "class 1"}, {"folder": "class 1"}):
        (found,) = searcher.search(query, 20, **limits)
        assert_are(found, ranked_in_a_loop(smooth_gallery, query[0], numbers))


def test_an_update_of_the_index_of_smoothed_rows_finds_what_is_there(smooth_gallery):
    gallery = smooth_gallery
    gallery.hold(range(4, 178))
    gallery.update()
    query = drawn(1, 5, 16)
    searcher = Searcher(gallery.collection)
    (found,) = searcher.search(query, 180, probes=max(1, searcher.index.num_clusters))
    assert_are(found, ranked_in_a_loop(gallery, query[0]))
    held = sorted(searcher.index.rows().tolist())
    assert held == gallery.collection.rows().tolist()
    if searcher.index.kind != "exact":  # its vectors are those of the smoothed rows
        found = searcher.index.search(read_smoothed(gallery.collection).rows[held], 1, probes=99)
        assert found.distances.max() < 1e-3


@pytest.mark.slow
def test_the_kind_of_index_may_change(tmp_path):
    rows, labels = labelled(12, 15, 0.25)
    gallery = Gallery(tmp_path, rows, labels=labels.tolist())
    gallery.hold(range(180))
    gallery.update(5)
    query = drawn(1, 5, 16)
    for kind in ("clusters", "hierarchy", "exact"):
        update_index(gallery.collection, wanted={"kind": kind})
        # As a process that is killed here leaves it: the old index of the smoothed rows is there.
        assert Searcher(Collection.open(gallery.folder)).search(query, 3)
        assert gallery.update().num_recomputed == 0
        files = {each.name for each in gallery.folder.glob("smoothed*")}
        assert files == {"smoothed.bin"} | ({f"smoothed-{kind}.faiss"} - {"smoothed-exact.faiss"})
        searcher = Searcher(gallery.collection)
        (found,) = searcher.search(query, 9, probes=max(1, searcher.index.num_clusters))
        assert_are(found, ranked_in_a_loop(gallery, query[0])[:9])


def test_probes_are_measured_by_plain_queries_in_smoothed_rows(tmp_path, monkeypatch):
    rows, labels = labelled(12, 40, 0.5)
    gallery = Gallery(tmp_path, rows, {"kind": "clusters", "clusters": 6}, labels.tolist())
    gallery.hold(range(480))
    truths = []
    real = smoothed_collection.GroundTruth

    def noted(*args, **options):
        truths.append(real(*args, **options))
        return truths[-1]

    monkeypatch.setattr(smoothed_collection, "GroundTruth", noted)
    report = gallery.update(5)
    (truth,) = truths
    np.testing.assert_array_equal(truth.queries, gallery.collection.embeddings()[truth.query_rows])
    assert report.recall >= 0.95 and 1 <= report.index.probes <= 6
    assert gallery.collection.settings.smoothing["index"]["probes"] == report.index.probes
    assert "clusters and finds" in repr(report)
    update_index(gallery.collection, probes=2)
    assert gallery.update().index.probes == 2 and len(truths) == 1


def test_an_index_that_is_behind_its_rows_is_made_anew(tmp_path):
    """As after a stop between the two files: the state in the settings tells."""
    rows, labels = labelled(12, 15, 0.25)
    gallery = Gallery(tmp_path, rows, {"kind": "clusters", "clusters": 3}, labels.tolist())
    gallery.hold(range(180))
    gallery.update(5)
    old_index = (gallery.folder / "smoothed-clusters.faiss").read_bytes()
    old_settings = (gallery.folder / "collection.json").read_bytes()
    gallery.hold(range(10, 170))
    gallery.update()
    (gallery.folder / "smoothed-clusters.faiss").write_bytes(old_index)
    (gallery.folder / "collection.json").write_bytes(old_settings)
    gallery.hold(range(180))  # these rows come back: the index has them, the smoothed rows do not
    gallery.collection = Collection.open(gallery.folder)
    query = drawn(1, 5, 16)
    (found,) = Searcher(gallery.collection).search(query, 180, probes=3)
    assert {int(each.path.rpartition("/")[2]) for each in found} == set(range(10, 170))
    gallery.update()
    (found,) = Searcher(gallery.collection).search(query, 180, probes=3)
    assert_are(found, ranked_in_a_loop(gallery, query[0]))
    index = Searcher(gallery.collection).index
    found = index.search(read_smoothed(gallery.collection).rows[:], 1, probes=3)
    assert found.distances.max() < 1e-3


def test_a_large_collection_with_clusters_takes_neighbours_from_its_index(tmp_path, monkeypatch):
    monkeypatch.setattr(smoothing_updates, "MOST_COMPARED", 100)
    rows, labels = labelled(12, 15, 0.25)
    gallery = Gallery(tmp_path, rows, {"kind": "clusters", "clusters": 3}, labels.tolist())
    gallery.hold(range(180))
    update_index(gallery.collection, probes=1)
    gallery.update(5)
    index = open_index(gallery.collection)
    found = nearest_rows(rows, np.arange(180), index, 5)
    wanted = smoothed(rows, *found, 2)
    np.testing.assert_allclose(read_smoothed(gallery.collection).rows[:], wanted, atol=1e-6)
    exact = nearest_rows(rows, np.arange(180), ExactIndex(rows, np.arange(180)), 5)
    assert (found.rows != exact.rows).any()  # so the exception is real


def smoothed_refusal(gallery):
    with pytest.raises(InputError) as caught:
        Searcher(Collection.open(gallery.folder)).search(drawn(1), 5)
    assert str(caught.value).startswith(str(gallery.folder)) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    gallery = Gallery(tmp_path_factory.mktemp("made"), drawn(600))
    gallery.hold(range(600))
    gallery.update(4)
    return gallery


@pytest.fixture
def small(made, tmp_path):
    copied = copy.copy(made)
    copied.folder = shutil.copytree(made.folder, tmp_path / "index")
    copied.collection = Collection.open(copied.folder)
    return copied


def test_damaged_smoothed_rows_are_told(small):
    file = small.folder / "smoothed.bin"
    whole = file.read_bytes()
    rows, record = 600 * DIM * 4, 32 + 4 * 12
    for place in (5, rows - 5, rows + 3, rows + 599 * record):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "damaged" in smoothed_refusal(small)
    for place in range(len(whole) - 190, len(whole), 7):  # checksums and ending
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "damaged" in smoothed_refusal(small)
    for wrong in (b"", whole[:-1], whole[DIM * 4 :], whole + b"x", whole[-72:]):
        file.write_bytes(wrong)
        assert "damaged" in smoothed_refusal(small)
        with pytest.raises(InputError, match="smooths the rows anew"):
            small.update()
    file.unlink()
    assert "missing; run index" in smoothed_refusal(small)
    small.update()
    assert len(small.smoothed()) == 600


def rewrite(small, place=(0, 0), value=0, rows_in_block=256):
    """Write the smoothed rows as somebody would who fakes them: with the right checksums."""
    rows = read_smoothed(small.collection)
    nearest = rows.nearest(np.arange(600))
    nearest.rows[place] = value
    keys = np.array(small.collection.store.keys(), "V32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deep_ranking.search.smoothed_rows.ROWS_IN_BLOCK", rows_in_block)
        with SmoothedWriter.replacing(small.collection, 600, 4, 2.0) as writer:
            writer.write(keys, np.ones(600, bool), nearest, rows.rows[:])


@pytest.mark.parametrize("number", [600, -2, 1 << 62])
def test_neighbours_that_do_not_exist_are_refused(small, number):
    rewrite(small)
    assert small.update().num_recomputed == 0
    rewrite(small, (7, 2), number)
    small.hold(range(590))
    with pytest.raises(InputError, match="holds an invalid row number"):
        small.update()


def test_blocks_that_are_not_in_order_are_refused(small):
    rewrite(small, rows_in_block=250)  # 3 blocks as well
    assert "damaged" in smoothed_refusal(small)


def test_smoothed_rows_are_no_link_and_no_pipe(small, tmp_path):
    file = small.folder / "smoothed.bin"
    file.unlink()
    os.mkfifo(file)
    assert "lie in its folder" in smoothed_refusal(small)


@pytest.mark.parametrize(
    "smoothing",
    [
        5,
        {},
        {"neighbours": 4},
        {"neighbours": 1, "power": 3.0, "state": "", "index": {"kind": "exact"}},
        {"neighbours": 4, "power": 0, "state": "", "index": {"kind": "exact"}},
        {"neighbours": 4, "power": 3.0, "state": 5, "index": {"kind": "exact"}},
        {"neighbours": 4, "power": 3.0, "state": "", "index": {"kind": "milvus"}},
        {"neighbours": 4, "power": 3.0, "state": "", "index": {"kind": "exact", "probes": "x"}},
    ],
)
def test_damaged_settings_are_told(small, smoothing):
    file = small.folder / "collection.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"smoothing": smoothing}))
    assert "not what `index` wrote" in smoothed_refusal(small)


def test_an_earlier_version_is_opened_without_smoothing(small):
    file = small.folder / "collection.json"
    values = json.loads(file.read_text()) | {"version": 3}
    del values["smoothing"]
    file.write_text(json.dumps(values))
    old = Collection.open(small.folder)
    assert old.settings.smoothing is None
    assert Searcher(old).search(drawn(1), 1)[0][0].smoothed_distance is None


def test_a_first_smoothing_that_was_stopped_leaves_the_plain_search(small):
    small.collection.change(smoothing=None)  # smoothed.bin is there, and nothing says so
    assert Searcher(small.collection).search(drawn(1), 1)[0][0].smoothed_distance is None
    with pytest.raises(InputError, match="has no smoothed rows; make them with"):
        Searcher(small.collection, smooth=True)
    assert small.update() is None
    assert not (small.folder / "smoothed.bin").exists()


def test_what_cannot_be_smoothed_is_refused(small):
    index = small.collection.settings.index
    small.collection.change(index={"kind": "milvus", "uri": "x.db"})
    with pytest.raises(InputError, match="Milvus searches the rows that its server holds"):
        update_smoothing(small.collection, ExactIndex(drawn(3), np.arange(3)), smooth=4)
    small.collection.change(index=index, shard=(1, 2))
    with pytest.raises(InputError, match="is a shard"):
        small.update(4)
    small.collection.change(shard=None)
    for smooth, power in ((1, None), (-3, None), ("x", None), (10**6, None), (4, 0), (4, 1e9)):
        with pytest.raises(InputError, match="Received"):
            small.update(smooth, power=power)
    for smooth in (None, 0):
        with pytest.raises(InputError, match="has no effect"):
            small.update(smooth, power=3)


def test_rows_in_half_precision_and_of_images_that_cannot_be_read(tmp_path):
    gallery = Gallery(tmp_path, drawn(20))
    gallery.collection.change(dtype="float16")
    gallery.collection.store.extend([([b"x" * 32], np.full((1, DIM), np.nan, np.float32))])
    gallery.hold(range(20))
    gallery.update(30)
    rows = read_smoothed(gallery.collection)
    assert rows.rows.dtype == np.float16 and 0 not in rows.in_use() and len(rows.in_use()) == 20
    for number, row in gallery.wanted(30, 2).items():
        np.testing.assert_allclose(gallery.smoothed()[number], row, atol=1e-3)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(smoothing, "ELEMENTS_AT_ONCE", 100)
    rows = drawn(40)
    few = smooth_rows(rows, 8, 3)
    monkeypatch.undo()
    np.testing.assert_allclose(few, smooth_rows(rows, 8, 3), atol=1e-6)


STOPPED_IN = ("smooth", "writing.py", "folder.py", "clusters.py", "file_checksums.py")


class StoppedError(BaseException):
    pass


def stopped_update(gallery, smooth, fatal=None):
    """Update the smoothed rows, and stop at a line of the code that writes; count the lines."""
    count, index = 0, update_index(gallery.collection)[0]

    def trace(frame, event, _):
        nonlocal count
        name = os.path.basename(frame.f_code.co_filename)
        if not name.startswith(STOPPED_IN):
            return None
        if event == "line":
            count += 1
            if count == fatal:
                raise StoppedError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        update_smoothing(gallery.collection, index, smooth=smooth)
    finally:
        sys.settrace(before)
    return count


# An error between the opening of a file and its `with`, where none comes by itself, leaves it open.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed")
@pytest.mark.parametrize("smooth", [None, 7])
def test_an_update_may_be_stopped_anywhere(tmp_path, smooth):
    """Then a search ranks by complete smoothed rows, old or new, and the next update ends it."""
    rows, labels = labelled(12, 15, 0.25)
    made = Gallery(tmp_path, rows, {"kind": "clusters", "clusters": 3}, labels.tolist())
    made.hold(range(160))
    made.update(5)
    old = made.smoothed()
    made.hold(range(20, 180))

    def copied(name):
        gallery = copy.copy(made)
        gallery.folder = shutil.copytree(made.folder, tmp_path / str(name))
        gallery.collection = Collection.open(gallery.folder)
        return gallery

    undisturbed = copied("undisturbed")
    count = stopped_update(undisturbed, smooth)
    undisturbed.collection = Collection.open(undisturbed.folder)
    new, wanted = undisturbed.smoothed(), undisturbed.wanted(smooth or 5, 2)
    assert_equal(new, wanted)
    query = drawn(1, 5, 16)
    seen = set()
    for fatal in np.unique(np.linspace(1, count, 40).astype(int)):
        gallery = copied(fatal)
        with pytest.raises(StoppedError):
            stopped_update(gallery, smooth, fatal)
        gallery.collection = Collection.open(gallery.folder)
        searcher = Searcher(gallery.collection)
        (found,) = searcher.search(query, 180, probes=3)
        ranker = searcher.ranker
        near = ranker._plain_index.search(query, 7, probes=3).rows
        rows = gallery.collection.embeddings()[near[0]]
        asked = ranker._smoothed_query(query[0], np.asarray(rows, np.float32))
        for state in (old, new):
            numbers = [int(each.path.rpartition("/")[2]) for each in found]
            if set(numbers) <= set(state):
                distances = [np.linalg.norm(state[number] - asked) for number in numbers]
                if np.allclose(distances, [each.smoothed_distance for each in found], atol=1e-5):
                    seen.add("old" if state is old else "new")
                    break
        else:
            pytest.fail(f"line {fatal}: neither the old nor the new smoothed rows")
        gallery.update(smooth)
        assert_equal(gallery.smoothed(), new)
        index = Searcher(gallery.collection).index
        rows = read_smoothed(gallery.collection)
        nearest = index.search(rows.rows[rows.in_use()], 1, probes=3)
        assert nearest.distances.max() < 1e-3 and index.rows().tolist() == rows.in_use().tolist()
    assert seen == {"old", "new"}
