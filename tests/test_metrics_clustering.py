from collections import Counter
from math import log

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from deep_ranking.metrics.clustering import nmi


def blobs(sizes, seed=0):
    """Points so close around the corners of a simplex that no k-means can miss them."""
    blob = np.repeat(np.arange(len(sizes)), sizes)
    noise = 1e-3 * np.random.default_rng(seed).standard_normal((len(blob), 12))
    return (np.eye(12)[blob] + noise).astype(np.float32), blob


def naive_nmi(first, second):
    """Mutual information over the mean entropy, from counts."""

    def entropy(values):
        shares = [count / len(values) for count in Counter(values).values()]
        return -sum(share * log(share) for share in shares)

    entropies = entropy(first), entropy(second)
    joint = entropy(list(zip(first, second, strict=True)))
    return (sum(entropies) - joint) / (sum(entropies) / 2)


def test_clusters_that_are_the_classes_give_one():
    embeddings, blob = blobs([20, 30, 25])
    names = np.array(["ape", "bee", "cat"])[blob]
    assert nmi(embeddings, names) == pytest.approx(1)


def test_wrong_labels_cost_what_the_formula_says():
    embeddings, blob = blobs([20, 30, 25, 1])
    labels = blob.copy()
    labels[[0, 1, 2, 40]] = [1, 1, 2, 0]
    expected = naive_nmi(labels.tolist(), blob.tolist())
    assert 0.5 < expected < 0.95
    assert nmi(embeddings, labels) == pytest.approx(expected)


def test_a_collapsed_model_has_no_information():
    assert nmi(np.ones((30, 4), np.float32), np.arange(30) % 3) == 0


def test_as_good_as_scikit_learn_s_clusters():
    rng = np.random.default_rng(0)
    labels = np.arange(900) % 30
    embeddings = rng.normal(size=(30, 16))[labels] + 0.7 * rng.normal(size=(900, 16))
    clusters = KMeans(30, n_init=1, random_state=0).fit_predict(embeddings)
    theirs = normalized_mutual_info_score(labels, clusters)
    assert 0.7 < theirs < 0.95
    found = [nmi(embeddings.astype(np.float32), labels, seed=seed) for seed in range(5)]
    assert np.mean(found) == pytest.approx(theirs, abs=0.02)


def test_one_class_is_undefined():
    assert np.isnan(nmi(blobs([5])[0], np.zeros(5)))


def test_the_same_seed_gives_the_same_number():
    embeddings = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    labels = np.arange(100) % 9
    first, again, other = (nmi(embeddings, labels, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_bad_input_is_refused():
    embeddings, blob = blobs([3, 3])
    with pytest.raises(ValueError, match=r"one label for each of 6 .* \(5,\)"):
        nmi(embeddings, blob[:5])
    embeddings[4, 0] = np.nan
    with pytest.raises(ValueError, match=r"row 4\."):
        nmi(embeddings, blob)
