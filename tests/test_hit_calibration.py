import json
import math
from contextlib import closing
from dataclasses import asdict, replace

import numpy as np
import pytest
from collections_of import make_collection
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from deep_ranking.files import InputError
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.hit_calibration import (
    NO_CLASS,
    HitCalibration,
    Neighbourhood,
    features_of_hits,
    features_of_presence,
    never_rising,
)
from deep_ranking.model.hit_fitting import fit_hits_among, neighbourhoods, queries_to_fit_on
from deep_ranking.model.logistic_regression import LogisticRegression
from deep_ranking.search import hit_probability
from deep_ranking.search.collection import Collection
from deep_ranking.search.collection.syncing import SyncReport
from deep_ranking.search.hit_probability import classes_of_rows, state_of_classes
from deep_ranking.search.index.kinds import index_settings, open_index
from deep_ranking.search.indexing import IndexReport, update_index
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.smoothed_collection import update_smoothing

DIM, NUM_CLASSES = 16, 12
ZEROS = (0.0,) * 4
BY_DISTANCE = LogisticRegression(ZEROS, (1.0,) * 4, (-1.0, 0.0, 0.0, 0.0), 1.0)
EARLIER = asdict(BY_DISTANCE) | {"num_queries": 10}  # as versions without `presence` stored it


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng, labels, *, spread=0.45):
    """Unit rows around the centres of their classes, some of which are near each other."""
    centres = np.random.default_rng(7).normal(size=(NUM_CLASSES, DIM))
    centres[1::2] = 0.75 * centres[::2] + 0.5 * centres[1::2]
    return unit(centres[labels] + spread * 2 * rng.normal(size=(len(labels), DIM)))


def features_by_loops(near, labels):
    """The features of a query and of its classed neighbours, as the module's docstring says."""
    found = [(d, c) for d, c in zip(near, labels, strict=True) if math.isfinite(d) and c >= 0]
    half = found[len(found) // 2 :]
    background = sum(d for d, _ in half) / len(half)
    voters = [(max(1 - d * d / 2, 1e-3) ** 2, c) for d, c in found[:20]]
    of_hits = []
    for place, (distance, label) in enumerate(found):
        others = voters[:place] + voters[place + 1 :]
        share = sum(v for v, c in others if c == label) / sum(v for v, _ in others)
        of_hits.append((distance, math.log(1 + place), background, share))
    return (found[0][0], background), of_hits


@pytest.mark.parametrize("count", [100, 30, 7])
def test_features_against_loops(count):
    rng = np.random.default_rng(count)
    near = np.sort(rng.uniform(0.2, 1.6, (5, count)), axis=1)
    labels = rng.integers(-1, 4, (5, count))
    near[2, -3:], labels[2, -3:] = np.inf, NO_CLASS
    around = Neighbourhood(near, labels).classed()
    for query in range(5):
        of_query, of_hits = features_by_loops(near[query], labels[query])
        assert features_of_presence(around)[query] == pytest.approx(of_query, abs=1e-12)
        found = features_of_hits(around)[query, : len(of_hits)]
        assert found == pytest.approx(np.array(of_hits), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_the_closest_sequence_that_never_rises_is_scikit_learn_s(values):
    values = np.array(values)
    expected = IsotonicRegression(increasing=False).fit_transform(np.arange(len(values)), values)
    found = never_rising(values)
    assert found == pytest.approx(expected, abs=1e-9)
    assert (np.diff(found) <= 0).all()


def drawn_regression(rng, num_features):
    centres, scales, weights = rng.normal(size=(3, num_features))
    size = 10.0 ** rng.integers(-2, 3)
    return LogisticRegression(
        tuple(centres), tuple(np.abs(scales) + 0.01), tuple(size * weights), rng.normal()
    )


@given(st.integers(0, 2**32), st.integers(0, 120), st.booleans())
def test_a_chance_never_rises_with_distance(seed, count, knows_presence):
    """Whatever the neighbours and the numbers of the calibration; of hits among them or beyond."""
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.uniform(0, 2, (3, count)).round(rng.integers(1, 8)), axis=1)
    classes = rng.integers(NO_CLASS, 4, (3, count))
    distances[1, count // 2 :], classes[2] = np.inf, NO_CLASS
    presence = drawn_regression(rng, 2) if knows_presence else None
    calibration = HitCalibration(presence, drawn_regression(rng, 4), 10)
    hits = np.concatenate([distances, rng.uniform(0, 2, (3, 9)), [[0, 2]] * 3], axis=1)
    hits = np.sort(np.where(np.isinf(hits), 1, hits), axis=1)
    found = calibration.probabilities(hits, Neighbourhood(distances, classes))
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found, axis=1) <= 0).all()
    assert (found[2] == 0).all()


def test_a_hit_has_the_chance_of_the_image_at_its_distance():
    """By distance alone: 0.8, 0.5 and 0.2; then by the votes, which rise and are pooled."""
    log_odds = np.log([4, 1, 1 / 4])
    near = Neighbourhood(np.array([[0.1, 0.2, 0.3]]), np.array([[0, 1, 1]]))
    by_distance = LogisticRegression((0.2,) + (0.0,) * 3, (0.1,) + (1.0,) * 3, ZEROS, 0.0)
    by_distance = replace(by_distance, weights=(-log_odds[0], 0.0, 0.0, 0.0))
    calibration = HitCalibration(None, by_distance, 10)
    hits = np.array([[0.3, 0.1, 0.25, np.inf, 0.4]])
    (found,) = calibration.probabilities(hits, near)
    # The hit at 0.25 is none of the neighbours: it counts as the farther one. 0.4 is beyond.
    assert found == pytest.approx([0.2, 0.8, 0.2, 0, 1 / (1 + 16)])
    by_votes = replace(by_distance, weights=(0.0, 0.0, 0.0, 1.0), bias=-0.5)
    raw = [  # 1 - d^2 / 2 is the cosine
        1 / (1 + math.exp(0.5 - each))
        for each in (0, 0.955**2 / (0.995**2 + 0.955**2), 0.98**2 / (0.995**2 + 0.98**2))
    ]
    assert raw[0] < raw[1] < raw[2]
    (found,) = HitCalibration(None, by_votes, 10).probabilities(near.distances, near)
    assert found == pytest.approx([np.mean(raw)] * 3)
    in_three_of_four = LogisticRegression(ZEROS[:2], (1.0,) * 2, ZEROS[:2], math.log(3))
    (less,) = HitCalibration(in_three_of_four, by_votes, 10).probabilities(near.distances, near)
    assert less == pytest.approx(0.75 * found)


def test_neighbourhoods_are_sorted_and_measured():
    rows = unit(np.random.default_rng(0).normal(size=(6, 4)))
    classes = np.array([5, 6, 7, 8, 9, 4])
    found = neighbourhoods(rows, np.array([2]), rows, np.array([[3, -1, 0, 5]]), classes)
    expected = sorted((math.dist(rows[2], rows[row]), classes[row]) for row in (3, 0, 5))
    assert found.distances[0, :3] == pytest.approx([distance for distance, _ in expected])
    assert found.classes[0].tolist() == [*(label for _, label in expected), NO_CLASS]
    assert np.isinf(found.distances[0, 3])


def test_searches_are_with_images_whose_class_has_another():
    classes = np.array([3, 3, 4, NO_CLASS, NO_CLASS, 5, 5])
    assert queries_to_fit_on(classes).tolist() == [0, 1, 5, 6]
    many = queries_to_fit_on(np.repeat([1, 2], 400))
    assert len(many) == len(set(many.tolist())) == 500
    assert (np.diff(many) > 0).all()


def name_of(label):
    return f"c{label:02}"


def collection_of(tmp_path, rows, labels, *, copies=1):
    """A collection of these rows; the class of each is the folder of its file, and its copies."""
    root = tmp_path / "photos"
    folders = ["" if label < 0 else f"{name_of(label)}/" for label in labels]
    by_path = {}
    for number, folder in enumerate(folders):
        for copy in range(copies):
            path = f"{folder}{copy or ''}{number:04}.jpg"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(str(number))
            by_path[path] = rows[number]
    return make_collection(tmp_path / "index", root, by_path)


def expected_calibration_error(chances, right):
    bins = np.minimum((chances * 15).astype(int), 14)
    return sum(
        abs(chances[bins == each].mean() - right[bins == each].mean()) * np.mean(bins == each)
        for each in np.unique(bins)
    )


def searched(collection, queries, labels, **options):
    """Chances of the 20 hits of each query, and whether they are of its class."""
    results = Searcher(collection).search(queries, 20, **options)
    chances = np.array([each.hit_probability for found in results for each in found])
    right = np.array(
        [
            each.label == name_of(label)
            for found, label in zip(results, labels, strict=True)
            for each in found
        ]
    )
    return chances, right.astype(float)


def test_chances_hold_for_new_queries(tmp_path):
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(NUM_CLASSES), 25)
    collection = collection_of(tmp_path, clustered(rng, labels), labels)
    update_index(collection)
    collection = Collection.open(collection.folder)
    assert collection.hit_calibration.presence is not None
    assert collection.hit_calibration.num_queries == len(labels)
    asked = np.repeat(np.arange(NUM_CLASSES), 20)
    queries = clustered(rng, asked)
    chances, right = searched(collection, queries, asked)
    assert 0.2 < right.mean() < 0.8  # neither all right nor all wrong
    assert expected_calibration_error(chances, right) < 0.08
    sure = chances >= 0.9
    assert sure.sum() > 20 and right[sure].mean() > 0.9
    # Limits change which hits there are, and not what is known of them.
    of_one = Searcher(collection).search(queries[:1], 20, label="c00")[0]
    of_all = Searcher(collection).search(queries[:1], 300)[0]
    by_path = {each.path: each.hit_probability for each in of_all}
    assert all(each.hit_probability == pytest.approx(by_path[each.path]) for each in of_one)


def test_rows_in_memory_teach_what_a_collection_of_them_does(tmp_path):
    labels = np.repeat(np.arange(NUM_CLASSES), 20)
    rows = clustered(np.random.default_rng(10), labels)
    collection = collection_of(tmp_path, rows, labels)
    update_index(collection)
    learned = Collection.open(collection.folder).hit_calibration
    found = fit_hits_among(rows, labels)
    for name in ("presence", "hit"):
        here, there = getattr(found, name), getattr(learned, name)
        assert here.weights == pytest.approx(there.weights, abs=1e-4)
        assert here.bias == pytest.approx(there.bias, abs=1e-4)


def test_foreign_queries_have_low_chances(tmp_path):
    """Of classes that are near those of the collection, and of quite other images."""
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(4, NUM_CLASSES), 25)
    collection = collection_of(tmp_path, clustered(rng, labels, spread=0.3), labels)
    update_index(collection)
    searcher = Searcher(Collection.open(collection.folder))
    known, near = np.repeat(np.arange(4, NUM_CLASSES), 15), np.repeat(np.arange(4), 30)
    queries = {
        "known": clustered(rng, known, spread=0.3),
        "near": clustered(rng, near, spread=0.3),
        "far": unit(rng.normal(size=(60, DIM))),
    }
    chances = {
        name: np.array([[each.hit_probability for each in found] for found in results])
        for name, results in ((name, searcher.search(rows, 20)) for name, rows in queries.items())
    }
    assert all((np.diff(each, axis=1) <= 0).all() for each in chances.values())
    assert np.mean(chances["known"][:, 0] >= 0.9) > 0.15
    assert np.mean(chances["near"][:, 0] >= 0.9) < 0.05
    assert np.mean(chances["far"][:, 0] >= 0.4) < 0.05
    assert chances["near"].mean() < 0.3 and chances["far"].mean() < 0.1


def test_a_copy_of_the_query_does_not_speak_for_itself(tmp_path):
    """The calibration learned from searches without the query, so its copy has no vote."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(NUM_CLASSES), 12)
    rows = clustered(rng, labels)
    collection = collection_of(tmp_path, rows, labels)
    update_index(collection)
    with_copy = Searcher(collection).search(rows[:1], 144)[0]
    others = np.arange(len(rows)) > 0
    (tmp_path / "other").mkdir()
    rest = collection_of(tmp_path / "other", rows[others], labels[others])
    rest.change(hits=collection.settings.hits)
    without = Searcher(rest).search(rows[:1], 143)[0]
    assert with_copy[0].distance < 1e-3
    for found, expected in zip(with_copy[1:], without, strict=True):
        assert found.hit_probability == pytest.approx(expected.hit_probability, abs=1e-9)


def test_hits_without_a_class_have_no_chance(tmp_path):
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 2, 4, -1], 20)
    collection = collection_of(tmp_path, clustered(rng, labels), labels)
    update_index(collection)
    found = Searcher(collection).search(clustered(rng, np.array([0])), 80)[0]
    assert {each.hit_probability is None for each in found if not each.label} == {True}
    assert {each.hit_probability is None for each in found if each.label} == {False}


def test_images_without_a_class_tell_nothing_of_the_others():
    """Chances are those of a neighbourhood from which they were taken away."""
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 2, 4], 30)
    calibration = fit_hits_among(clustered(rng, labels), labels)
    distances, classes = np.sort(rng.uniform(0.3, 1.4, (3, 60))), rng.integers(-1, 3, (3, 60))
    mixed = calibration.probabilities(distances, Neighbourhood(distances, classes))
    for query in range(3):
        kept = classes[query] >= 0
        alone = Neighbourhood(distances[query, kept][None], classes[query, kept][None])
        found = calibration.probabilities(distances[query, kept][None], alone)[0]
        assert mixed[query, kept] == pytest.approx(found)


@pytest.mark.parametrize(("label", "why"), [(-1, "no classes"), (0, "too few or too small")])
def test_a_collection_without_classes_tells_none(tmp_path, label, why):
    """However well its model is calibrated: other classes say too little of it."""
    rows = clustered(np.random.default_rng(8), np.repeat(np.arange(NUM_CLASSES), 10))
    collection = collection_of(tmp_path, rows, np.full(len(rows), label))
    index, recall = update_index(collection)
    collection = Collection.open(collection.folder)
    collection.calibration = Calibration((0.0, 2.0), (0.9, 0.1), (0.0,), (2.0,), 1.0, 20)
    assert collection.hit_calibration is None
    (found,) = Searcher(collection).search(rows[:1], 5)
    assert {each.hit_probability for each in found} == {None}
    report = IndexReport(collection, SyncReport(120, 0, 0, 0, [], 0, []), index, recall)
    assert why in report.conclusion.partition("exact. ")[2]


def test_what_an_earlier_version_learned_is_used_and_learned_again(tmp_path, monkeypatch):
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(NUM_CLASSES), 10)
    rows = clustered(rng, labels)
    collection = collection_of(tmp_path, rows, labels)
    update_index(collection)
    learned = collection.settings.hits
    file = collection.folder / "collection.json"
    values = json.loads(file.read_text())
    with monkeypatch.context() as earlier_version:
        earlier_version.setattr(hit_probability, "WAY_OF_LEARNING", 1)
        state = state_of_classes(collection)
    file.write_text(json.dumps(values | {"hits": EARLIER, "hits_of": state.digest, "version": 5}))
    earlier = Collection.open(collection.folder)
    assert earlier.settings.hits == HitCalibration(None, BY_DISTANCE, 10)
    found = Searcher(earlier).search_embedded(["q.jpg"], rows[:1], 5)
    assert f"run `index --output {collection.folder}` again" in found.note
    assert found.results[0][2].hit_probability == pytest.approx(
        1 / (1 + math.exp(found.results[0][2].distance - 1))
    )
    update_index(earlier)
    assert earlier.settings.hits == learned
    assert Searcher(earlier).search_embedded(["q.jpg"], rows[:1], 5).note == ""


@pytest.mark.parametrize("labels", [[0], [0, 0, 1], np.arange(30), np.zeros(30, int)])
def test_too_little_to_learn_from(labels):
    labels = np.array(labels)
    assert fit_hits_among(clustered(np.random.default_rng(0), labels % NUM_CLASSES), labels) is None


def test_a_change_of_classes_is_learned_again(tmp_path):
    rng = np.random.default_rng(9)
    labels = np.repeat(np.arange(NUM_CLASSES), 10)
    collection = collection_of(tmp_path, clustered(rng, labels), labels)
    update_index(collection)
    before = collection.settings.hits
    with closing(collection.images(writable=True)) as images:
        images._base.execute("UPDATE images SET class = ? WHERE class = ?", (b"c00", b"c05"))
    update_index(collection)
    assert collection.settings.hits != before
    assert Collection.open(collection.folder).settings.hits == collection.settings.hits


def test_what_did_not_change_is_not_learned_again(tmp_path, monkeypatch):
    rng = np.random.default_rng(10)
    labels = np.repeat(np.arange(NUM_CLASSES), 6)
    collection = collection_of(tmp_path, clustered(rng, labels), labels)
    update_index(collection)
    learned = collection.settings.hits
    assert learned is not None
    monkeypatch.setattr(hit_probability, "fit_collection", None)  # calling it fails
    update_index(Collection.open(collection.folder))
    assert Collection.open(collection.folder).settings.hits == learned


def relabel(collection, number):
    with closing(collection.images(writable=True)) as images:
        path = f"c00/{number:04}.jpg".encode()
        changed = images._base.execute("UPDATE images SET class = ? WHERE path = ?", (b"z", path))
    assert changed.rowcount == 1


def test_many_images_keep_what_was_learned_until_a_hundredth_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(hit_probability, "MOST_LISTED", 100)
    labels = np.repeat(np.arange(NUM_CLASSES), 20)
    collection = collection_of(tmp_path, clustered(np.random.default_rng(12), labels), labels)
    index, _ = update_index(collection)
    learned = collection.settings
    assert learned.hits is not None and learned.hits_behind == 0
    relabel(collection, 0)  # 1 of 240: one class is smaller, and one larger
    update_index(collection)
    kept = Collection.open(collection.folder).settings
    assert (kept.hits, kept.hits_sizes) == (learned.hits, learned.hits_sizes)
    assert kept.hits_behind == 2 and kept.hits_of != learned.hits_of
    report = IndexReport(collection, SyncReport(240, 0, 0, 0, [], 0, []), index, None)
    assert "images, before 2 of them changed, too few to learn it again." in report.conclusion
    relabel(collection, 1)
    update_index(collection)
    again = collection.settings
    assert again.hits != learned.hits and again.hits_behind == 0
    assert "changed" not in report.conclusion
    relabel(collection, 2)
    update_index(collection, wanted=index_settings("clusters"), clusters=4)  # another index
    assert collection.settings.hits_behind == 0
    assert collection.settings.hits_sizes != again.hits_sizes
    monkeypatch.setattr(hit_probability, "WAY_OF_LEARNING", 3)
    relabel(collection, 3)
    update_index(collection)
    assert collection.settings.hits_behind == 0
    monkeypatch.undo()
    relabel(collection, 4)  # a small collection learns it each time
    update_index(collection)
    assert collection.settings.hits_behind == 0


def test_a_row_of_two_classes_has_the_first(tmp_path):
    rows = unit(np.random.default_rng(0).normal(size=(3, DIM)))
    root = tmp_path / "photos"
    for path, content in (("b/1.jpg", "1"), ("a/1.jpg", "1"), ("1.jpg", "1"), ("b/2.jpg", "2")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    paths = {"1.jpg": rows[0], "a/1.jpg": rows[0], "b/1.jpg": rows[0], "b/2.jpg": rows[1]}
    collection = make_collection(tmp_path / "index", root, paths)
    assert sorted(classes_of_rows(collection).tolist()) == [0, 1]


@pytest.mark.parametrize("values", [None, 3, [], {}, EARLIER | {"weights": ["x"]}])
def test_values_of_a_damaged_file(values):
    with pytest.raises(InputError, match="not what was written"):
        HitCalibration.from_values(values)


def test_other_features_are_refused():
    with pytest.raises(InputError, match="other features"):
        HitCalibration(BY_DISTANCE, BY_DISTANCE, 10)
    two = replace(BY_DISTANCE, centres=ZEROS[:2], scales=(1.0,) * 2, weights=ZEROS[:2])
    with pytest.raises(InputError, match="other features"):
        HitCalibration(two, two, 10)
    found = HitCalibration(two, BY_DISTANCE, 10)
    assert HitCalibration.from_values(asdict(found)) == found


def test_the_query_itself_is_as_sure_as_the_next(tmp_path):
    """It is not among the images that vote, so no vote of its own is taken off."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(NUM_CLASSES), 12)
    rows = clustered(rng, labels)
    collection = collection_of(tmp_path, rows, labels)
    update_index(collection)
    found = Searcher(collection).search(rows[::3], 2)
    pairs = [each for each in found if each[0].label == each[1].label]
    assert len(pairs) > NUM_CLASSES // 2
    for itself, following in pairs:
        assert itself.distance < 1e-3
        assert itself.hit_probability >= following.hit_probability


@pytest.mark.parametrize("smooth", [None, 5])
def test_copies_count_once_whatever_is_asked_for(tmp_path, smooth):
    """Each image has a file, or five; the chance of a hit goes by the images."""
    rng = np.random.default_rng(12)
    labels = np.repeat(np.arange(NUM_CLASSES), 12)
    rows, queries = clustered(rng, labels), clustered(rng, np.arange(NUM_CLASSES))
    queries = np.concatenate([queries, rows[:4]])
    single = collection_of(tmp_path, rows, labels)
    update_index(single)
    (tmp_path / "more").mkdir()
    copied = collection_of(tmp_path / "more", rows, labels, copies=5)
    update_index(copied)
    if smooth is not None:
        update_smoothing(copied, open_index(copied), smooth=smooth)
    assert copied.settings.hits == single.settings.hits
    expected = [
        {each.path[-8:]: each.hit_probability for each in found}
        for found in Searcher(single).search(queries, len(rows))
    ]
    searcher = Searcher(copied)
    for top, options in ((5, {}), (60, {}), (1000, {}), (40, {"rerank": True})):
        for found, chances in zip(searcher.search(queries, top, **options), expected, strict=True):
            assert len(found) == min(top, 5 * len(rows))
            for each in found:
                assert each.hit_probability == pytest.approx(chances[each.path[-8:]], abs=1e-6)
