"""Ratings -> questions to learn from, with the votes for either image, and what is left out."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deep_ranking.datasets.ratings import ASKED, RANDOM, SIDES, Ratings
from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Float64Array, Int32Array, Int64Array
from deep_ranking.files.words import counted
from deep_ranking.metrics.agreement import Agreement, majority, steadiness, votes_of
from deep_ranking.metrics.intervals import wilson_interval
from deep_ranking.sampling.rated_triplets import (
    counts_in_words,
    images_in,
    majority_triplets,
)

FEWEST_QUESTIONS = 10
FEWEST_QUERIES = 5
FEW_SIDES = 8  # choices of one side that may be chance: one rater in 128 at eight


@dataclass(frozen=True)
class Answers:
    """Questions about images that are there, each decided by most raters.

    Attributes:
        files: the image files, each of a question.
        questions: int64 (questions, 3), indices into `files`: query, chosen, other.
        votes: float64 (questions, 2), raters who chose the chosen image, and the other one. Each
            rater has one vote on a question, however often it was asked.
        at_random: bool (questions,), whether a question was asked at random.
        steadiness: how often raters answered a question as at the last time.
        num_answers: answers that chose an image.
        left_out: in words, what is left out.
        notes: in words, what makes the answers doubtful.
    """

    files: list[str]
    questions: Int64Array
    votes: Float64Array
    at_random: BoolArray
    steadiness: Agreement
    num_answers: int
    left_out: list[str]
    notes: list[str]


def usable_answers(ratings: Ratings, images: Path) -> Answers:
    """Return what can be learned from.

    Args:
        ratings: the ratings.
        images: folder that their paths start from.

    Raises:
        InputError: no answer chose an image, the images are not there, or too few are left.
    """
    name = ", ".join(map(str, ratings.files))
    if not len(ratings):
        taken_back = ratings.num_taken_back
        because = f" ({taken_back:,} taken back)" if taken_back else ""
        raise InputError(f"{name}: no answers in it{because}; answer questions first")
    if not ratings.decided.any():
        raise InputError(
            f"{name}: {counted(len(ratings), 'answer')}, and none chose an image (cannot_say): "
            "nothing is left to learn from"
        )
    found = majority_triplets(ratings)
    if not len(found.rows):
        raise InputError(
            f"{name}: no question has more votes for one image than for the other "
            f"({'; '.join(found.left_out())}): nothing is left to learn from"
        )
    decided = ratings.take(ratings.decided)
    used, rows = np.unique(found.rows, return_inverse=True)
    rows = rows.reshape(found.rows.shape).astype(np.int64)
    names, exists = images_in(images, [ratings.paths[number] for number in used])
    there = exists[rows].all(axis=1)
    questions, gone = rows[there], int((~there).sum())
    num_queries = len(np.unique(questions[:, 0]))
    left_out = [
        *found.left_out(),
        *counts_in_words(
            (gone, "question with an image that is gone", "questions with images that are gone")
        ),
    ]
    if len(questions) < FEWEST_QUESTIONS or num_queries < FEWEST_QUERIES:
        because = f" (left out: {'; '.join(left_out)})" if left_out else ""
        raise InputError(
            f"{name}: {counted(len(questions), 'question')} about "
            f"{counted(num_queries, 'query image')} to learn from{because}; it takes at least "
            f"{FEWEST_QUESTIONS} about {FEWEST_QUERIES}: answer more"
        )
    return Answers(
        [os.path.join(images, each) for each in names],
        questions,
        _votes(decided)[there],
        _asked_at_random(decided, found.rows[there]),
        _all_steadiness(decided),
        len(decided),
        left_out,
        list(_notes(decided)),
    )


def _votes(decided: Ratings) -> Float64Array:
    """Return the votes for and against what won each question, float64 (questions, 2)."""
    question, first = decided.questions()
    votes = votes_of(decided.rater, question, first)
    won, by_first, _ = majority(votes)
    counts = np.zeros((len(won), 2))
    of_won = np.isin(votes.question, won)
    place = np.searchsorted(won, votes.question[of_won])
    np.add.at(counts, (place, (votes.first[of_won] != by_first[place]).astype(int)), 1)
    return counts


def _asked_at_random(decided: Ratings, questions: Int32Array) -> BoolArray:
    """Return whether some rater was asked a question at random."""
    at_random = decided.rows[decided.asked == ASKED.index(RANDOM)]
    asked = {(query, *sorted(pair)) for query, *pair in at_random.tolist()}
    known = [(query, *sorted(pair)) in asked for query, *pair in questions.tolist()]
    return np.array(known, bool)


def _all_steadiness(decided: Ratings) -> Agreement:
    question, first = decided.questions()
    each = steadiness(decided.rater, question, first, len(decided.raters))
    compared = sum(one.num_compared for one in each)
    agreed = sum(round(one.share.mean * one.num_compared) for one in each if one.num_compared)
    return Agreement(wilson_interval(agreed, compared), compared)


def _notes(decided: Ratings) -> list[str]:
    side = decided.side[decided.side != SIDES.index("")]
    if len(side) >= FEW_SIDES and len(np.unique(side)) == 1:
        return [
            f"All {len(side):,} answers chose side {SIDES[int(side[0])]}: did the raters look at "
            "the pictures?"
        ]
    return []
