import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from deep_ranking.metrics import pair_metrics, sample_pairs
from deep_ranking.metrics.pairs import pair_intervals


def all_pairs(labels):
    """Every unordered pair, of one class and of two."""
    same, different = set(), set()
    for first in range(len(labels)):
        for second in range(first):
            kind = same if labels[first] == labels[second] else different
            kind.add(frozenset((first, second)))
    return same, different


def as_sets(pairs):
    return [frozenset(pair) for pair in pairs.tolist()]


@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=14), st.integers(0, 3))
@settings(deadline=None)
def test_all_pairs_of_the_rarer_kind_come_once(labels, seed):
    same, different = all_pairs(labels)
    if not same or not different:
        with pytest.raises(ValueError, match="a class of two images and a second class"):
            sample_pairs(np.array(labels), 1000, seed=seed)
        return
    found = sample_pairs(np.array(labels), 1000, seed=seed)
    rarer = min(len(same), len(different))
    for pairs, kind in zip(map(as_sets, found), (same, different), strict=True):
        assert len(pairs) == len(set(pairs)) == rarer
        assert set(pairs) <= kind


@pytest.mark.parametrize("count", [3, 20, 45])
def test_every_pair_is_equally_likely(count):
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3])
    possible = all_pairs(labels)
    drawn = [sample_pairs(labels, count, seed=seed) for seed in range(1500)]
    for kind in range(2):
        size = len(drawn[0][kind])
        assert size == min(count, *map(len, possible))
        seen = [pair for pairs in drawn for pair in as_sets(pairs[kind])]
        assert set(seen) == possible[kind]
        share = size / len(possible[kind])
        expected, spread = 1500 * share, np.sqrt(1500 * share * (1 - share))
        counts = np.array([seen.count(pair) for pair in possible[kind]])
        assert (np.abs(counts - expected) <= 4.5 * spread).all()


def test_pairs_depend_on_the_seed_alone():
    labels = np.arange(60) % 7
    first, again = sample_pairs(labels, 50, seed=3), sample_pairs(labels, 50, seed=3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], sample_pairs(labels, 50, seed=4)[0])


def test_a_large_dataset_needs_little_memory():
    # 50 million same and 5 billion different pairs, and one image that is alone in its class.
    labels = np.append(np.arange(100_000) % 100, 100)
    tracemalloc.start()
    same, different = sample_pairs(labels, 10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert (labels[same[:, 0]] == labels[same[:, 1]]).all()
    assert (labels[different[:, 0]] != labels[different[:, 1]]).all()
    assert (same[:, 0] != same[:, 1]).all()
    assert len(np.unique(np.sort(same, axis=1), axis=0)) == 10_000


def test_count_must_be_positive():
    with pytest.raises(ValueError, match="count=0"):
        sample_pairs(np.array([0, 0, 1]), 0)


@pytest.mark.parametrize(
    ("same", "different", "expected"),
    [
        # Told apart completely: the threshold lies in the middle of what is between.
        ([1, 2], [4, 5], (1.0, 0.0, 3.0)),
        ([4, 5], [1, 2], (0.0, 1.0, 3.0)),
        # Of 16 comparisons 6 loses two. From 4 up to 5 one pair of each kind is misjudged.
        ([1, 2, 3, 6], [4, 5, 7, 8], (14 / 16, 0.25, 4.5)),
        # From (missed 1/3, false 0) at 2 to (1/3, 1/2) at 3: equal after 2/3 of the way.
        ([1, 2, 4], [3, 5], (5 / 6, 1 / 3, 2 + 2 / 3)),
        # A collapsed model.
        ([1, 1, 1], [1, 1], (0.5, 0.5, 1.0)),
        # The tie at 2 counts half. Missed 1/2 and false 0 at 1, the reverse at 2.
        ([1, 2], [2, 3], (3.5 / 4, 0.25, 1.5)),
    ],
)
def test_pair_metrics_worked_by_hand(same, different, expected):
    assert pair_metrics(np.array(same), np.array(different)) == pytest.approx(expected)


@pytest.mark.parametrize("decimals", [1, 12], ids=["ties", "no ties"])
@pytest.mark.parametrize("seed", range(4))
def test_pair_metrics_equal_loops_and_scikit_learn(seed, decimals):
    generator = np.random.default_rng(seed)
    same = np.round(generator.normal(0.8, 0.3, 41), decimals)
    different = np.round(generator.normal(1.2, 0.3, 67), decimals)
    found = pair_metrics(same, different)
    wins = [1.0 if s < d else 0.5 if s == d else 0.0 for s in same for d in different]
    assert found.roc_auc == pytest.approx(np.mean(wins))
    # scikit-learn's curve, walked in small steps.
    is_same = np.arange(108) < 41
    scores = -np.concatenate([same, different])
    assert found.roc_auc == pytest.approx(roc_auc_score(is_same, scores), abs=1e-12)
    false, true, _ = roc_curve(is_same, scores, drop_intermediate=False)
    steps = np.linspace(0, len(false) - 1, 200_001)
    false, true = (np.interp(steps, np.arange(len(false)), values) for values in (false, true))
    equal = np.argmin(np.abs(false - (1 - true)))
    assert found.equal_error_rate == pytest.approx(false[equal], abs=1e-3)
    # At distances below the threshold more same than different pairs are misjudged.
    for distance in -scores:
        excess = np.mean(same > distance) - np.mean(different <= distance)
        assert excess * np.sign(found.threshold - distance) >= -1e-12


def test_equal_error_does_not_depend_on_the_balance():
    generator = np.random.default_rng(0)
    same, different = generator.random(30), 0.3 + generator.random(40)
    assert pair_metrics(np.tile(same, 3), different) == pytest.approx(pair_metrics(same, different))


@pytest.mark.parametrize("bad", [[], [0.5, np.nan], [np.inf], [[1.0]]])
def test_distances_must_be_a_row_of_numbers(bad):
    with pytest.raises(ValueError, match="same distances must be"):
        pair_metrics(np.array(bad), np.array([1.0]))
    with pytest.raises(ValueError, match="different distances must be"):
        pair_metrics(np.array([1.0]), np.array(bad))


@pytest.mark.parametrize("decimals", [1, 6])
def test_intervals_are_those_of_resampled_groups(decimals):
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), 4)
    same = np.round(rng.normal(0.7, 0.3, 120) + 0.2 * (groups % 3), decimals)
    different = np.round(rng.normal(1.2, 0.3, 120), decimals)
    found = pair_intervals(same, different, groups, groups, resamples=50, seed=2)
    whole = pair_metrics(same, different)
    assert found["roc_auc"].mean == whole.roc_auc
    assert found["equal_error_rate"].mean == whole.equal_error_rate
    # The same draws, each resample written out pair by pair and judged like any other pairs.
    generator = np.random.default_rng(2)
    values = []
    for _ in range(50):
        drawn = generator.integers(30, size=30)
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        again = pair_metrics(same[rows], different[rows])
        values.append((again.roc_auc, again.equal_error_rate))
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(
        [interval[1:] for interval in found.values()], np.transpose([low, high]), atol=1e-9
    )


def test_intervals_of_equal_distances():
    equal = np.ones(12)
    found = pair_intervals(equal, equal, np.arange(12), np.arange(12))
    assert found["roc_auc"] == (0.5, 0.5, 0.5)
    assert found["equal_error_rate"] == (0.5, 0.5, 0.5)
