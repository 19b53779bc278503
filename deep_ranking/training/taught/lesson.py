"""One lesson: features of the images, votes about them, and what is learned from both."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from deep_ranking.embedding.cached_features import Features
from deep_ranking.files import InputError
from deep_ranking.files.array_types import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    IntArray,
)
from deep_ranking.files.words import counted
from deep_ranking.metrics import triplet_distances
from deep_ranking.metrics.evaluation import draw_triplets
from deep_ranking.model.calibration import MIN_PAIRS, Calibration, fit_calibration
from deep_ranking.sampling.rated_triplets import counts_in_words
from deep_ranking.training.taught.answers import FEWEST_QUERIES, FEWEST_QUESTIONS, Answers
from deep_ranking.training.taught.base_distances import base_distances
from deep_ranking.training.taught.features import Head, read_parts
from deep_ranking.training.taught.fitting import (
    MOST_MIXTURE,
    Comparisons,
    fit,
    held_back_margins,
)
from deep_ranking.training.taught.forgetting import (
    BOUND,
    MIXTURES,
    Halves,
    bounded_mixture,
    has_judged,
    recall_at_1,
)
from deep_ranking.training.taught.head import compressed_head, joined_head
from deep_ranking.training.taught.report import HeldBack, Recall

FEWEST_AT_RANDOM = 10


class Learned(NamedTuple):
    """What a lesson taught.

    Attributes:
        head: the new head.
        mixture: how much the learned distance counts beside the old one.
        held_back: agreement with answers held back.
        at_random: likewise, on questions asked at random; None if there are too few.
        recall: recall@1 before and after; None without classes.
        calibration: of the new head's distances; None without classes, or with too few pairs.
        notes: in words, what the figures cannot tell.
    """

    head: Head
    mixture: float
    held_back: HeldBack
    at_random: HeldBack | None
    recall: Recall | None
    calibration: Calibration | None
    notes: list[str]


@dataclass(frozen=True)
class Lesson:
    """What is learned from; all rows are of images that have features.

    Attributes:
        head: the head to go on from, which reads the layout.
        parts: float32 (images, size) of each part of the features.
        questions: int64 (questions, 3), rows: query, chosen, other.
        votes: float64 (questions, 2), for the chosen image and for the other.
        at_random: bool (questions,), whether a question was asked at random.
        halves: rows of known classes, those that choose and those that judge; None without classes.
        labels: integer (images,), the classes of those rows.
        left_out: in words, what is left out.
    """

    head: Head
    parts: Sequence[Float32Array]
    questions: Int64Array
    votes: Float64Array
    at_random: BoolArray
    halves: Halves | None
    labels: IntArray
    left_out: list[str]

    @classmethod
    def of(
        cls,
        answers: Answers,
        head: Head,
        features: Features,
        *,
        halves: Halves | None,
        labels: IntArray,
    ) -> "Lesson":
        """Leave out what has no features.

        Args:
            answers: answers about the first images of the features.
            head: the head to go on from.
            features: of `taught_features`.
            halves: images of the features with a class.
            labels: integer (images,).

        Raises:
            InputError: too few questions are left.
        """
        stored = features.rows[:, 0]
        whole = np.flatnonzero(stored >= 0)
        row_of = np.full(len(stored), -1, np.int64)
        row_of[whole] = np.arange(len(whole))
        there = (stored[answers.questions] >= 0).all(axis=1)
        copies = there & (stored[answers.questions[:, 1]] == stored[answers.questions[:, 2]])
        kept = there & ~copies
        left_out = counts_in_words(
            (int((~there).sum()), "question with a broken image", "questions with broken images"),
            (int(copies.sum()), "question about two copies", "questions about two copies"),
        )
        queries = np.unique(answers.questions[kept, 0])
        if kept.sum() < FEWEST_QUESTIONS or len(queries) < FEWEST_QUERIES:
            raise InputError(
                f"{counted(int(kept.sum()), 'question')} about "
                f"{counted(len(queries), 'query image')} to learn from (left out: "
                f"{'; '.join(left_out)}); it takes at least {FEWEST_QUESTIONS} about "
                f"{FEWEST_QUERIES}: answer more"
            )
        if halves is not None:
            broken = sum(int((stored[each] < 0).sum()) for each in halves)
            left_out += counts_in_words(
                (broken, "broken image of a class", "broken images of classes")
            )
            halves = Halves(*(row_of[each[stored[each] >= 0]] for each in halves))
            if not all(has_judged(labels[whole][each]) for each in halves):
                halves = None  # what is left judges nothing
        return cls(
            head,
            read_parts(features, whole),
            row_of[answers.questions[kept]],
            answers.votes[kept],
            answers.at_random[kept],
            halves,
            labels[whole],
            left_out,
        )

    def learn(self, seed: int) -> Learned:
        """Learn from the answers.

        Args:
            seed: decides the folds.
        """
        rows = np.concatenate(self.parts, axis=1)
        query, chosen, other = self.questions.T
        pairs = np.concatenate([self.questions[:, :2], self.questions[:, ::2]])
        columns = base_distances(self.parts, pairs)
        old = rows @ self.head.kernel
        of_old = 1 / max(float(_squared(old, *pairs.T).mean()), 1e-12)
        first = of_old * (_squared(old, query, other) - _squared(old, query, chosen))
        of_base = columns.differences(rows, self.questions)
        known = Comparisons(np.column_stack([first, of_base]), self.votes, query)
        with threadpool_limits(1):  # for such small arrays, threads only wait for each other
            found = fit(known, columns.typical, seed=seed)
        learned = columns.weighted(found.weights)

        @cache
        def larger_head(mixture: float) -> Head:
            if mixture == 0:
                return self.head
            return joined_head(self.head, learned, rows, of_old=of_old, of_learned=mixture)

        def taught_head(mixture: float) -> Head:
            if mixture == 0:
                return self.head
            return compressed_head(larger_head(mixture), rows, self.head.kernel.shape[1])

        most, notes = MOST_MIXTURE, []
        if self.halves is not None:
            bounded = bounded_mixture(
                lambda mixture, images: self._recall(larger_head(mixture), images), self.halves
            )
            most = bounded.mixture
            notes += bounded.notes(found.mixture)
        mixture = min(found.mixture, most)
        head = taught_head(mixture)
        recall = None
        if self.halves is not None:
            # By what had no room in the head, or by all images together.
            while (recall := self._recalls(head)).is_forgotten or self._all_forget(head):
                mixture = max((each for each in MIXTURES if each < mixture), default=0.0)
                head = taught_head(mixture)
            most = min(most, mixture) if mixture < found.mixture else most
        else:
            notes.append("What was forgotten is not known: images with classes would tell.")
        before = _agrees(self.head.embed(self.parts), self.questions)
        after = before  # of a head that stays as it was
        if mixture > 0:
            with threadpool_limits(1):
                after = held_back_margins(known, columns.typical, most=most, seed=seed) > 0
        at_random = self.at_random
        enough = FEWEST_AT_RANDOM <= at_random.sum() < len(query)
        return Learned(
            head,
            mixture,
            HeldBack.of(before, after, query),
            HeldBack.of(before[at_random], after[at_random], query[at_random]) if enough else None,
            recall,
            self._calibration(head, seed),
            notes,
        )

    def _recall(self, head: Head, images: Int64Array) -> float:
        return recall_at_1(head.embed([part[images] for part in self.parts]), self.labels[images])

    def _all_forget(self, head: Head) -> bool:
        """Return whether recall@1 of all labelled images falls by more than the bound."""
        assert self.halves is not None
        images = np.concatenate(self.halves)
        return self._recall(head, images) < self._recall(self.head, images) - BOUND

    def _calibration(self, head: Head, seed: int) -> Calibration | None:
        """Return the calibration of a head's distances, by the images that judge."""
        if self.halves is None:
            return None
        images = self.halves.judging
        try:
            triplets = draw_triplets(self.labels[images].astype(str), seed=seed)
        except InputError:  # no class of theirs has two images
            return None
        if len(triplets) < MIN_PAIRS:
            return None
        rows = head.embed([part[images] for part in self.parts])
        return fit_calibration(*triplet_distances(rows, triplets))

    def _recalls(self, head: Head) -> Recall:
        """Return recall@1 before and after, of the images that judge."""
        assert self.halves is not None
        choosing, judging = (np.unique(self.labels[each]) for each in self.halves)
        return Recall(
            self._recall(self.head, self.halves.judging),
            self._recall(head, self.halves.judging),
            BOUND,
            len(self.halves.judging),
            len(judging),
            not np.isin(judging, choosing).any(),
        )


def _agrees(rows: Float32Array, questions: Int64Array) -> BoolArray:
    """Return whether the chosen image is nearer: bool (questions,)."""
    query, chosen, other = questions.T
    agrees: BoolArray = _squared(rows, query, chosen) < _squared(rows, query, other)
    return agrees


def _squared(rows: Float32Array, one: Int64Array, another: Int64Array) -> Float64Array:
    apart = rows[one].astype(np.float64) - rows[another]
    squared: Float64Array = np.einsum("ij,ij->i", apart, apart)
    return squared
