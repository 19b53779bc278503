import math
from contextlib import closing
from dataclasses import asdict, replace

import numpy as np
import pytest
from collections_of import make_collection
from sklearn.linear_model import LogisticRegression

from deep_ranking.files import InputError
from deep_ranking.model import hit_calibration
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.hit_calibration import (
    NO_CLASS,
    HitCalibration,
    Neighbourhood,
    fit_hits_among,
    fit_logistic_regression,
    hit_features,
    neighbourhoods,
    queries_to_fit_on,
)
from deep_ranking.search import indexing
from deep_ranking.search.collection import Collection
from deep_ranking.search.hit_probability import classes_of_rows
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.indexing import update_index
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.smoothed_collection import update_smoothing

DIM, NUM_CLASSES = 16, 12
BY_DISTANCE = HitCalibration((0.0,) * 3, (1.0,) * 3, (-1.0, 0.0, 0.0), 1.0, 10)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng, labels, *, spread=0.45):
    """Unit rows around the centres of their classes, some of which are near each other."""
    centres = np.random.default_rng(7).normal(size=(NUM_CLASSES, DIM))
    centres[1::2] = 0.75 * centres[::2] + 0.5 * centres[1::2]
    return unit(centres[labels] + spread * 2 * rng.normal(size=(len(labels), DIM)))


def features_by_loops(distance, label, near, labels):
    """The four features of one hit, as the module's docstring says them."""
    found = [(d, c) for d, c in zip(near, labels, strict=True) if math.isfinite(d)]
    place = sum(d < distance for d, _ in found)
    half = found[len(found) // 2 :]
    background = sum(d for d, _ in half) / len(half)
    votes = for_class = 0.0
    for number, (d, c) in enumerate(found[:20]):
        if number == place and d == distance:
            continue  # itself
        vote = max(1 - d * d / 2, 1e-3) ** 2
        votes += vote
        for_class += vote * (c == label and label != NO_CLASS)
    return distance, math.log(1 + place), background, for_class / votes


@pytest.mark.parametrize("count", [100, 30, 7])
def test_features_against_loops(count):
    rng = np.random.default_rng(count)
    near = np.sort(rng.uniform(0.2, 1.6, (5, count)), axis=1)
    labels = rng.integers(-1, 4, (5, count))
    near[2, -3:], labels[2, -3:] = np.inf, NO_CLASS
    # Hits among the nearest, and one that is farther than all of them.
    hits = np.concatenate([near[:, [0, 3, count - 4]], np.full((5, 1), 1.9)], axis=1)
    classes = np.concatenate([labels[:, [0, 3, count - 4]], np.full((5, 1), 2)], axis=1)
    found = hit_features(hits, classes, Neighbourhood(near, labels))
    for query in range(5):
        for hit in range(4):
            expected = features_by_loops(
                hits[query, hit], classes[query, hit], near[query], labels[query]
            )
            assert found[query, hit] == pytest.approx(expected, abs=1e-12)


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


def answers_to(kind, rng):
    """Features, answers and weights: of a noisy or a separable rule, or hardly any of one kind."""
    count = 30 if kind == "few" else 4000
    rows = rng.normal(size=(count, 4)) * [1, 2, 0.1, 1]
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    noise = {"separable": 0.0, "noisy": 3.0}.get(kind, 1.0)
    score = rows @ [-4.0, 0.5, 0.0, 3.0] + noise * rng.logistic(size=count)
    if kind == "constant feature":
        rows[:, 2] = 0
    answers = score > (np.sort(score)[-12] if kind == "unequal" else 0.3)
    return rows, answers, np.where(rng.random(count) < 0.5, 1.0, 0.07)


def fitted_by_scikit_learn(rows, answers, weights):
    fitted = LogisticRegression(tol=1e-12, max_iter=100_000)
    fitted.fit(rows, answers, sample_weight=weights)
    return np.append(fitted.coef_[0], fitted.intercept_)


@pytest.mark.parametrize(
    "kind", ["noisy", "usual", "separable", "unequal", "few", "constant feature"]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fit_is_scikit_learn_s(kind, seed):
    rows, answers, weights = answers_to(kind, np.random.default_rng(seed))
    found = fit_logistic_regression(rows, answers, weights)
    expected = fitted_by_scikit_learn(rows, answers, weights)
    assert found == pytest.approx(expected, abs=1e-4)
    assert np.abs(expected).max() > 0.5


def test_steps_that_go_too_far_are_halved():
    # A full step from 0 is to where the curvature is almost 0, and the next one to nowhere.
    rows = np.array(
        [
            [0.0, -0.7],
            [0.5, -130.1],
            [-0.3, -3.4],
            [1.6, 1.0],
            [0.8, -3.8],
            [-0.4, -1.0],
            [-1.7, -0.1],
            [-0.8, 0.1],
            [1.2, -1.7],
        ]
    )
    answers = np.array([0, 0, 0, 1, 0, 0, 0, 0, 1], bool)
    weights = np.full(len(rows), 1e4)
    found = fit_logistic_regression(rows, answers, weights)
    expected = fitted_by_scikit_learn(rows, answers, weights)
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_fit_that_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr(hit_calibration, "MOST_STEPS", 2)
    with pytest.raises(InputError, match="could not be fitted"):
        fit_logistic_regression(*answers_to("usual", np.random.default_rng(0)))


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
    assert collection.hit_calibration.needs_classes
    assert collection.hit_calibration.num_queries == len(labels)
    asked = np.repeat(np.arange(NUM_CLASSES), 20)
    queries = clustered(rng, asked)
    chances, right = searched(collection, queries, asked)
    assert 0.2 < right.mean() < 0.8  # neither all right nor all wrong
    assert expected_calibration_error(chances, right) < 0.08
    sure = chances >= 0.9
    assert sure.sum() > 100 and right[sure].mean() > 0.9
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
    found = fit_hits_among(rows, labels, by_classes=True)
    assert found.needs_classes
    assert found.weights == pytest.approx(learned.weights, abs=1e-4)
    assert found.bias == pytest.approx(learned.bias, abs=1e-4)
    assert fit_hits_among(rows, labels).weights != pytest.approx(learned.weights[:3], abs=0.1)


def test_queries_of_unknown_classes_are_rarely_sure_of_a_hit(tmp_path):
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(4, NUM_CLASSES), 25)
    collection = collection_of(tmp_path, clustered(rng, labels, spread=0.3), labels)
    update_index(collection)
    shares = []
    for asked in (np.repeat(np.arange(4), 30), np.repeat(np.arange(4, NUM_CLASSES), 15)):
        results = Searcher(collection).search(
            clustered(rng, asked, spread=0.3), 20, min_probability=0.9
        )
        shares.append(np.mean([bool(found) for found in results]))
    unknown, known = shares
    assert unknown < 0.1
    assert known > 0.3


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


def test_a_collection_without_classes_asks_its_model(tmp_path):
    rng = np.random.default_rng(8)
    known = np.repeat(np.arange(NUM_CLASSES), 25)
    hits = fit_hits_among(clustered(rng, known), known)
    assert not hits.needs_classes
    rows = clustered(rng, known)
    collection = collection_of(tmp_path, rows, np.full(len(known), -1))
    update_index(collection)
    assert collection.settings.hits is None and collection.hit_calibration is None
    collection.calibration = Calibration((0.0, 2.0), (0.9, 0.1), (0.0,), (2.0,), 1.0, 20, hits)
    results = Searcher(collection).search(clustered(rng, known), 20)
    with closing(collection.images()) as images:
        labels = {image.path: known[int(image.path[:4])] for image in images.images()}
    chances = np.array([each.hit_probability for found in results for each in found])
    right = np.array(
        [
            labels[each.path.rpartition("/")[2]] == label
            for found, label in zip(results, known, strict=True)
            for each in found
        ]
    )
    assert expected_calibration_error(chances, right) < 0.08


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
    monkeypatch.setattr(indexing, "fit_collection", None)  # calling it fails
    update_index(Collection.open(collection.folder))
    assert Collection.open(collection.folder).settings.hits == learned


def test_a_row_of_two_classes_has_the_first(tmp_path):
    rows = unit(np.random.default_rng(0).normal(size=(3, DIM)))
    root = tmp_path / "photos"
    for path, content in (("b/1.jpg", "1"), ("a/1.jpg", "1"), ("1.jpg", "1"), ("b/2.jpg", "2")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    paths = {"1.jpg": rows[0], "a/1.jpg": rows[0], "b/1.jpg": rows[0], "b/2.jpg": rows[1]}
    collection = make_collection(tmp_path / "index", root, paths)
    assert sorted(classes_of_rows(collection).tolist()) == [0, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"scales": (1.0, 0.0, 1.0)},
        {"weights": (1.0, math.nan, 1.0)},
        {"weights": (1.0, 2.0)},
        {"centres": (1.0,) * 5},
        {"bias": math.inf},
    ],
)
def test_numbers_out_of_range(change):
    with pytest.raises(InputError, match="out of range"):
        replace(BY_DISTANCE, **change)


@pytest.mark.parametrize("values", [None, 3, [], {}, asdict(BY_DISTANCE) | {"weights": ["x"]}])
def test_values_of_a_damaged_file(values):
    with pytest.raises(InputError, match="not what was written"):
        HitCalibration.from_values(values)


def test_a_calibration_keeps_its_hits():
    plain = Calibration((0.0, 2.0), (0.9, 0.1), (0.0,), (2.0,), 1.0, 20, BY_DISTANCE)
    assert Calibration.from_json(plain.to_json()) == plain
    without = replace(plain, hits=None)
    assert Calibration.from_json(without.to_json()) == without
    assert without.to_json().endswith('"hits": null}')
    assert Calibration.from_json(without.to_json().replace(', "hits": null', "")) == without


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
