import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_ranking.metrics.reliability import reliability


def by_loops(probabilities, right, num_bins):
    """Mean probability, share right and count of each bin, and the expected calibration error."""
    bins = [[] for _ in range(num_bins)]
    for probability, is_right in zip(probabilities, right, strict=True):
        number = next(k for k in reversed(range(num_bins)) if probability * num_bins >= k)
        bins[number].append((probability, is_right))
    rows, error = [], 0.0
    for each in bins:
        if not each:
            rows.append((math.nan, math.nan, 0))
            continue
        stated = sum(probability for probability, _ in each) / len(each)
        share = sum(is_right for _, is_right in each) / len(each)
        error += abs(stated - share) * len(each) / len(right)
        rows.append((stated, share, len(each)))
    return rows, error


@pytest.mark.parametrize(("count", "num_bins"), [(3000, 15), (40, 15), (500, 4), (1, 1)])
def test_against_loops(count, num_bins):
    rng = np.random.default_rng(count)
    probabilities = rng.beta(0.5, 0.7, count)
    right = rng.uniform(size=count) < probabilities**1.5
    found = reliability(probabilities, right, num_bins=num_bins)
    rows, error = by_loops(probabilities, right, num_bins)
    np.testing.assert_allclose(np.column_stack(found), rows, atol=1e-12)
    assert found.calibration_error == pytest.approx(error, abs=1e-12)
    assert count == 1 or error > 0.01


def test_by_hand():
    # Bins of a quarter: 0 | - | 0.5, 0.6 | 0.75, 1. A probability between two bins is in the upper.
    probabilities = np.array([0.0, 0.5, 0.6, 0.75, 1.0])
    right = np.array([False, True, True, False, True])
    found = reliability(probabilities, right, num_bins=4)
    assert found.counts.tolist() == [1, 0, 2, 2]
    np.testing.assert_allclose(found.stated, [0, np.nan, 0.55, 0.875])
    np.testing.assert_allclose(found.right, [0, np.nan, 1, 0.5])
    # (1 * 0 + 2 * 0.45 + 2 * 0.375) / 5
    assert found.calibration_error == pytest.approx(0.33)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_error_is_a_share_and_no_answer_is_lost(answers):
    probabilities, right = (np.array(each) for each in zip(*answers, strict=True))
    found = reliability(probabilities, right)
    assert found.counts.sum() == len(answers)
    assert 0 <= found.calibration_error <= 1


def test_probabilities_that_come_true_have_a_small_error():
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(size=100_000)
    right = rng.uniform(size=100_000) < probabilities
    assert reliability(probabilities, right).calibration_error < 0.01
    assert reliability(np.sqrt(probabilities), right).calibration_error > 0.1


@pytest.mark.parametrize(
    ("probabilities", "right", "message"),
    [
        ([], [], "1 or more"),
        ([0.5], [True, False], "one length"),
        ([[0.5]], [[True]], "one length"),
        ([1.1], [True], "between 0 and 1"),
        ([math.nan], [True], "between 0 and 1"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities, right, message):
    with pytest.raises(ValueError, match=message):
        reliability(np.array(probabilities, float), np.array(right, bool))
