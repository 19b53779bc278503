"""What the API answers about questions to people."""

import numpy as np
from pydantic import BaseModel, Field

from deep_ranking.datasets.ratings import ANSWERS, CANNOT_SAY, Ratings
from deep_ranking.metrics.agreement import (
    Agreement,
    between_raters,
    pooled_agreement,
    steadiness,
    votes_of,
)
from deep_ranking.serving.answers import ImageAnswer, in_plain_text

MOST_RATERS = 100


class AgreementAnswer(BaseModel):
    """How often two answers to one question agree."""

    compared: int = Field(description="pairs of answers that were compared")
    agreed: int = Field(description="those that agree")
    share: float | None = Field(description="of those that agree; null if none was compared")
    low: float | None = Field(description="lower end of its 95 % interval")
    high: float | None = Field(description="upper end")


class RaterAnswer(BaseModel):
    """What one rater has answered."""

    name: str
    answers: int = Field(description="that stand")
    cannot_say: int = Field(description="those that chose no image")
    steadiness: AgreementAnswer = Field(
        description="how often a question that came again was answered as the last time"
    )


class TeachAnswer(BaseModel):
    """What was answered about the collection."""

    collection: str
    rater: str = Field(description='who answers where a request names nobody; "" for nobody')
    images: int = Field(description="different images that questions are about")
    left_out: int = Field(description="images that none is about, because there are so many")
    answers: int = Field(description="that stand")
    gone: int = Field(description="those about an image that the collection no longer has")
    raters: list[RaterAnswer] = Field(description=f"the first {MOST_RATERS}")
    more_raters: int = Field(description="those that are not listed")
    between: AgreementAnswer = Field(description="of different raters, on the same questions")


class QuestionAnswer(BaseModel):
    """Which of a and b is more like the query?"""

    query: ImageAnswer
    a: ImageAnswer
    b: ImageAnswer
    asked: str = Field(
        description="why: informative (the model is unsure), random, or repeat; send it back"
    )
    before: int = Field(description="how often the rater has answered it; send it back")


class NextAnswer(BaseModel):
    """The next question."""

    question: QuestionAnswer | None = Field(description="null if none is left")
    rater: RaterAnswer


class KeptAnswer(BaseModel):
    """That an answer is on the disk."""

    already: bool = Field(description="whether it was there before this request")
    rater: RaterAnswer


class TakenBackAnswer(BaseModel):
    """What was taken back."""

    question: QuestionAnswer | None = Field(description="its question; null if an image is gone")
    answer: str = Field(description="a, b or cannot_say")
    rater: RaterAnswer


def told_raters(ratings: Ratings) -> list[RaterAnswer]:
    """Return what each rater has answered, in order of appearance."""
    answers = np.bincount(ratings.rater, minlength=len(ratings.raters))
    undecided = ratings.rater[ratings.answer == ANSWERS.index(CANNOT_SAY)]
    cannot_say = np.bincount(undecided, minlength=len(ratings.raters))
    chosen = ratings.take(ratings.decided)
    steady = steadiness(chosen.rater, *chosen.questions(), len(ratings.raters))
    return [
        RaterAnswer(
            name=in_plain_text(name),
            answers=int(answers[number]),
            cannot_say=int(cannot_say[number]),
            steadiness=_told(steady[number]),
        )
        for number, name in enumerate(ratings.raters)
    ]


def told_rater(ratings: Ratings, name: str) -> RaterAnswer:
    """Return what one rater has answered."""
    if name in ratings.raters:
        own = ratings.take(np.equal(ratings.rater, ratings.raters.index(name)))
        return told_raters(own)[ratings.raters.index(name)]
    nothing = AgreementAnswer(compared=0, agreed=0, share=None, low=None, high=None)
    return RaterAnswer(name=name, answers=0, cannot_say=0, steadiness=nothing)


def told_between(ratings: Ratings) -> AgreementAnswer:
    """Return how far raters agree with each other."""
    chosen = ratings.take(ratings.decided)
    question, first = chosen.questions()
    return _told(pooled_agreement(between_raters(votes_of(chosen.rater, question, first))))


def _told(agreement: Agreement) -> AgreementAnswer:
    share, compared = agreement
    if not compared:
        return AgreementAnswer(compared=0, agreed=0, share=None, low=None, high=None)
    return AgreementAnswer(
        compared=compared,
        agreed=round(share.mean * compared),
        share=share.mean,
        low=share.low,
        high=share.high,
    )
