"""The chance that an image which a search found is of the query's class.

It is the product of two chances, each a logistic regression (Platt 1999, "Probabilistic Outputs for
Support Vector Machines"). Both see the query's neighbourhood: those of the 100 images of the
collection nearest to it that have a class.

That the collection has the query's class at all:

    nearest     distance of the nearest image
    background  mean distance of the farther half of the neighbourhood

That the hit is of the query's class, if the collection has it:

    distance    of the hit from the query
    rank        logarithm of the hit's place in the neighbourhood
    background  as above
    agreement   share of the votes of the 20 nearest other images that are for the hit's class,
                each weighted by the squared cosine to the query

A nearer hit is never less probable than a farther one. The votes alone would not have it so. So the
second chance of the images of the neighbourhood, nearest first, is replaced by the closest sequence
that never rises, in least squares (isotonic regression). Where a farther image would be likelier
than a nearer one, this gives both their mean. A hit has the chance of the image at its distance.
Beyond the neighbourhood it has that of the last image, times a factor of at most 1 by which the
regression falls with distance. `hit_fitting` learns both.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, Int64Array
from deep_ranking.model.logistic_regression import LogisticRegression

DEPTH = 100
"""Images of a neighbourhood."""

NUM_VOTERS = 20
ROUNDING = 1e-6
"""By which the distance of one image may differ from call to call."""

NO_CLASS = -1
NUM_FEATURES_OF_PRESENCE, NUM_FEATURES_OF_HIT = 2, 4


class Neighbourhood(NamedTuple):
    """The nearest images of each query.

    Attributes:
        distances: float64 (queries, depth), Euclidean, rising; infinite where there is no image.
        classes: int64 (queries, depth), numbers of their classes; `NO_CLASS` for none.
    """

    distances: Float64Array
    classes: Int64Array

    def classed(self) -> "Neighbourhood":
        """Return the images that have a class, nearest first."""
        distances = np.where(self.classes == NO_CLASS, np.inf, self.distances)
        order = np.argsort(distances, axis=1, kind="stable")
        kept: Float64Array = np.take_along_axis(distances, order, axis=1)
        return Neighbourhood(kept, np.take_along_axis(self.classes, order, axis=1))


@dataclass(frozen=True)
class HitCalibration:
    """What the classes of a collection tell of the hits of a search.

    Attributes:
        presence: the chance that the collection has the query's class, by two features; None for
            a calibration of an earlier version, which takes it for certain.
        hit: the chance that a hit is of the query's class if it has, by four features.
        num_queries: searches that it was fitted on.

    Example:
        >>> by_distance = LogisticRegression((0.0,) * 4, (1.0,) * 4, (-8.0, 0.0, 0.0, 0.0), 8.0)
        >>> found = HitCalibration(None, by_distance, 10)
        >>> around = Neighbourhood(np.array([[0.5, 1.0]]), np.array([[0, 1]]))
        >>> found.probabilities(np.array([[0.5, 1.0]]), around).round(2)
        array([[0.98, 0.5 ]])

    Raises:
        InputError: it goes by other features.
    """

    presence: LogisticRegression | None
    hit: LogisticRegression
    num_queries: int

    def __post_init__(self) -> None:
        """Check the features: the numbers may come from an untrusted file."""
        if len(self.hit.weights) != NUM_FEATURES_OF_HIT or (
            self.presence is not None and len(self.presence.weights) != NUM_FEATURES_OF_PRESENCE
        ):
            raise InputError("the calibration of hits goes by other features")

    def probabilities(self, distances: Float64Array, around: Neighbourhood) -> Float64Array:
        """Return the chance of each hit to be of its query's class: float64 (queries, hits).

        It never rises with distance.

        Args:
            distances: float64 (queries, hits), Euclidean, of the hits, in any order; infinite
                where there is no hit.
            around: the neighbourhood of each query in the whole collection.

        Returns:
            0 to 1; 0 where there is no hit, and for a query without neighbours.
        """
        near = around.classed()
        if not near.distances.size:
            return np.zeros(distances.shape)
        found = np.isfinite(near.distances)
        features = features_of_hits(near)
        chances = np.where(found, self.hit.chances(features), 0)
        chances = np.array([never_rising(row) for row in chances]).reshape(chances.shape)
        places = (near.distances[:, None, :] < distances[:, :, None] - ROUNDING).sum(axis=2)
        last = found.sum(axis=1, keepdims=True) - 1
        stated = np.take_along_axis(chances, np.minimum(places, np.maximum(last, 0)), axis=1)
        stated = np.where(places > last, stated * self._fall(distances, features, last), stated)
        if self.presence is not None:
            stated *= self.presence.chances(features_of_presence(near))[:, None]
        return np.where(np.isfinite(distances) & (last >= 0), stated, 0)

    def _fall(
        self, distances: Float64Array, features: Float64Array, last: Int64Array
    ) -> Float64Array:
        """Return by which factor a chance falls from the last neighbour to a farther distance."""
        of_last = np.take_along_axis(features, np.maximum(last, 0)[:, :, None], axis=1)
        farther = np.repeat(of_last, distances.shape[1], axis=1)
        farther[..., 0] = np.where(np.isfinite(distances), distances, of_last[..., 0])
        rise = self.hit.log_chances(farther) - self.hit.log_chances(of_last)
        factors: Float64Array = np.exp(np.minimum(rise, 0))
        return factors

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """Return the calibration of a dict of its attributes, which may come from a damaged file.

        Raises:
            InputError: it is not such a calibration.
        """
        try:
            # Earlier versions stored one regression, of the hit, without a name.
            presence, hit = values.get("presence"), values.get("hit", values)
            num_queries = int(values["num_queries"])
        except (AttributeError, ValueError, TypeError, LookupError, OverflowError):
            raise InputError("the calibration of hits is not what was written") from None
        return cls(
            None if presence is None else LogisticRegression.from_values(presence),
            LogisticRegression.from_values(hit),
            num_queries,
        )


def never_rising(values: Float64Array) -> Float64Array:
    """Return the closest sequence that never rises, in least squares: float64 (n,).

    At each place it is the least, over the places where a run may begin, of the largest mean of a
    run up to this place or farther (Barlow et al. 1972, "Statistical Inference under Order
    Restrictions", 1.4). scikit-learn's `IsotonicRegression` gives the same; a light installation
    lacks it.

    Args:
        values: float64 (n,).

    Example:
        >>> never_rising(np.array([0.9, 0.2, 0.6, 0.1]))
        array([0.9, 0.4, 0.4, 0.1])
    """
    sums = np.append(0, np.cumsum(values))
    lengths = np.arange(1, len(values) + 1) - np.arange(len(values))[:, None]  # (begin, end)
    means = np.where(lengths > 0, (sums[1:] - sums[:-1, None]) / np.maximum(lengths, 1), -np.inf)
    largest = np.maximum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
    largest[lengths <= 0] = np.inf
    least = np.minimum.accumulate(largest, axis=0).diagonal()
    # Rounding aside, it never rises and stays in range already.
    closest: Float64Array = np.minimum.accumulate(np.clip(least, values.min(), values.max()))
    return closest


def features_of_presence(near: Neighbourhood) -> Float64Array:
    """Return what tells whether the collection has a query's class: float64 (queries, 2).

    Args:
        near: the neighbourhood of each query, of images with a class. A query without any has 0.
    """
    nearest = np.where(np.isfinite(near.distances[:, 0]), near.distances[:, 0], 0)
    return np.stack([nearest, _background(near)], axis=-1)


def features_of_hits(near: Neighbourhood) -> Float64Array:
    """Return the features of the images of a neighbourhood as hits: float64 (queries, depth, 4).

    Args:
        near: the neighbourhood of each query, of images with a class.
    """
    found = np.isfinite(near.distances)
    distances = np.where(found, near.distances, 0)
    ranks = np.log1p(np.arange(found.shape[1]))
    background = _background(near)[:, None]
    return np.stack([distances, *np.broadcast_arrays(ranks, background, _agreement(near))], axis=-1)


def _background(near: Neighbourhood) -> Float64Array:
    """Return the mean distance of the farther half of the images: float64 (queries,)."""
    found = np.isfinite(near.distances)
    farther = found & (np.arange(found.shape[1]) >= found.sum(axis=1, keepdims=True) // 2)
    sums = np.where(farther, near.distances, 0).sum(axis=1)
    means: Float64Array = sums / np.maximum(farther.sum(axis=1), 1)
    return means


def _agreement(near: Neighbourhood) -> Float64Array:
    """Return the share of votes for the class of each image, its own left out: (queries, depth)."""
    found = np.isfinite(near.distances)
    cosines = 1 - np.where(found, near.distances, 2) ** 2 / 2
    votes = np.where(found, np.maximum(cosines, 1e-3) ** 2, 0)
    votes[:, NUM_VOTERS:] = 0
    same = near.classes[:, :, None] == near.classes[:, None, :NUM_VOTERS]
    for_class = np.einsum("qhv,qv->qh", same, votes[:, :NUM_VOTERS]) - votes
    others = votes.sum(axis=1, keepdims=True) - votes
    return np.where(found, np.clip(for_class / np.maximum(others, 1e-9), 0, 1), 0)
