"""Verification: how well the distance of two images tells whether they are of one class."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float64Array, Int64Array, IntArray
from deep_ranking.metrics.intervals import Interval


class PairMetrics(NamedTuple):
    """How well distance tells pairs of one class from pairs of two.

    Attributes:
        roc_auc: area under the ROC curve: the probability that a same pair is nearer than a
            different pair, where a tie counts one half.
        equal_error_rate: false reject rate (share of same pairs above the threshold) and false
            accept rate (share of different pairs up to it) at the threshold where the two are
            equal.
        threshold: that distance; pairs up to it are called same.
    """

    roc_auc: float
    equal_error_rate: float
    threshold: float


def sample_pairs(
    labels: npt.NDArray[Any], count: int, *, seed: int = 0
) -> tuple[Int64Array, Int64Array]:
    """Draw equally many pairs of one class and of two classes, uniformly without repetition.

    Every pair of images of one class is equally likely, so large classes have more pairs. An image
    is never paired with itself, and (a, b) and (b, a) are one pair. A class of one image has no
    same pair. Memory is proportional to the labels and to `count`.

    Args:
        labels: array (n,) of classes, integers or strings.
        count: pairs of each kind; if the labels have fewer of one kind, that many of each.
        seed: the same seed returns the same pairs.

    Returns:
        Rows of the pairs of one class and of those of two, int64 (pairs, 2) each.

    Raises:
        ValueError: `count` is below 1, or there is no pair of one class or none of two.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1. Received: count={count}.")
    _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.argsort(codes, kind="stable")
    # In this order, an image is followed by the rest of its own class, and then by all other
    # classes.
    position = np.arange(len(by_class))
    end_of_class = np.repeat(np.cumsum(sizes), sizes)
    num_same = end_of_class - position - 1
    num_different = len(by_class) - end_of_class
    if not num_same.any() or not num_different.any():
        raise ValueError(
            "Pairs need a class of two images and a second class. "
            f"Received: {len(by_class)} images in {len(sizes)} classes."
        )
    count = min(count, int(num_same.sum()), int(num_different.sum()))
    generator = np.random.default_rng(seed)
    return (
        by_class[_draw_pairs(generator, position + 1, num_same, count)],
        by_class[_draw_pairs(generator, end_of_class, num_different, count)],
    )


def pair_metrics(same_distances: Float64Array, different_distances: Float64Array) -> PairMetrics:
    """Return ROC-AUC and equal error rate (EER) of distances of pairs (Fawcett 2006).

    The EER is interpolated linearly between points of the ROC curve, and the threshold between
    distances. If a range of thresholds is equally good, the threshold is its middle. Neither metric
    depends on how many pairs there are of each kind.

    Args:
        same_distances: float array (pairs,) of pairs of one class.
        different_distances: float array (pairs,) of pairs of two classes.

    Returns:
        The `PairMetrics`. The AUC is 1 and the EER 0 if all same pairs are nearer than all
        different pairs; both are 0.5 if all distances are equal (ties).

    Raises:
        ValueError: one kind has no pairs, or a distance is NaN or infinite.

    References:
        Fawcett 2006, "An introduction to ROC analysis", Pattern Recognition Letters 27.
    """
    for name, given in (("same", same_distances), ("different", different_distances)):
        if np.ndim(given) != 1 or not np.size(given) or not np.isfinite(given).all():
            raise ValueError(
                f"The {name} distances must be a row of finite numbers. Received: {given}."
            )
    thresholds = np.unique(np.concatenate([same_distances, different_distances]))
    found = np.searchsorted(np.sort(same_distances), thresholds, side="right")
    false = np.searchsorted(np.sort(different_distances), thresholds, side="right")
    num_same, num_different = len(same_distances), len(different_distances)
    # Mann and Whitney's: same pairs nearer than each different pair, those as near count one half.
    twice_nearer = np.diff(false, prepend=0) @ (2 * found - np.diff(found, prepend=0))
    roc_auc = twice_nearer / (2 * num_same * num_different)
    # False reject rate less false accept rate, times both counts: exact, as whole numbers.
    excess = (num_same - found) * num_different - false * num_same
    crossing = int(np.argmax(excess <= 0))
    before = max(crossing - 1, 0)
    # Below the first threshold, all pairs are called different.
    excess_before, false_before = (
        (excess[before], false[before]) if crossing else (num_same * num_different, 0)
    )
    part = excess_before / (excess_before - excess[crossing])  # of the way from the point before
    rate = (false_before + part * (false[crossing] - false_before)) / num_different
    threshold = thresholds[before] + part * (thresholds[crossing] - thresholds[before])
    if excess[crossing] == 0 and crossing + 1 < len(thresholds):
        threshold = (thresholds[crossing] + thresholds[crossing + 1]) / 2
    return PairMetrics(float(roc_auc), float(rate), float(threshold))


def pair_intervals(
    same_distances: Float64Array,
    different_distances: Float64Array,
    same_groups: IntArray,
    different_groups: IntArray,
    *,
    confidence: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the intervals of `roc_auc` and `equal_error_rate` by the bootstrap over groups.

    Pairs that share a query are not independent, so whole groups are drawn. The distances are
    sorted once; a resample only changes their weights.

    Args:
        same_distances: float array (pairs,) of pairs of one class.
        different_distances: float array (pairs,) of pairs of two classes.
        same_groups: integer array, for each same pair its group, such as the row of its query.
        different_groups: integer array, for each different pair its group.
        confidence: share of the resampled values inside the interval.
        resamples: how often to resample; a resample without a pair of each kind is left out.
        seed: the same seed returns the same intervals.

    Raises:
        ValueError: as in `pair_metrics`.
    """
    whole = pair_metrics(same_distances, different_distances)
    distances = np.concatenate([same_distances, different_distances])
    _, codes = np.unique(np.concatenate([same_groups, different_groups]), return_inverse=True)
    order = np.argsort(distances, kind="stable")
    is_same, codes, ordered = order < len(same_distances), codes[order], distances[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # of equal distances
    generator = np.random.default_rng(seed)
    num_groups = int(codes.max()) + 1
    values = []
    for _ in range(resamples):
        drawn = np.bincount(generator.integers(num_groups, size=num_groups), minlength=num_groups)
        weights = drawn[codes]
        same = np.add.reduceat(weights * is_same, starts)
        different = np.add.reduceat(weights * ~is_same, starts)
        num_same, num_different = same.sum(), different.sum()
        if num_same and num_different:
            found, false = np.cumsum(same) / num_same, np.cumsum(different) / num_different
            area = np.sum(different * (found - same / (2 * num_same))) / num_different
            values.append((area, _crossing(1 - found, false)))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(values, tails, axis=0)
    return {
        "roc_auc": Interval(whole.roc_auc, float(low[0]), float(high[0])),
        "equal_error_rate": Interval(whole.equal_error_rate, float(low[1]), float(high[1])),
    }


def _crossing(missed: Float64Array, false: Float64Array) -> float:
    """Return the rate where the falling false rejects meet the rising false accepts."""
    missed, false = np.append(1.0, missed), np.append(0.0, false)
    after = int(np.argmax(false >= missed))
    excess = missed[after - 1] - false[after - 1]
    part = excess / (excess + false[after] - missed[after])
    return float(false[after - 1] + part * (false[after] - false[after - 1]))


def _draw_pairs(
    generator: np.random.Generator, first_partner: IntArray, num_partners: IntArray, count: int
) -> Int64Array:
    """Draw distinct pairs of an image and one of its partners, which start at `first_partner`."""
    ends = np.cumsum(num_partners)
    numbers = _draw_distinct(generator, int(ends[-1]), count)
    first = np.searchsorted(ends, numbers, side="right")
    second = first_partner[first] + numbers - (ends[first] - num_partners[first])
    return np.stack([first, second], axis=1)


def _draw_distinct(generator: np.random.Generator, population: int, count: int) -> Int64Array:
    """Draw distinct integers below `population`, in memory proportional to `count`.

    `Generator.choice` without replacement holds the whole population in some cases.
    """
    if population < 2 * count:
        return generator.permutation(population)[:count]
    numbers = np.empty(0, np.int64)
    while len(numbers) < count:
        drawn = generator.integers(population, size=2 * count)
        numbers = np.unique(np.concatenate([numbers, drawn]))
    return generator.permutation(numbers)[:count]
