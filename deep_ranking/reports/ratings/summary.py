"""What ratings hold, and how far they can be trusted, in words and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deep_ranking.datasets.ratings import ASKED, SIDES, Ratings
from deep_ranking.files import InputError
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import counted, listed, shortened
from deep_ranking.metrics import Interval
from deep_ranking.metrics.agreement import (
    Agreement,
    BetweenRaters,
    agreement_of,
    between_raters,
    pooled_agreement,
    steadiness,
    votes_of,
)
from deep_ranking.metrics.intervals import wilson_interval
from deep_ranking.reports.evaluation_text import format_interval
from deep_ranking.reports.ratings.model_on_ratings import ModelOnRatings, agreement_as_json
from deep_ranking.sampling.rated_triplets import counts_in_words

MOST_LINES = 20  # of a table that is printed
FEW_SIDES = 8  # choices of one side that may be chance: one rater in 128 at eight


@dataclass(frozen=True)
class RaterFigures:
    """One rater.

    Attributes:
        name: of the rater.
        num_answers: answers that stand.
        num_cannot_say: those of them that chose no image.
        first: time of the first, in UTC, ISO 8601.
        last: time of the last.
        steadiness: how often the rater answered a question as at the last time.
        on_side_a: share of chosen images that were shown on side A; 0.5 without a bias.
    """

    name: str
    num_answers: int
    num_cannot_say: int
    first: str
    last: str
    steadiness: Agreement
    on_side_a: Agreement


@dataclass(frozen=True)
class RatingsSummary:
    """Figures of ratings; printed, they are text for people.

    Attributes:
        files: the files.
        num_answers: answers that stand.
        num_images: images in them.
        raters: figures of each rater, in order of appearance.
        all_steadiness: how often any rater answered a question as at the last time.
        between: for each two raters with a common question, their names and agreement.
        all_between: the agreement of all pairs.
        asked: how many answers were asked for which reason.
        num_contradicted: questions that one rater answered both ways, or that raters answer
            differently: A over B, and B over A.
        left_out: in words, what is not among the answers.
        notes: in words, what the figures cannot tell, and why.

    Example:
        >>> summarize_ratings(read_ratings("ratings.csv"))
        ratings.csv: 12 answers by 2 raters about ...
    """

    files: tuple[str, ...]
    num_answers: int
    num_images: int
    raters: tuple[RaterFigures, ...]
    all_steadiness: Agreement
    between: tuple[tuple[str, str, Agreement], ...]
    all_between: Agreement
    asked: dict[str, int]
    num_contradicted: int
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return "\n".join(self._lines(None))

    def _repr_html_(self) -> str:
        return "".join(map(paragraph, self._lines(None)))

    def beside(self, model: ModelOnRatings) -> str:
        """Return the text with a model's agreement beside that of the raters."""
        return "\n".join(self._lines(model))

    def as_json(self) -> dict[str, Any]:
        """Return all figures as JSON can hold them; a share of nothing is None."""
        return {
            "files": list(self.files),
            "answers": self.num_answers,
            "images": self.num_images,
            "asked": self.asked,
            "raters": [
                {
                    "name": each.name,
                    "answers": each.num_answers,
                    "cannot_say": each.num_cannot_say,
                    "first": each.first,
                    "last": each.last,
                    "steadiness": agreement_as_json(each.steadiness),
                    "on_side_a": agreement_as_json(each.on_side_a),
                }
                for each in self.raters
            ],
            "with_oneself": agreement_as_json(self.all_steadiness),
            "between": [
                {"raters": [one, another], **agreement_as_json(agreement)}
                for one, another, agreement in self.between
            ],
            "between_all": agreement_as_json(self.all_between),
            "contradicted_questions": self.num_contradicted,
            "left_out": self.left_out,
            "notes": self.notes,
        }

    def _lines(self, model: ModelOnRatings | None) -> Iterator[str]:
        begin = min(each.first for each in self.raters)[:10]
        end = max(each.last for each in self.raters)[:10]
        yield (
            f"{listed(self.files)}: {counted(self.num_answers, 'answer')} by "
            f"{counted(len(self.raters), 'rater')} about {counted(self.num_images, 'image')}, "
            + (f"on {begin}." if begin == end else f"{begin} to {end}.")
        )
        yield f"Asked: {', '.join(f'{number:,} {why}' for why, number in self.asked.items())}."
        if self.left_out:
            yield f"Left out: {'; '.join(self.left_out)}."
        yield ""
        titles = ("rater", "answers", "cannot say", "as the last time", "chose side A")
        yield from _table(
            [titles]
            + [
                (
                    shortened(each.name),
                    f"{each.num_answers:,}",
                    f"{each.num_cannot_say:,}",
                    _in_words(each.steadiness),
                    _in_words(each.on_side_a),
                )
                for each in self.raters
            ]
        )
        yield ""
        rows = [("agreement", "share and 95 % interval")]
        if self.all_steadiness.num_compared:
            rows.append(("of raters with themselves", _in_words(self.all_steadiness)))
        if self.all_between.num_compared:
            rows.append(("between raters", _in_words(self.all_between)))
        if len(self.between) > 1:
            rows += [
                (f"  {shortened(one)}, {shortened(another)}", _in_words(agreement))
                for one, another, agreement in self.between
            ]
        if model is not None:
            rows.append(("of the model with most raters", _in_words(model.agreement)))
            if model.at_random.num_compared:
                rows.append(("  on questions asked at random", _in_words(model.at_random)))
        if len(rows) > 1:
            yield from _table(rows)
        if self.num_contradicted:
            number = counted(self.num_contradicted, "question")
            yield f"Contradicting: {number} with answers for either image."
        if model is not None and model.left_out():
            yield f"Left out for the model: {'; '.join(model.left_out())}."
        yield from self.notes


def summarize_ratings(ratings: Ratings) -> RatingsSummary:
    """Return how many ratings there are, by whom, and how far they can be trusted.

    Example:
        >>> [each.name for each in summarize_ratings(read_ratings("ratings.csv")).raters]
        ['Ann', 'Bob']

    Raises:
        InputError: no answer is left, or none chose an image.
    """
    files = tuple(map(str, ratings.files))
    if not len(ratings):
        left_out = _left_out(ratings)
        because = f" ({'; '.join(left_out)})" if left_out else ""
        raise InputError(f"{', '.join(files)}: no answers in it{because}")
    if not ratings.decided.any():
        raise InputError(
            f"{', '.join(files)}: {counted(len(ratings), 'answer')}, and none chose an image "
            "(cannot_say): nothing is left to learn from"
        )
    chosen = ratings.take(ratings.decided)
    question, first = chosen.questions()
    steady = steadiness(chosen.rater, question, first, len(ratings.raters))
    between = between_raters(votes_of(chosen.rater, question, first))
    asked = np.bincount(ratings.asked, minlength=len(ASKED))
    both_ways = np.unique(np.stack([question, first], axis=1), axis=0)[:, 0]
    raters = tuple(_figures(ratings, number, each) for number, each in enumerate(steady))
    repeated = [each.steadiness for each in raters if each.steadiness.num_compared]
    agreed = sum(round(each.share.mean * each.num_compared) for each in repeated)
    compared = sum(each.num_compared for each in repeated)
    pairs = tuple(_pairs(ratings.raters, between))
    return RatingsSummary(
        files,
        len(ratings),
        len(np.unique(ratings.rows)),
        raters,
        Agreement(wilson_interval(agreed, compared), compared),
        pairs,
        pooled_agreement(between),
        {why: int(number) for why, number in zip(ASKED, asked, strict=True) if number},
        len(both_ways) - len(np.unique(both_ways)),
        _left_out(ratings),
        list(_notes(raters, pairs)),
    )


def _figures(ratings: Ratings, rater: int, steady: Agreement) -> RaterFigures:
    own = ratings.take(ratings.rater == rater)
    known = own.decided & (own.side != SIDES.index(""))
    first, last = (str(each) + "Z" for each in (own.times.min(), own.times.max()))
    return RaterFigures(
        ratings.raters[rater],
        len(own),
        int((~own.decided).sum()),
        first,
        last,
        steady,
        agreement_of(own.side[known] == SIDES.index("A")),
    )


def _pairs(raters: Sequence[str], between: BetweenRaters) -> Iterator[tuple[str, str, Agreement]]:
    """Yield names and agreement of each two raters who answered the same question."""
    both = np.stack([between.one, between.another], axis=1)
    pairs, group = np.unique(both, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(group.reshape(-1), minlength=len(pairs)))[:-1]
    for (one, another), members in zip(pairs, np.split(order, ends), strict=False):
        yield raters[one], raters[another], agreement_of(between.agree[members])


def _left_out(ratings: Ratings) -> list[str]:
    return counts_in_words(
        (ratings.num_taken_back, "answer taken back", "answers taken back"),
        (ratings.num_copied, "answer that several files hold", "answers that several files hold"),
        (len(ratings.cut_off), "last line that was cut off", "last lines that were cut off"),
    )


def _notes(
    raters: Sequence[RaterFigures], pairs: Sequence[tuple[str, str, Agreement]]
) -> Iterator[str]:
    if not any(each.steadiness.num_compared for each in raters):
        yield "No question was answered twice by one rater: how steady they are is not known."
    if len(raters) == 1:
        yield "One rater: whether others would agree is not known."
    elif not pairs:
        yield "No question was answered by two raters: whether they agree is not known."
    one_sided = [
        each.name
        for each in raters
        if each.on_side_a.num_compared >= FEW_SIDES and each.on_side_a.share.mean in (0, 1)
    ]
    if one_sided:
        yield f"Always the same side: {listed(one_sided)}; did they look at the pictures?"


def _in_words(agreement: Agreement) -> str:
    share: Interval = agreement.share
    return (
        f"{format_interval(share)} of {agreement.num_compared:,}" if agreement.num_compared else "-"
    )


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table, of which the first are shown."""
    shown = rows[: MOST_LINES + 1]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()
    if len(rows) > len(shown):
        yield f"and {len(rows) - len(shown):,} more, which --json lists"
