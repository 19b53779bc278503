"""How much may be learned until what was known is forgotten, judged on images of known classes.

Half of the classes choose: the learned distance counts as much as leaves the recall@1 of their
images within the bound. The other half judges, on classes that chose nothing; where it disagrees,
the learned distance counts less until it agrees. Both halves search among their own images.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Int64Array, IntArray
from deep_ranking.training.taught.fitting import MOST_MIXTURE

BOUND = 0.01  # recall@1 falls by no more
MOST_JUDGED = 2000  # images of each half
FEWEST_CLASSES = 4  # to divide classes rather than images
# How much the learned distance counts, of which the largest within the bound is taken.
MIXTURES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, MOST_MIXTURE)


class Halves(NamedTuple):
    """The images that choose and those that judge: integer rows of the features."""

    choosing: Int64Array
    judging: Int64Array


class Bounded(NamedTuple):
    """How much may be learned.

    Attributes:
        mixture: the largest of `MIXTURES` within the bound.
        lowered: whether the judging half asked for less than the choosing one.
    """

    mixture: float
    lowered: bool

    def notes(self, wanted: float) -> list[str]:
        """Return in words what the bound changed, where answers ask for another mixture."""
        if wanted <= self.mixture:
            return []
        lowered = "; the judging half asked for less than the other one" if self.lowered else ""
        return [
            f"By the answers alone, what was learned would count {wanted:.2g} times: it counts "
            f"less, so that recall@1 falls by no more than {BOUND:g}{lowered}."
        ]


def halves_of(labels: IntArray, seed: int) -> Halves:
    """Divide the images of classes with two images or more: whole classes, or images of a few.

    Args:
        labels: integer (images,), their classes.
        seed: decides the draws.

    Raises:
        InputError: no class has two images.
    """
    rng = np.random.default_rng([seed, 7])
    numbers, counts = np.unique(labels, return_counts=True)
    usable = numbers[counts > 1]
    if len(usable) < 2:
        raise InputError(
            "--dataset: what is forgotten is judged by recall@1, which needs two classes with two "
            f"images each; received {len(usable)}"
        )
    if len(usable) >= FEWEST_CLASSES:
        chosen = rng.permutation(usable)[: len(usable) // 2]
        is_choosing = np.isin(labels, chosen)
    else:
        is_choosing = rng.permutation(len(labels)) % 2 == 0
    judges = np.isin(labels, usable)
    halves = (np.flatnonzero(judges & each) for each in (is_choosing, ~is_choosing))
    return Halves(*(np.sort(rng.permutation(each)[:MOST_JUDGED]) for each in halves))


def has_judged(labels: IntArray) -> bool:
    """Return whether images have a recall@1: one of their classes has two of them."""
    return bool((np.unique(labels, return_counts=True)[1] > 1).any())


def recall_at_1(rows: Float32Array, labels: IntArray) -> float:
    """Return the share of images whose nearest other image is of their class.

    Args:
        rows: float32 (images, dim) of unit length.
        labels: integer (images,).

    Returns:
        0 to 1, of the images whose class has another image; NaN if there are none.
    """
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    _, group, counts = np.unique(labels, return_inverse=True, return_counts=True)
    found = labels[cosines.argmax(axis=1)] == labels if len(labels) else np.empty(0, bool)
    counted = found[counts[group] > 1]
    return float(counted.mean()) if len(counted) else float("nan")


def bounded_mixture(
    recall: Callable[[float, Int64Array], float], halves: Halves, *, bound: float = BOUND
) -> Bounded:
    """Return how much the learned distance may count.

    Args:
        recall: recall@1 with a mixture, among some images.
        halves: the images.
        bound: recall@1 falls by no more.
    """
    places = []
    for images in halves:
        least = recall(0.0, images) - bound
        place = 0
        while place + 1 < len(MIXTURES) and recall(MIXTURES[place + 1], images) >= least:
            place += 1
        places.append(place)
    choosing, judging = places
    return Bounded(MIXTURES[min(places)], judging < choosing)
