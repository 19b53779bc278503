"""How far answers can be trusted: agreement with oneself, with others, and of a model with people.

NumPy only. A question is a query and two images; an answer is whether the first of the two was
chosen. Shares of few answers have Wilson's interval, which does not take one in one for certain.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from deep_ranking.files.array_types import BoolArray, Float64Array, Int64Array, IntArray
from deep_ranking.metrics.intervals import Interval, bootstrap_interval, wilson_interval
from deep_ranking.metrics.triplets import correct_triplets

MOST_COMPARED = 20  # of a thousand votes on one question, half a million pairs would be compared


class Agreement(NamedTuple):
    """A share of comparisons, with its 95 % interval, and how many there were."""

    share: Interval
    num_compared: int


class Votes(NamedTuple):
    """One vote for each rater and question: what the rater answered most often.

    Attributes:
        rater: int64 (votes,).
        question: int64 (votes,).
        first: bool (votes,), whether for the first of the two images.
        num_undecided: questions that a rater answered both ways equally often: no vote.
    """

    rater: Int64Array
    question: Int64Array
    first: BoolArray
    num_undecided: int


class BetweenRaters(NamedTuple):
    """Every two votes of different raters on one question; arrays (comparisons,)."""

    one: Int64Array
    another: Int64Array
    question: Int64Array
    agree: BoolArray


def agreement_of(agree: BoolArray) -> Agreement:
    """Return the share of comparisons that agree: bool (comparisons,)."""
    return Agreement(wilson_interval(int(agree.sum()), len(agree)), len(agree))


def steadiness(
    rater: IntArray, question: IntArray, first: BoolArray, num_raters: int
) -> list[Agreement]:
    """Return how often each rater answered a question as at the last time.

    Args:
        rater: integer (answers,), numbers of raters; only answers that chose an image, in order.
        question: integer (answers,).
        first: bool (answers,), whether the first of the two images was chosen.
        num_raters: how many raters there are.

    Returns:
        For each rater; with no comparison, the share is NaN.

    Example:
        >>> never, steady = steadiness(
        ...     np.array([1, 1, 0]), np.array([7, 7, 7]), np.array([True, True, False]), 2
        ... )
        >>> never.num_compared, steady.share.mean
        (0, 1.0)
    """
    order = np.lexsort((question, rater))  # stable: the answers to a question stay in order
    again = (np.diff(rater[order]) == 0) & (np.diff(question[order]) == 0)
    agree = first[order][1:] == first[order][:-1]
    of_rater = rater[order][1:]
    return [agreement_of(agree[again & (of_rater == each)]) for each in range(num_raters)]


def votes_of(rater: IntArray, question: IntArray, first: BoolArray) -> Votes:
    """Return one vote for each rater and question, however often the rater answered it.

    Args:
        rater: as for `steadiness`, as are the other two.
        question: integer (answers,).
        first: bool (answers,).
    """
    asked, group = np.unique(np.stack([rater, question], axis=1), axis=0, return_inverse=True)
    lead = _leads(first, group.reshape(-1), len(asked))
    decided = lead != 0
    return Votes(
        asked[decided, 0].astype(np.int64),
        asked[decided, 1].astype(np.int64),
        lead[decided] > 0,
        int((~decided).sum()),
    )


def majority(votes: Votes) -> tuple[Int64Array, BoolArray, int]:
    """Return what most raters voted for.

    Returns:
        The questions, int64 (questions,), in rising order; whether the first of the two images
        won, bool (questions,); and the number of the others: as many votes for one as for the
        other.
    """
    questions, group = np.unique(votes.question, return_inverse=True)
    lead = _leads(votes.first, group.reshape(-1), len(questions))
    decided = lead != 0
    return questions[decided], lead[decided] > 0, int((~decided).sum())


def between_raters(votes: Votes) -> BetweenRaters:
    """Return every two votes of different raters on one question.

    Of a question with more than `MOST_COMPARED` votes, those of the first so many raters.

    Example:
        >>> votes = Votes(np.array([0, 1]), np.array([5, 5]), np.array([True, False]), 0)
        >>> between_raters(votes).agree.tolist()
        [False]
    """
    order = np.lexsort((votes.rater, votes.question))
    _, begins = np.unique(votes.question[order], return_index=True)
    pairs = [np.empty((2, 0), np.int64)]
    for part in np.split(order, begins[1:]):
        if len(part) > 1:
            pairs.append(part[:MOST_COMPARED][_all_pairs(min(len(part), MOST_COMPARED))])
    one, another = np.concatenate(pairs, axis=1)
    return BetweenRaters(
        votes.rater[one],
        votes.rater[another],
        votes.question[one],
        votes.first[one] == votes.first[another],
    )


def pooled_agreement(between: BetweenRaters) -> Agreement:
    """Return the agreement of all pairs of raters; its interval draws whole questions."""
    share = bootstrap_interval(between.agree, groups=between.question)
    return Agreement(share, len(between.agree))


def model_agreement(
    chosen_distances: Float64Array, other_distances: Float64Array, query: IntArray
) -> Agreement:
    """Return how often a model has the chosen image nearer than the other.

    Args:
        chosen_distances: float (answers,), of the query to the chosen image.
        other_distances: float (answers,), of the query to the other.
        query: integer (answers,); the interval draws whole queries.

    Returns:
        The share; a tie is no agreement.

    Raises:
        ValueError: the shapes differ, or a distance is NaN.
    """
    correct = correct_triplets(chosen_distances, other_distances)
    return Agreement(bootstrap_interval(correct, groups=query), len(correct))


@cache
def _all_pairs(count: int) -> IntArray:
    return np.stack(np.triu_indices(count, k=1))


def _leads(first: BoolArray, group: IntArray, count: int) -> Int64Array:
    """Return by how many the first of two images leads in each group; below 0 if it trails."""
    return np.bincount(group, np.where(first, 1, -1), count).astype(np.int64)
