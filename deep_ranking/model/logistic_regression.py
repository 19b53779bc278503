"""Logistic regression of a few features, in NumPy."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Float64Array

MOST_STEPS, TOLERANCE, ROUNDING_OF_SUMS = 100, 1e-9, 1e-12
LISTS = ("centres", "scales", "weights")


@dataclass(frozen=True)
class LogisticRegression:
    """A fitted logistic regression of features, each first centred and scaled.

    Attributes:
        centres: one number for each feature.
        scales: likewise, above 0.
        weights: likewise.
        bias: added to the weighted sum.

    Example:
        >>> found = LogisticRegression((0.5, 0.0), (1.0, 1.0), (-9.0, 0.0), 0.0)
        >>> found.chances(np.array([[0.5, 3.0]]))
        array([0.5])

    Raises:
        InputError: the numbers are out of range.
    """

    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        """Check the ranges: the numbers may come from an untrusted file."""
        rows = [np.asarray(getattr(self, name), np.float64) for name in LISTS]
        if (
            any(row.ndim != 1 for row in rows)
            or len({len(row) for row in rows}) != 1
            or not all(np.isfinite(row).all() for row in (*rows, np.array(self.bias)))
            or not (rows[1] > 0).all()
        ):
            raise InputError("a logistic regression has numbers out of range")

    def chances(self, rows: Float64Array) -> Float64Array:
        """Return the chance of "yes" of each row of features.

        Args:
            rows: float64 (..., features).

        Returns:
            float64 (...), 0 to 1.
        """
        chances: Float64Array = np.exp(self.log_chances(rows))
        return chances

    def log_chances(self, rows: Float64Array) -> Float64Array:
        """Return the logarithm of `chances`, which is finite where these are too small."""
        log_odds = ((rows - self.centres) / self.scales) @ np.array(self.weights) + self.bias
        logarithms: Float64Array = -np.logaddexp(0, -log_odds)
        return logarithms

    @classmethod
    def fit(cls, rows: Float64Array, answers: BoolArray, weights: Float64Array) -> Self:
        """Fit to answered rows.

        Args:
            rows: float64 (n, features), finite.
            answers: bool (n,), some of either kind.
            weights: float64 (n,), above 0.

        Raises:
            InputError: it did not converge, which only damaged rows explain.
        """
        centres, scales = rows.mean(axis=0), rows.std(axis=0)
        scales[scales < 1e-9] = 1
        found = fit_logistic_regression((rows - centres) / scales, answers, weights).tolist()
        return cls(tuple(centres.tolist()), tuple(scales.tolist()), tuple(found[:-1]), found[-1])

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """Return the regression of a dict of its attributes, which may come from a damaged file.

        Raises:
            InputError: it is not such a regression.
        """
        try:
            centres, scales, weights = (tuple(map(float, values[name])) for name in LISTS)
            bias = float(values["bias"])
        except (ValueError, TypeError, LookupError, OverflowError):
            raise InputError("a logistic regression is not what was written") from None
        return cls(centres, scales, weights, bias)


def fit_logistic_regression(
    rows: Float64Array, answers: BoolArray, weights: Float64Array
) -> Float64Array:
    """Return the coefficients of a logistic regression, and last its bias: float64 (features + 1,).

    Minimises the weighted sum of the logistic losses plus half the squared coefficients, without
    the bias: scikit-learn's `LogisticRegression`, a package of 200 MB. By Newton's method, each
    step halved until the sum falls (Boyd and Vandenberghe 2004, 9.5); the sum is strictly convex,
    so this converges even where a plane separates the answers.

    Args:
        rows: float64 (n, features), finite, centred and scaled.
        answers: bool (n,), some of either kind.
        weights: float64 (n,), above 0.

    Raises:
        InputError: it did not converge, which only damaged rows explain.
    """
    rows = np.column_stack([rows, np.ones(len(rows))])
    penalty = np.append(np.ones(rows.shape[1] - 1), 0)

    def total(at: Float64Array) -> float:
        losses = np.logaddexp(0, np.where(answers, -1, 1) * (rows @ at))
        return float(weights @ losses + penalty @ at**2 / 2)

    found = np.zeros(rows.shape[1])
    for _ in range(MOST_STEPS):
        chances = np.exp(-np.logaddexp(0, -(rows @ found)))
        slope = rows.T @ (weights * (chances - answers)) + penalty * found
        curvature = (rows.T * (weights * chances * (1 - chances))) @ rows + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        if slope @ step <= TOLERANCE:  # twice what the sum can still fall
            return np.asarray(found - step)
        least = total(found) * (1 + ROUNDING_OF_SUMS)
        while total(found - step) > least:
            step /= 2
        found = found - step
    raise InputError(
        "the chances of hits could not be fitted; the embeddings may be damaged: make the index "
        "anew"
    )
