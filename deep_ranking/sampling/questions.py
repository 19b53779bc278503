"""Which question to ask next, by BADGE (Ash et al. 2020, https://arxiv.org/abs/1906.03671).

BADGE asks about examples with large and different gradients of the loss, as if the model's own
answer were right: large where the model is unsure, different where it would learn something new.
It draws them as k-means++ draws its centres, each with a chance in proportion to its squared
distance from the nearest gradient so far.

Here an example is a question: which of the images A and B is more like the query Q? The loss is the
logistic one of the difference d . w of distances, in a model that weighs them:

    margin      m = |w . d|
    likely      p = 1 / (1 + exp(-m / s))     s: the spread of m among the candidates
    gradient    g = (1 - p) * d               its sign is that of the likely answer

A `QuestionSpace` says what d and w are: those that answers teach (`training.taught.space`), or, of
embeddings alone, d = q * (a - b) and w = 1, half the difference of the squared distances by
dimension. g and -g are the same question with A and B swapped, so distances are taken to both.
Gradients of the questions that were asked are the centres so far. To keep questions fine-grained, A
and B are among the nearest images of Q; to cover the collection, queries are first those that were
asked least. Some questions are drawn at random instead, for an honest estimate of the model, and
some repeat an answer of the same rater with the sides swapped.

NumPy only; rows of one state and seed always lead to the same question.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from deep_ranking.datasets.ratings import INFORMATIVE, RANDOM, REPEAT, SIDES, Ratings
from deep_ranking.files import InputError
from deep_ranking.files.array_types import (
    BoolArray,
    Float32Array,
    Int32Array,
    Int64Array,
    IntArray,
)

PRODUCTS_AT_ONCE = 1 << 27  # some 10 ms: bounds how many queries are candidates
FEWEST_QUERIES, MOST_QUERIES = 4, 64
PAIRS_OF_QUERY = 16  # candidate questions about each query
MOST_CENTRES = 512  # the latest questions; new ones differ from these
RANDOM_TRIES = 32
SAME = 1e-5  # squared distance of two rows that may be equal, in float32


@dataclass(frozen=True)
class QuestionSettings:
    """How questions are chosen.

    Attributes:
        num_nearest: A and B are among so many nearest images of the query.
        random_share: share of questions that are drawn at random.
        repeat_share: share of questions that repeat an answer of the rater.
        repeat_after: answers of the rater between a question and its repeat, so that the rater
            does not just remember; fewer where the rater has given no more.

    Raises:
        InputError: a number is out of its range.
    """

    num_nearest: int = 20
    random_share: float = 0.2
    repeat_share: float = 0.1
    repeat_after: int = 10

    def __post_init__(self) -> None:
        shares = (self.random_share, self.repeat_share)
        if self.num_nearest < 2 or self.repeat_after < 1 or not min(shares) >= 0 <= 1 - sum(shares):
            raise InputError(
                "num_nearest must be 2 or more, repeat_after 1 or more, and random_share and "
                f"repeat_share 0 or more and together at most 1. Received: {self}"
            )


def _no_rows() -> Int32Array:
    return np.empty((0, 3), np.int32)


@dataclass(frozen=True)
class Asked:
    """The questions that were answered so far, in order.

    Attributes:
        rows: integer (answers, 3), rows of the embeddings: query, chosen, other.
        on_side_a: bool (answers,), whether `chosen` was shown on side A.
        own: bool (answers,), whether the rater to ask has given the answer; others count for what
            was asked, and only one's own are repeated.
        decided: bool (answers,), whether an image was chosen; only those are repeated.
    """

    rows: IntArray = field(default_factory=_no_rows)
    on_side_a: BoolArray = field(default_factory=lambda: np.empty(0, bool))
    own: BoolArray = field(default_factory=lambda: np.empty(0, bool))
    decided: BoolArray = field(default_factory=lambda: np.empty(0, bool))


def asked_before(ratings: Ratings, row_of: Mapping[str, int], rater: str) -> Asked:
    """Return what was asked by ratings, of images that have a row.

    Args:
        ratings: the answers so far.
        row_of: the row of each image path.
        rater: the rater to ask.

    Example:
        >>> ratings = read_ratings("ratings.csv")
        >>> row_of = {path: row for row, path in enumerate(ratings.paths)}
        >>> asked_before(ratings, row_of, "Ann").own.sum()
        np.int64(7)
    """
    rows = np.array([row_of.get(path, -1) for path in ratings.paths], np.int32)[ratings.rows]
    there = np.array((rows >= 0).all(axis=1), bool)
    kept = ratings.take(there)
    number = ratings.raters.index(rater) if rater in ratings.raters else -1
    return Asked(rows[there], kept.side == SIDES.index("A"), kept.rater == number, kept.decided)


class QuestionSpace(Protocol):
    """What a model learns from a question."""

    def gradients(self, questions: IntArray) -> tuple[Float32Array, Float32Array]:
        """Return w . d, float (questions,), and d, float (questions, weights).

        Args:
            questions: integer (questions, 3), rows: query, A, B.
        """
        ...


class _EmbeddingSpace:
    """A model that weighs each dimension of its embeddings, all by 1 so far."""

    def __init__(self, embeddings: Float32Array) -> None:
        self.embeddings = embeddings

    def gradients(self, questions: IntArray) -> tuple[Float32Array, Float32Array]:
        query, a, b = (self.embeddings[column] for column in questions.T)
        gradients = query * (a - b)
        return gradients.sum(axis=1), gradients


@dataclass(frozen=True)
class Question:
    """Which of A and B is more like the query? Rows of the embeddings.

    Attributes:
        query: row of the query.
        a: row of the image on side A.
        b: row of the image on side B.
        asked: why: `informative`, `random` or `repeat`.
    """

    query: int
    a: int
    b: int
    asked: str


def next_question(
    embeddings: Float32Array,
    asked: Asked,
    *,
    contents: IntArray | None = None,
    space: QuestionSpace | None = None,
    settings: QuestionSettings | None = None,
    seed: int = 0,
) -> Question | None:
    """Return the question to ask next.

    Args:
        embeddings: float32 (images, dim), rows of unit length.
        asked: what was asked so far.
        contents: integer (images,), equal for images of the same content; None if all differ.
        space: what is learned from a question; None for the weights of the embedding's dimensions.
        settings: how to choose; by default as `QuestionSettings` has it.
        seed: of the draws. Raters with the same seed get the same random questions, by which their
            agreement can be told.

    Returns:
        The question; None if there is none left to ask. Its images are never copies: of one
        content, or of equal rows.

    Example:
        >>> rows = np.eye(4, dtype=np.float32)
        >>> next_question(rows, Asked()).asked
        'informative'

    Raises:
        InputError: `embeddings` has fewer than three rows.
    """
    if len(embeddings) < 3:
        raise InputError(
            f"a question takes three images; received {len(embeddings)} embeddings; add images"
        )
    chooser = _Chooser(
        embeddings,
        asked,
        contents,
        space=space or _EmbeddingSpace(embeddings),
        settings=settings or QuestionSettings(),
        seed=seed,
    )
    draw = chooser.generator.random()
    repeat_share = chooser.settings.repeat_share
    question = None
    if draw < repeat_share:
        question = chooser.repeat()
    elif draw < repeat_share + chooser.settings.random_share:
        question = chooser.at_random()
    return question or chooser.informative() or chooser.at_random()


class _Chooser:
    """Chooses one question; the arguments are those of `next_question`."""

    def __init__(
        self,
        embeddings: Float32Array,
        asked: Asked,
        contents: IntArray | None,
        *,
        space: QuestionSpace,
        settings: QuestionSettings,
        seed: int,
    ) -> None:
        self.space = space
        self.embeddings, self.asked, self.settings = embeddings, asked, settings
        self.contents = np.arange(len(embeddings)) if contents is None else contents
        # Others' answers change no random question, so raters with one seed get the same ones.
        self.state = [seed, int(asked.own.sum())]
        self.generator = np.random.default_rng(self.state)
        self.times_asked = np.bincount(asked.rows[:, 0], minlength=len(embeddings))
        self.known = _sorted_pairs(asked.rows[asked.own])

    def repeat(self) -> Question | None:
        """Return an own question that was asked once, with its sides swapped."""
        own = np.flatnonzero(self.asked.own)
        _, group, counts = np.unique(self.known, axis=0, return_inverse=True, return_counts=True)
        is_due = np.arange(len(own)) < len(own) - self.settings.repeat_after
        is_once = counts[group.reshape(-1)] == 1
        once = own[is_due & is_once & self.asked.decided[own]]
        if not len(once):
            return None
        number = once[self.generator.integers(len(once))]
        query, chosen, other = self.asked.rows[number].tolist()
        sides = (other, chosen) if self.asked.on_side_a[number] else (chosen, other)
        return Question(query, *sides, REPEAT)

    def at_random(self) -> Question | None:
        """Return a question about a random query and two of its nearest images."""
        for _ in range(RANDOM_TRIES):
            query = self.generator.integers(len(self.embeddings), size=1)
            (near,) = self._nearest(query)
            pairs = self._pairs(query[0], near)
            if len(pairs):
                return self._shown(pairs[0], RANDOM)
        return None

    def informative(self) -> Question | None:
        """Return a candidate, drawn as k-means++ draws a centre among the gradients."""
        count = min(
            PRODUCTS_AT_ONCE // self.embeddings.size, MOST_QUERIES, len(self.embeddings) // 8
        )
        count = max(count, FEWEST_QUERIES)  # but not all: those asked least come first
        shuffled = self.generator.permutation(len(self.embeddings))
        least = np.argsort(self.times_asked[shuffled], kind="stable")[:count]
        queries = shuffled[least]
        pairs = [
            self._pairs(query, near)[:PAIRS_OF_QUERY]
            for query, near in zip(queries, self._nearest(queries), strict=True)
        ]
        candidates = np.concatenate(pairs)  # (candidates, 3)
        if not len(candidates):
            return None
        margins, gradients = self.space.gradients(candidates)
        spread = float(np.abs(margins).std()) or 1.0
        weights = _doubt(np.abs(margins), spread)[:, None] * gradients
        centres = self.asked.rows[-MOST_CENTRES:]
        if len(centres):
            asked_margins, asked_gradients = self.space.gradients(centres)
            asked_weights = _doubt(np.abs(asked_margins), spread)[:, None] * asked_gradients
            chances = _squared_to_nearest(weights, asked_weights)
        else:  # k-means++ begins anywhere; BADGE's gradients say where most is learned
            chances = np.einsum("ij,ij->i", weights, weights)
        chances = chances.astype(np.float64)
        total = float(chances.sum())
        if not total > 0:
            return self._shown(candidates[0], INFORMATIVE)
        place = self.generator.choice(len(candidates), p=chances / total)
        return self._shown(candidates[place], INFORMATIVE)

    def _nearest(self, queries: Int64Array) -> list[Int64Array]:
        """Return the nearest images of each query, without its copies, in no order."""
        cosines = self.embeddings[queries] @ self.embeddings.T  # (queries, images)
        copies = cosines > 1 - SAME / 2
        copies |= self.contents[queries][:, None] == self.contents
        cosines[copies] = -np.inf
        count = min(self.settings.num_nearest, len(self.embeddings) - 1)
        nearest = np.argpartition(cosines, -count, axis=1)[:, -count:]
        return [near[np.isfinite(row[near])] for near, row in zip(nearest, cosines, strict=True)]

    def _pairs(self, query: int, near: Int64Array) -> Int64Array:
        """Return questions about a query, (questions, 3), in random order; no copies or known."""
        first, second = near[np.stack(np.triu_indices(len(near), k=1))]
        order = self.generator.permutation(len(first))
        pairs = np.stack([np.full(len(first), query), first, second], axis=1)[order]
        kept = self.contents[pairs[:, 1]] != self.contents[pairs[:, 2]]
        for _, *known in self.known[self.known[:, 0] == query]:
            kept &= (_sorted_pairs(pairs)[:, 1:] != known).any(axis=1)
        pairs = pairs[kept]
        apart = self.embeddings[pairs[:, 1]] - self.embeddings[pairs[:, 2]]
        distinct: Int64Array = pairs[np.einsum("ij,ij->i", apart, apart) > SAME]
        return distinct

    def _shown(self, question: IntArray, why: str) -> Question:
        """Return a question with its images on random sides."""
        a, b = self.generator.permutation(question[1:]).tolist()
        return Question(int(question[0]), a, b, why)


def _sorted_pairs(asked: IntArray) -> Int64Array:
    """Return questions, (questions, 3), as they are with A and B on either side."""
    return np.column_stack([asked[:, 0], np.sort(asked[:, 1:], axis=1)]).astype(np.int64)


def _doubt(margins: Float32Array, spread: float) -> Float32Array:
    """Return how far the model's likely answers are from certain: 0.5 at a margin of 0."""
    doubt: Float32Array = (1 / (1 + np.exp(np.minimum(margins / spread, 50)))).astype(np.float32)
    return doubt


def _squared_to_nearest(rows: Float32Array, centres: Float32Array) -> Float32Array:
    """Return the squared distance of each row to the nearest of the centres and their negatives."""
    products = np.abs(rows @ centres.T)  # the nearer of a centre and its negative
    squared = np.einsum("ij,ij->i", centres, centres) - 2 * products
    nearest: Float32Array = squared.min(axis=1) + np.einsum("ij,ij->i", rows, rows)
    return np.maximum(nearest, 0)
