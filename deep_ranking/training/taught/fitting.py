"""Weights of base distances, fitted to answers; and how far they agree with answers held back.

As in Schultz and Joachims (2003, https://papers.nips.cc/paper/2366), the learned squared distance
is a sum of base distances with weights of 0 or more, fitted to relative comparisons; here by the
logistic loss, which is convex, with a penalty on the sum of the weights:

    sum over votes of log(1 + exp(-w . d)) + strength * sqrt(votes) * sum of w (without the first)

with d the differences of the base distances between the other image and the chosen one; of a vote
for the other image, with the opposite sign. The first
base distance is that of the model to go on from. Few weights stay above 0. The strength is chosen
by cross-validation, whose folds keep all questions about one query together. The answers held back
in it then say how much the learned distance counts beside the first one, which is a logistic
regression of two features (stacking, Breiman 1996).

NumPy and SciPy only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]

from deep_ranking.files.array_types import BoolArray, Float64Array, IntArray

STRENGTHS = (0.4, 0.28, 0.2, 0.14, 0.1, 0.05)
FOLDS = 5
RIDGE = 0.01  # on the squares of the weights, so that the least sum is at one place
MOST_MIXTURE = 30.0
MOST_STEPS = 200
TOLERANCE = 1e-7  # of the loss, as a share


@dataclass(frozen=True)
class Fit:
    """What was learned from answers.

    Attributes:
        weights: float64 (distances,), of the base distances without the first one; the learned
            distance is typically as large as the first, or 0 if nothing was learned.
        mixture: how much it counts beside the first one, 0 to `MOST_MIXTURE`.
        strength: of the penalty, one of `STRENGTHS`.
    """

    weights: Float64Array
    mixture: float
    strength: float

    def margins(self, differences: Float64Array, most: float) -> Float64Array:
        """Return by how much the chosen image is nearer, float64 (questions,).

        Args:
            differences: float64 (questions, 1 + distances).
            most: the mixture is no larger.
        """
        margins: Float64Array = differences[:, 0] + min(self.mixture, most) * (
            differences[:, 1:] @ self.weights
        )
        return margins


class Comparisons(NamedTuple):
    """Answered questions.

    Attributes:
        differences: float64 (questions, 1 + distances), by how much the other image is farther
            than the chosen one.
        votes: float64 (questions, 2), for the chosen image and for the other.
        query: integer (questions,).
    """

    differences: Float64Array
    votes: Float64Array
    query: IntArray

    def take(self, wanted: BoolArray) -> "Comparisons":
        """Return some of the questions."""
        return Comparisons(self.differences[wanted], self.votes[wanted], self.query[wanted])


def fit_weights(
    differences: Float64Array, votes: Float64Array, strength: float, start: Float64Array
) -> Float64Array:
    """Return weights, float64 (1 + distances,), of 0 or more, for one strength.

    Args:
        differences: as in `Comparisons`, as are the votes.
        votes: float64 (questions, 2).
        strength: of the penalty.
        start: float64 (1 + distances,), where to begin; it changes how long it takes.
    """
    slope = np.full(differences.shape[1], strength * np.sqrt(votes.sum()))
    slope[0] = 0

    def loss(weights: Float64Array) -> tuple[float, Float64Array]:
        margins = differences @ weights
        of_chosen, of_other = -np.logaddexp(0, -margins), -np.logaddexp(0, margins)
        total = -(votes[:, 0] @ of_chosen + votes[:, 1] @ of_other)
        pull = votes[:, 1] * np.exp(of_chosen) - votes[:, 0] * np.exp(of_other)
        penalty = weights @ (slope + RIDGE / 2 * weights)
        return float(total + penalty), differences.T @ pull + slope + RIDGE * weights

    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * len(start),
        options={"maxiter": MOST_STEPS, "ftol": TOLERANCE},
    )
    weights: Float64Array = found.x
    return weights


def _path(known: Comparisons) -> Iterator[Float64Array]:
    """Yield the weights for each of the strengths, from the largest on."""
    weights = np.zeros(known.differences.shape[1])
    for strength in STRENGTHS:
        weights = fit_weights(known.differences, known.votes, strength, weights)
        yield weights


def query_folds(query: IntArray, seed: int) -> Iterator[BoolArray]:
    """Yield which questions each fold holds back: whole queries, in folds of like size."""
    queries, group = np.unique(query, return_inverse=True)
    count = min(FOLDS, len(queries))
    sizes = np.bincount(group)
    order = np.random.default_rng(seed).permutation(len(queries))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold = np.empty(len(queries), int)
    filled = np.zeros(count, int)
    for number in order:
        fold[number] = int(np.argmin(filled))
        filled[fold[number]] += sizes[number]
    for number in range(count):
        yield fold[group] == number


def fit(known: Comparisons, typical: Float64Array, *, seed: int = 0) -> Fit:
    """Fit weights, strength and mixture to answers.

    Args:
        known: the answered questions.
        typical: float64 (distances,), what the base distances without the first typically are,
            where the first is 1.
        seed: decides the folds.
    """
    held = np.zeros((len(STRENGTHS), len(known.query)))  # learned parts of answers held back
    for out in query_folds(known.query, seed):
        of_base = known.differences[out, 1:]
        for number, weights in enumerate(_path(known.take(~out))):
            held[number, out] = of_base @ _scaled(weights, typical)
    mixtures, losses = zip(*(_mixture(known, each) for each in held), strict=True)
    best = int(np.argmin(losses))
    weights = _scaled(list(_path(known))[best], typical)
    return Fit(weights, mixtures[best] if weights.any() else 0.0, STRENGTHS[best])


def _scaled(weights: Float64Array, typical: Float64Array) -> Float64Array:
    """Return the weights of all but the first so that their sum is typically 1, or 0."""
    scaled: Float64Array = weights[1:] / max(float(weights[1:] @ typical), 1e-12)
    return scaled


def _mixture(known: Comparisons, learned: Float64Array) -> tuple[float, float]:
    """Return how much the learned part counts beside the first, by answers that it did not see.

    Returns:
        The mixture, and the loss with it. Weights shrink as the penalty grows, which would speak
        for a small one; the mixture makes up for it.
    """
    both = np.stack([known.differences[:, 0], learned], axis=1)
    weights = fit_weights(both, known.votes, 0.0, np.zeros(2))
    margins = both @ weights
    loss = known.votes[:, 0] @ np.logaddexp(0, -margins)
    loss += known.votes[:, 1] @ np.logaddexp(0, margins)
    return float(min(weights[1] / max(weights[0], 1e-9), MOST_MIXTURE)), float(loss)


def held_back_margins(
    known: Comparisons, typical: Float64Array, *, most: float, seed: int = 0
) -> Float64Array:
    """Return the margin of each question by a fit to questions about other queries.

    Args:
        known: the answered questions.
        typical: as for `fit`.
        most: the mixture is no larger, as what was known must not be forgotten.
        seed: decides the folds.

    Returns:
        float64 (questions,), above 0 where the chosen image is nearer.
    """
    margins = np.zeros(len(known.query))
    for out in query_folds(known.query, seed + 1):
        found = fit(known.take(~out), typical, seed=seed)
        margins[out] = found.margins(known.differences[out], most)
    return margins
