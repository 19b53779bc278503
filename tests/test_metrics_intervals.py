import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from deep_ranking.metrics import bootstrap_interval, intervals
from deep_ranking.metrics.intervals import median_interval, wilson_interval


def test_equals_scipy_within_the_noise_of_resampling():
    values = np.random.default_rng(0).exponential(size=200)
    found = bootstrap_interval(values, resamples=20_000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=0.01)


def test_equals_python_loops_over_the_same_draws():
    values = np.array([0.0, 1.0, 1.0, 0.5, np.nan, 0.25])
    defined = values[~np.isnan(values)]
    draws = np.random.default_rng(7).integers(5, size=(300, 5))
    means = sorted(sum(defined[i] for i in draw) / 5 for draw in draws)
    found = bootstrap_interval(values, confidence=0.8, resamples=300, seed=7)
    assert found.mean == 2.75 / 5
    assert found.low == pytest.approx(np.quantile(means, 0.1))
    assert found.high == pytest.approx(np.quantile(means, 0.9))


def test_groups_are_drawn_whole():
    values = np.array([0.0, 1.0, 1.0, 0.5, np.nan, 0.25, 1.0])
    groups = np.array(["b", "a", "b", "c", "a", "c", "b"])
    members = [[1.0], [0.0, 1.0, 1.0], [0.5, 0.25]]  # a, b, c, without the NaN
    means = []
    for draw in np.random.default_rng(3).integers(3, size=(400, 3)):
        drawn = [value for group in draw for value in members[group]]
        means.append(sum(drawn) / len(drawn))
    found = bootstrap_interval(values, confidence=0.5, resamples=400, seed=3, groups=groups)
    assert found.mean == pytest.approx(3.75 / 6)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.25, 0.75])))


def test_a_group_for_each_value_is_no_grouping():
    values = np.random.default_rng(1).random(40)
    alone = bootstrap_interval(values)
    assert bootstrap_interval(values, groups=np.arange(40)) == pytest.approx(alone)


def test_classes_that_agree_within_widen_the_interval():
    # Ten classes of fifty queries, all right or all wrong: there are ten observations, not 500.
    groups = np.repeat(np.arange(10), 50)
    values = (groups % 2).astype(float)
    alone = bootstrap_interval(values)
    grouped = bootstrap_interval(values, groups=groups)
    assert grouped.high - grouped.low > 5 * (alone.high - alone.low)


def test_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        found = bootstrap_interval(generator.random(60), confidence=0.9, resamples=300, seed=seed)
        covered += found.low <= 0.5 <= found.high
    assert 0.83 <= covered / 200 <= 0.96


def test_paired_differences_are_told_apart_where_single_intervals_overlap():
    generator = np.random.default_rng(0)
    first = generator.random(300)
    second = first - 0.02 + 0.05 * generator.standard_normal(300)
    one, other = bootstrap_interval(first), bootstrap_interval(second)
    assert other.high > one.low
    assert bootstrap_interval(first - second).low > 0


def test_draws_in_pieces_bound_the_memory_and_not_the_result(monkeypatch):
    values = np.random.default_rng(0).random(100_000)
    tracemalloc.start()
    bootstrap_interval(values, resamples=30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25_000_000
    whole = bootstrap_interval(values[:50], resamples=70)
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 500)
    assert bootstrap_interval(values[:50], resamples=70) == pytest.approx(whole)


def test_bools_are_shares():
    found = bootstrap_interval(np.array([True, False, False, True]))
    assert found.mean == 0.5
    assert 0 <= found.low < found.high <= 1


def test_undefined_and_single_values():
    assert np.isnan(bootstrap_interval(np.array([np.nan, np.nan]))).all()
    assert np.isnan(bootstrap_interval(np.empty(0))).all()
    assert bootstrap_interval(np.array([0.25, np.nan])) == (0.25, 0.25, 0.25)


def test_bad_input_is_refused():
    values = np.zeros(3)
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        bootstrap_interval(values, groups=np.zeros(2))
    with pytest.raises(ValueError, match=r"\(1, 3\) and None"):
        bootstrap_interval(values[np.newaxis])
    with pytest.raises(ValueError, match="confidence=95"):
        bootstrap_interval(values, confidence=95)
    with pytest.raises(ValueError, match="resamples=0"):
        bootstrap_interval(values, resamples=0)


def test_the_median_equals_python_loops_over_the_same_draws():
    values = np.array([1.0, 41.0, np.nan, 3.0, 2.0])
    draws = np.random.default_rng(7).integers(4, size=(300, 4))
    medians = []
    for draw in draws:
        drawn = sorted([1.0, 41.0, 3.0, 2.0][i] for i in draw)
        medians.append((drawn[1] + drawn[2]) / 2)
    found = median_interval(values, confidence=0.8, resamples=300, seed=7)
    assert found.mean == 2.5
    assert found.low == pytest.approx(np.quantile(medians, 0.1))
    assert found.high == pytest.approx(np.quantile(medians, 0.9))


def test_the_interval_of_a_median_is_near_that_of_scipy():
    values = np.random.default_rng(0).geometric(0.1, size=301)
    found = median_interval(values, resamples=5000)
    expected = stats.bootstrap(
        (values,), np.median, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    assert found.mean == np.median(values)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.5)


def test_a_median_of_nothing_is_nan_and_bad_input_is_refused():
    assert np.isnan(median_interval(np.array([np.nan, np.nan]))).all()
    assert median_interval(np.array([7])) == (7, 7, 7)
    with pytest.raises(ValueError, match=r"one row.*\(2, 1\)"):
        median_interval(np.array([[1], [2]]))
    with pytest.raises(ValueError, match="resamples=0"):
        median_interval(np.array([1]), resamples=0)


def test_a_median_is_resampled_in_parts_of_bounded_memory(monkeypatch):
    values = np.random.default_rng(1).random(50)
    whole = median_interval(values, seed=4)
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 500)
    assert median_interval(values, seed=4) == whole


@pytest.mark.parametrize(("successes", "trials"), [(0, 4), (3, 7), (9, 9), (61, 100)])
def test_wilson_equals_scipy(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.9, method="wilson")
    found = wilson_interval(successes, trials, confidence=0.9)
    assert found == pytest.approx((successes / trials, expected.low, expected.high))


def test_wilson_of_nothing_and_of_nonsense():
    assert all(math.isnan(each) for each in wilson_interval(0, 0))
    for wrong in ((2, 1, 0.9), (-1, 1, 0.9), (1, 1, 1.0)):
        with pytest.raises(ValueError, match="successes must be"):
            wilson_interval(*wrong[:2], confidence=wrong[2])
