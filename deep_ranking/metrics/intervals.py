"""Confidence intervals by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13).

Those of a share of few are Wilson's (1927): the bootstrap of 5 in 5 has no width.
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.metrics.distances import slices

DRAWS_AT_ONCE = 2**20
"""Resampled indices in memory at once: 8 MiB for the indices and 8 MiB for their values."""


class Interval(NamedTuple):
    """A mean, or another figure such as a median, and the confidence interval around it."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: npt.NDArray[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    groups: npt.NDArray[Any] | None = None,
) -> Interval:
    """Return the mean over queries with its percentile bootstrap interval.

    To compare two models, pass the differences of their values on the same queries. The interval is
    then that of the mean difference, which is significant if 0 lies outside.

    Args:
        values: array (queries,), numbers or bools; NaN (undefined) is left out.
        confidence: share of the resampled means inside the interval, between 0 and 1.
        resamples: how often to resample.
        seed: the same seed returns the same interval.
        groups: array (queries,), the class of each query. With it, whole classes are drawn with all
            their queries. The interval then covers new classes, not only new images of these
            classes, and is wider. With few classes (below some 10) it is still too narrow.

    Returns:
        The mean and its interval; all NaN if no value is defined. With a single value or group the
        interval has no width.

    Raises:
        ValueError: `values` is not one row, `groups` has another shape, `confidence` is not between
            0 and 1, or `resamples` is below 1.
    """
    values = np.asarray(values, np.float64)
    _check(values, confidence, resamples, groups)
    defined = ~np.isnan(values)
    if not defined.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    totals, sizes = values[defined], None
    if groups is not None:
        _, codes = np.unique(np.asarray(groups)[defined], return_inverse=True)
        totals, sizes = np.bincount(codes, weights=totals), np.bincount(codes)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for part in slices(resamples, DRAWS_AT_ONCE // len(totals)):
        drawn = generator.integers(len(totals), size=(part.stop - part.start, len(totals)))
        if sizes is None:
            means[part] = totals[drawn].mean(axis=1)
        else:
            means[part] = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values[defined].mean()), float(low), float(high))


def median_interval(
    values: npt.NDArray[Any], *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return the median over queries with its percentile bootstrap interval.

    Of an even number of values, the median is the mean of the middle two.

    Args:
        values: array (queries,) of numbers; NaN (undefined) is left out.
        confidence: as for `bootstrap_interval`, as are `resamples` and `seed`.
        resamples: how often to resample.
        seed: the same seed returns the same interval.

    Returns:
        The median, in `Interval.mean`, and its interval; all NaN if no value is defined.

    Raises:
        ValueError: `values` is not one row, `confidence` is not between 0 and 1, or `resamples` is
            below 1.

    Example:
        >>> median_interval(np.array([1, 3, 7])).mean
        3.0
    """
    values = np.asarray(values, np.float64)
    _check(values, confidence, resamples, None)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(float("nan"), float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    medians = np.empty(resamples)
    for part in slices(resamples, DRAWS_AT_ONCE // len(defined)):
        drawn = generator.integers(len(defined), size=(part.stop - part.start, len(defined)))
        medians[part] = np.median(defined[drawn], axis=1, overwrite_input=True)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(np.median(defined)), float(low), float(high))


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return a share with Wilson's score interval, which also holds for few trials.

    Args:
        successes: how many of the trials succeeded.
        trials: how many there were.
        confidence: of the interval, between 0 and 1.

    Returns:
        The share and its interval, within 0 and 1; all NaN without trials.

    Raises:
        ValueError: `successes` is not in 0 to `trials`, or `confidence` not between 0 and 1.

    Example:
        >>> [round(each, 2) for each in wilson_interval(5, 5)]
        [1.0, 0.57, 1.0]
    """
    if not 0 <= successes <= trials or not 0 < confidence < 1:
        raise ValueError(
            "successes must be 0 to trials, and confidence between 0 and 1. "
            f"Received: successes={successes}, trials={trials}, confidence={confidence}."
        )
    if not trials:
        return Interval(float("nan"), float("nan"), float("nan"))
    share, z = successes / trials, NormalDist().inv_cdf((1 + confidence) / 2)
    shrunk = 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / shrunk
    half = z / shrunk * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low = 0.0 if successes == 0 else middle - half  # exactly, where rounding would miss it
    return Interval(share, low, 1.0 if successes == trials else middle + half)


def _check(
    values: npt.NDArray[Any], confidence: float, resamples: int, groups: npt.NDArray[Any] | None
) -> None:
    if values.ndim != 1 or (groups is not None and np.shape(groups) != values.shape):
        raise ValueError(
            "values must be one row, and groups, if given, of the same shape. "
            f"Received: shapes {values.shape} and {None if groups is None else np.shape(groups)}."
        )
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            "confidence must be between 0 and 1 and resamples at least 1. "
            f"Received: confidence={confidence}, resamples={resamples}."
        )
