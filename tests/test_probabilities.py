"""reports/probabilities.py: what is stated of labelled images; and the report's section on it."""

import math

import numpy as np
import pytest
from test_hit_calibration import NUM_CLASSES, clustered, collection_of, name_of, unit

from deep_ranking.datasets import hold_back_classes
from deep_ranking.metrics import sample_pairs
from deep_ranking.metrics.evaluation import EmbeddedImages
from deep_ranking.metrics.reliability import reliability
from deep_ranking.model.calibration import Calibration
from deep_ranking.reports import probabilities
from deep_ranking.reports.page.trust import trust
from deep_ranking.reports.probabilities import find_hits, judge_hits, judge_pairs, split_images
from deep_ranking.search.collection import Collection
from deep_ranking.search.indexing import update_index
from deep_ranking.search.searcher import Searcher

CALIBRATION = Calibration((0.2, 1.6), (0.95, 0.05), (0.0, 1.0), (1.0, 2.0), 1.0, 20)


@pytest.fixture(scope="module")
def images():
    """12 classes of 31 images, with two copies across the halves of a split."""
    labels = np.repeat(np.arange(NUM_CLASSES), 31)
    rows = clustered(np.random.default_rng(0), labels)
    collection, queries = split_images(labels, 0)
    rows[queries[0]] = rows[collection[0]]
    rows[queries[40]] = rows[collection[-1]]
    return rows, np.array([name_of(label) for label in labels])


def test_hits_are_judged_as_a_collection_on_disk_states_them(images, tmp_path):
    rows, names = images
    found = judge_hits(rows, names, CALIBRATION, seed=0)
    in_collection, queries = split_images(np.unique(names, return_inverse=True)[1], 0)
    labels = np.unique(names, return_inverse=True)[1]
    collection = collection_of(tmp_path, rows[in_collection], labels[in_collection])
    update_index(collection)
    results = Searcher(Collection.open(collection.folder)).search(rows[queries], 20)
    hits = [
        (each.hit_probability, CALIBRATION.probability(each.distance), each.label == name)
        for name, of_query in zip(names[queries], results, strict=True)
        for each in of_query
    ]
    chances, pairwise, right = zip(*hits, strict=True)
    assert (found.num_queries, found.num_images) == (NUM_CLASSES * 15, NUM_CLASSES * 16)
    assert len(found.right) == 20 * found.num_queries
    assert found.right.tolist() == list(right)
    assert found.pairwise == pytest.approx(pairwise, abs=1e-6)
    assert found.chances == pytest.approx(chances, abs=1e-3)
    assert 0.2 < found.right.mean() < 0.8


def test_chances_come_true_where_the_probability_of_pairs_does_not(images):
    found = judge_hits(*images, None, seed=1)
    chances, pairwise = (
        reliability(each, found.right).calibration_error for each in (found.chances, found.pairwise)
    )
    assert chances < 0.08
    assert pairwise > 0.2


def test_found_hits_are_the_nearest():
    rng = np.random.default_rng(1)
    rows, queries = unit(rng.normal(size=(150, 5))), unit(rng.normal(size=(4, 5)))
    classes = rng.integers(0, 9, 150)
    hits, around = find_hits(queries, rows, classes, count=7)
    for query in range(4):
        near = sorted(
            (math.dist(queries[query].astype(float), row.astype(float)), label)
            for row, label in zip(rows, classes.tolist(), strict=True)
        )
        assert hits.distances[query] == pytest.approx([each for each, _ in near[:7]])
        assert hits.classes[query].tolist() == [label for _, label in near[:7]]
        assert around.distances[query] == pytest.approx([each for each, _ in near[:100]])


def test_own_calibration_is_asked_of_pairs(images):
    rows, names = images
    found = judge_pairs(rows, names, CALIBRATION, seed=4)
    same, different = sample_pairs(names, 20_000, seed=4)
    stated = [
        CALIBRATION.probability(math.dist(rows[first].astype(float), rows[second].astype(float)))
        for first, second in (*same, *different)
    ]
    assert found.probabilities == pytest.approx(stated)
    assert [names[a] == names[b] for a, b in (*same, *different)] == found.right.tolist()
    assert found.right.mean() == 0.5


def test_a_calibration_is_fitted_to_other_classes_than_it_is_judged_on():
    labels = np.repeat(np.arange(NUM_CLASSES), 20)
    judged = hold_back_classes(labels, 0.5, 0)
    # The classes that it is judged on are wider than those that it is fitted to.
    spread = np.where(judged, 0.5, 0.05)[:, None]
    centres = np.eye(NUM_CLASSES)[labels]
    rows = unit(centres + spread * np.random.default_rng(0).normal(size=centres.shape))
    found = judge_pairs(rows, np.array([name_of(label) for label in labels]), None, seed=0)
    assert len(found.right) == 2 * 6 * (20 * 19 // 2)
    assert reliability(*found).calibration_error > 0.2
    own = judge_pairs(rows[judged], np.array([name_of(each) for each in labels[judged]]), None)
    assert reliability(*own).calibration_error < 0.1


def test_images_are_split_within_their_classes(monkeypatch):
    classes = np.repeat([3, 5, 7, 9], [8, 5, 1, 100])
    collection, queries = split_images(classes, 0)
    assert sorted([*collection, *queries]) == list(range(len(classes)))
    assert (np.diff(collection) > 0).all() and (np.diff(queries) > 0).all()
    halves = [
        np.bincount(classes[part], minlength=10)[[3, 5, 7, 9]] for part in (collection, queries)
    ]
    assert [each.tolist() for each in halves] == [[4, 3, 1, 50], [4, 2, 0, 50]]
    assert split_images(classes, 1)[0].tolist() != collection.tolist()
    monkeypatch.setattr(probabilities, "MOST_OF_CLASS", 6)
    collection, queries = split_images(classes, 0)
    assert np.bincount(classes[collection])[[3, 5, 7, 9]].tolist() == [3, 3, 1, 3]
    monkeypatch.setattr(probabilities, "MOST_IMAGES", 11)
    monkeypatch.setattr(probabilities, "MOST_QUERIES", 3)
    collection, queries = split_images(np.repeat(np.arange(10), 4), 0)
    assert sorted(np.bincount(collection // 4, minlength=10)) == [0] * 7 + [2, 2, 2]
    assert len(set(queries.tolist())) == 3
    assert set(queries // 4) <= set(collection // 4)


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 1, 1], np.arange(30), np.repeat([0, 1, 2], 10)])
def test_too_few_images_are_said_in_a_line(labels):
    names = np.array([name_of(label) for label in labels])
    rows = clustered(np.random.default_rng(0), np.array(labels) % NUM_CLASSES)
    assert judge_pairs(rows, names, None) is None
    words = "".join(trust(EmbeddedImages([""] * len(names), names, rows), None, 0))
    assert "Too few images or classes to judge the probability that two images" in words
    learned = len(names) == 30 and len(set(names)) == 3
    assert (judge_hits(rows, names, None) is None) != learned
    assert ("to learn the probability of a hit" in words) != learned


def test_the_section_gives_the_figures(images):
    rows, names = images
    shown = EmbeddedImages([""] * len(names), names, rows)
    words = "".join(trust(shown, CALIBRATION, 0))
    pairs, hits = judge_pairs(rows, names, CALIBRATION), judge_hits(rows, names, CALIBRATION)
    assert words.count("<svg") == 2
    assert "The model&#x27;s own calibration" in words
    assert "11,160 pairs" in words  # 12 * 31 * 30 / 2 of each kind
    assert "192 images" in words and "180" in words and "3,600 hits" in words
    for stated, right in (pairs, (hits.chances, hits.right), (hits.pairwise, hits.right)):
        assert f"error {reliability(stated, right).calibration_error:.3f}." in words
    sure = hits.chances >= 0.9
    assert sure.any()
    share = f"{hits.right[sure].mean():.0%}".replace("%", " %")
    said = f"Of the {sure.sum():,} hits with 90 % or more, {share} are right."
    assert said in words
    words = "".join(trust(shown, None, 0))
    assert "The model is not calibrated" in words
    assert "fitted to pairs of the collection" in words
