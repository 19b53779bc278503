"""Reliability: how often a stated probability comes true (DeGroot and Fienberg 1983)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float64Array, Int64Array

NUM_BINS = 15


class Reliability(NamedTuple):
    """Answers in bins of equal width by their stated probability.

    Attributes:
        stated: float64 (bins,), mean stated probability, 0 to 1; NaN for an empty bin.
        right: float64 (bins,), share of right answers, 0 to 1; NaN for an empty bin.
        counts: int64 (bins,), answers.
    """

    stated: Float64Array
    right: Float64Array
    counts: Int64Array

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, 0 to 1: mean gap of stated and right, weighted by counts."""
        gaps = np.abs(self.stated - self.right)[self.counts > 0]
        return float(np.average(gaps, weights=self.counts[self.counts > 0]))


def reliability(
    probabilities: Float64Array, right: npt.NDArray[np.bool_], *, num_bins: int = NUM_BINS
) -> Reliability:
    """Compare stated probabilities with the share of answers that are right.

    Args:
        probabilities: float64 (answers,), stated, 0 to 1. A probability between two bins belongs
            to the upper one; 1 belongs to the last.
        right: bool (answers,).
        num_bins: bins of equal width from 0 to 1.

    Returns:
        The bins; their `calibration_error` is that of Naeini et al. 2015, "Obtaining well
        calibrated probabilities using Bayesian binning", and Guo et al. 2017.

    Example:
        >>> found = reliability(np.array([0.9, 0.8, 0.2]), np.array([True, False, False]))
        >>> round(found.calibration_error, 3)
        0.367

    Raises:
        ValueError: the arrays differ in shape or are empty, or a probability is not in 0 to 1.
    """
    if probabilities.ndim != 1 or probabilities.shape != right.shape or not len(right):
        raise ValueError(
            "Reliability needs two rows of one length, 1 or more. "
            f"Received: shapes {probabilities.shape} and {right.shape}."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(f"Probabilities lie between 0 and 1. Received: {probabilities}.")
    bins = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = (
        np.bincount(bins, weights=values, minlength=num_bins) for values in (probabilities, right)
    )
    stated, shares = (np.where(counts > 0, each / np.maximum(counts, 1), np.nan) for each in sums)
    return Reliability(stated, shares, counts)
