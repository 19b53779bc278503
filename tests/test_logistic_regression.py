import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn import linear_model

from deep_ranking.files import InputError
from deep_ranking.model import logistic_regression
from deep_ranking.model.logistic_regression import LogisticRegression, fit_logistic_regression

FITTED = LogisticRegression((0.5, 1.0), (2.0, 0.1), (-3.0, 0.4), 0.25)


def test_chances_against_loops():
    rows = np.random.default_rng(0).normal(size=(3, 5, 2))
    for at in np.ndindex(3, 5):
        first, second = rows[at]
        log_odds = -3 * (first - 0.5) / 2 + 0.4 * (second - 1) / 0.1 + 0.25
        assert FITTED.chances(rows)[at] == pytest.approx(1 / (1 + math.exp(-log_odds)))


def test_features_of_any_scale_are_fitted_alike():
    rows, answers, weights = answers_to("usual", np.random.default_rng(3))
    found = LogisticRegression.fit(rows, answers, weights)
    other = LogisticRegression.fit(rows * [1e3, 1e-3, 1, 5] + [7, 0, -2, 1], answers, weights)
    moved = rows * [1e3, 1e-3, 1, 5] + [7, 0, -2, 1]
    assert found.chances(rows) == pytest.approx(other.chances(moved), abs=1e-6)
    assert np.mean((found.chances(rows) > 0.5) == answers) > 0.8


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
    fitted = linear_model.LogisticRegression(tol=1e-12, max_iter=100_000)
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
    monkeypatch.setattr(logistic_regression, "MOST_STEPS", 2)
    with pytest.raises(InputError, match="could not be fitted"):
        fit_logistic_regression(*answers_to("usual", np.random.default_rng(0)))


@pytest.mark.parametrize(
    "change",
    [
        {"scales": (1.0, 0.0)},
        {"weights": (1.0, math.nan)},
        {"weights": (1.0, 2.0, 3.0)},
        {"bias": math.inf},
    ],
)
def test_numbers_out_of_range(change):
    with pytest.raises(InputError, match="out of range"):
        replace(FITTED, **change)


@pytest.mark.parametrize("values", [None, 3, [], {}, asdict(FITTED) | {"weights": ["x"]}])
def test_values_of_a_damaged_file(values):
    with pytest.raises(InputError, match="not what was written"):
        LogisticRegression.from_values(values)
    assert LogisticRegression.from_values(asdict(FITTED)) == FITTED
