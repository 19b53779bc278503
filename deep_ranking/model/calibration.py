"""Calibration: a monotone map from a distance to the probability that two images share a class.

It is fitted by isotonic regression (Zadrozny and Elkan 2002) on distances of pairs with known
labels. The model file holds it as JSON.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array
from deep_ranking.metrics import pair_metrics

NUM_QUANTILES = 101
MIN_PAIRS = 10
LISTS = ("distances", "probabilities", "same_quantiles", "different_quantiles")


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration, linear between its knots.

    Attributes:
        distances: knots, rising.
        probabilities: probability of "same" at each knot, never rising, if same and different pairs
            are equally frequent.
        same_quantiles: distances of same pairs at 0, 1 ... 100 %.
        different_quantiles: distances of different pairs at 0, 1 ... 100 %.
        threshold: distance of equal error: the share of same pairs above it equals the share of
            different pairs below it.
        num_pairs: pairs that it was fitted on, both kinds together.

    Example:
        >>> found = Calibration((0.0, 2.0), (0.9, 0.1), (0.0, 1.0), (1.0, 2.0), 1.0, 20)
        >>> round(found.probability(1.0), 3)
        0.5

    Raises:
        InputError: the numbers are out of order or range.
    """

    distances: tuple[float, ...]
    probabilities: tuple[float, ...]
    same_quantiles: tuple[float, ...]
    different_quantiles: tuple[float, ...]
    threshold: float
    num_pairs: int

    def __post_init__(self) -> None:
        """Check order and ranges: the numbers may come from an untrusted file."""
        rows = [np.asarray(getattr(self, name), np.float64) for name in LISTS]
        knots, probabilities, *quantiles = rows
        if (
            any(row.ndim != 1 or not 1 <= len(row) <= 10_000 for row in rows)
            or not all(np.isfinite(row).all() for row in rows)
            or len(knots) != len(probabilities)
            or any((np.diff(row) < 0).any() for row in (knots, *quantiles, -probabilities))
            or not 0 <= probabilities[-1] <= probabilities[0] <= 1
            or not np.isfinite(self.threshold)
        ):
            raise InputError("the calibration's numbers are out of order or range")

    def probability(self, distance: float) -> float:
        """Return the probability that two images at a distance are of one class."""
        return float(np.interp(distance, self.distances, self.probabilities))

    def share_of_same_nearer(self, distance: float) -> float:
        """Return the share of same pairs, 0 to 1, that are nearer than a distance."""
        return _share_below(distance, self.same_quantiles)

    def share_of_different_nearer(self, distance: float) -> float:
        """Return the share of different pairs, 0 to 1, that are nearer than a distance."""
        return _share_below(distance, self.different_quantiles)

    def to_json(self) -> str:
        """Return the calibration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of `to_json`, which may come from an untrusted file.

        Raises:
            InputError: it is not a calibration.
        """
        try:
            values: dict[str, Any] = dict(json.loads(text))
            values.pop("hits", None)  # of earlier versions: p(hit) for collections without classes
            return cls(**values | {name: tuple(values[name]) for name in LISTS})
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the calibration is not what calibrate wrote") from None


def probability_of_same(distance: float, calibration: Calibration | None) -> float | None:
    """Return the probability that two images at a distance are of one class, None if unknown.

    Args:
        distance: Euclidean distance of their embeddings, 0 to 2.
        calibration: the model's; None for a model that was never calibrated.
    """
    return None if calibration is None else calibration.probability(distance)


def fit_calibration(same_distances: Float64Array, different_distances: Float64Array) -> Calibration:
    """Fit a calibration to distances of labelled pairs.

    Args:
        same_distances: float array (pairs,) of pairs of one class. Both kinds of pairs weigh one
            half, however many there are of each.
        different_distances: float array (pairs,) of pairs of two classes.

    Raises:
        InputError: there are fewer than 10 pairs of a kind, or a distance is not finite.
    """
    for kind, distances in (("same", same_distances), ("different", different_distances)):
        if len(distances) < MIN_PAIRS:
            raise InputError(
                f"calibration needs {MIN_PAIRS} {kind} pairs or more. Received: {len(distances)}"
            )
        if not np.isfinite(distances).all():
            raise InputError(f"a distance of a {kind} pair is not finite")
    from sklearn.isotonic import IsotonicRegression

    distances = np.concatenate([same_distances, different_distances])
    is_same = np.arange(len(distances)) < len(same_distances)
    weights = np.where(is_same, 0.5 / len(same_distances), 0.5 / len(different_distances))
    # So many pairs do not prove a probability of 0 or 1.
    doubt = 1 / (len(distances) + 2)
    fitted = IsotonicRegression(increasing=False, y_min=doubt, y_max=1 - doubt).fit(
        distances, is_same, sample_weight=weights
    )
    shares = np.linspace(0, 1, NUM_QUANTILES)
    # The knots are where the regression changes. Quantiles of all pairs would pass over the few
    # distances between two groups that are far apart, where the probability falls.
    return Calibration(
        _floats(fitted.X_thresholds_),
        _floats(fitted.y_thresholds_),
        _floats(np.quantile(same_distances, shares)),
        _floats(np.quantile(different_distances, shares)),
        pair_metrics(same_distances, different_distances).threshold,
        len(distances),
    )


def _floats(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(values.astype(np.float64).tolist())


def _share_below(distance: float, quantiles: tuple[float, ...]) -> float:
    shares = np.linspace(0, 1, len(quantiles))
    return float(np.interp(distance, quantiles, shares, left=0.0, right=1.0))
