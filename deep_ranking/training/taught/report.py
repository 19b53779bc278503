"""What teaching did, in words and as JSON: better or not, how sure, and what was forgotten."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files.array_types import BoolArray, IntArray
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import counted
from deep_ranking.metrics.agreement import Agreement
from deep_ranking.metrics.intervals import Interval, bootstrap_interval
from deep_ranking.model.calibration import Calibration

MOST_MORE = 2000  # answers: a larger estimate says nothing
ROUNDED_TO = 10


@dataclass(frozen=True)
class HeldBack:
    """Agreement with answers that were held back, before and after learning from the others.

    Attributes:
        before: of the model to go on from.
        after: of what was learned from answers about other queries.
        difference: after less before, on the same questions, with its 95 % interval over queries.

    Example:
        >>> report.held_back.after.share.mean > report.held_back.before.share.mean
        True
    """

    before: Agreement
    after: Agreement
    difference: Interval

    @classmethod
    def of(cls, before: BoolArray, after: BoolArray, query: IntArray) -> "HeldBack":
        """Compare models on the same questions: bool (questions,), whether each agrees."""
        return cls(
            Agreement(bootstrap_interval(before, groups=query), len(query)),
            Agreement(bootstrap_interval(after, groups=query), len(query)),
            bootstrap_interval(after.astype(float) - before, groups=query),
        )

    @property
    def is_better(self) -> bool:
        """Whether the interval of the difference lies above 0."""
        return bool(self.difference.low > 0)

    @property
    def num_more(self) -> int | None:
        """Number of answers that may show whether it is better; None if that cannot be told.

        The interval narrows as the root of the number of answers. If the difference stays what it
        is, so many more lift the interval above 0.
        """
        if self.is_better or not self.difference.mean > 0:
            return None
        count = self.after.num_compared
        half = self.difference.mean - self.difference.low
        more = count * ((half / self.difference.mean) ** 2 - 1)
        more = max(ROUNDED_TO, math.ceil(more / ROUNDED_TO) * ROUNDED_TO)
        return int(more) if more <= MOST_MORE else None


@dataclass(frozen=True)
class Recall:
    """recall@1 before and after, among images of classes that chose nothing.

    Attributes:
        before: of the model to go on from, 0 to 1.
        after: of the taught model.
        bound: it may fall by no more.
        num_images: images that judge.
        num_classes: their classes.
        of_held_out_classes: whether none of these classes has images that chose.
    """

    before: float
    after: float
    bound: float
    num_images: int
    num_classes: int
    of_held_out_classes: bool

    @property
    def is_forgotten(self) -> bool:
        """Whether recall@1 fell by more than the bound."""
        return self.after < self.before - self.bound


@dataclass(frozen=True)
class TaughtReport:
    """What teaching did; printed, it is text for people.

    Attributes:
        output: the model file that was written.
        num_answers: answers that chose an image.
        num_questions: questions that most raters decided, of which the model learned.
        held_back: agreement with answers held back.
        at_random: likewise, on questions that were asked at random: an honest estimate for any
            question, where others were chosen to be hard. None if there are too few.
        steadiness: how often raters answered a question as at the last time: no model can be
            expected to agree more.
        recall: recall@1 before and after; None without class folders.
        calibration: what the taught model's distances mean; None if that is not known.
        mixture: how much the learned distance counts beside that of the model to go on from.
        seconds: what learning took, without features.
        left_out: in words, what was left out.
        notes: in words, what the figures cannot tell, and why.

    Example:
        >>> config = TaughtConfig(
        ...     model="model.h5",
        ...     output="taught.h5",
        ...     ratings=["answers.csv"],
        ...     images="photos",
        ...     cache_dir="report_cache",
        ... )
        >>> report = teach(config)
        Computing the frozen layers' features ...
        >>> report.recall is None
        True
    """

    output: Path
    num_answers: int
    num_questions: int
    held_back: HeldBack
    at_random: HeldBack | None
    steadiness: Agreement
    recall: Recall | None
    calibration: Calibration | None
    mixture: float
    seconds: float
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_better(self) -> bool:
        """Whether the model agrees more with answers that it did not see, beyond chance."""
        return self.held_back.is_better

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        return "".join(map(paragraph, self._lines()))

    def verdict(self) -> str:
        """Return in words whether the model is better, and if not, how many answers may show it."""
        held = self.held_back
        if self.is_better:
            return f"Better: {_points(held.difference)} on answers that it did not see."
        if not held.difference.mean > 0:
            return (
                "Not better yet: answers that it did not see do not show what was learned; how "
                "many more it takes cannot be told."
            )
        if held.num_more is None:
            return (
                f"Not better yet: {_points(held.difference)} may be chance, and far more answers "
                "would be needed to tell."
            )
        return f"Not better yet: {held.num_more} more answers ({_points(held.difference)} so far)."

    def as_json(self) -> dict[str, Any]:
        """Return all figures as JSON can hold them; a share of nothing is None."""
        recall = self.recall
        return {
            "output": str(self.output),
            "answers": self.num_answers,
            "questions": self.num_questions,
            "is_better": self.is_better,
            "more_answers": self.held_back.num_more,
            "verdict": self.verdict(),
            "held_back": _held_back_as_json(self.held_back),
            "at_random": self.at_random and _held_back_as_json(self.at_random),
            "steadiness": _as_json(self.steadiness),
            "recall_at_1": recall
            and {
                "before": recall.before,
                "after": recall.after,
                "bound": recall.bound,
                "images": recall.num_images,
                "classes": recall.num_classes,
                "of_held_out_classes": recall.of_held_out_classes,
            },
            "calibration_pairs": self.calibration and self.calibration.num_pairs,
            "mixture": self.mixture,
            "seconds": self.seconds,
            "left_out": self.left_out,
            "notes": self.notes,
        }

    def _lines(self) -> Iterator[str]:
        yield (
            f"Learned from {counted(self.num_answers, 'answer')} to "
            f"{counted(self.num_questions, 'question')} in {self.seconds:.0f} seconds."
        )
        if self.left_out:
            yield f"Left out: {'; '.join(self.left_out)}."
        yield self.verdict()
        yield "Agreement with answers held back (share and 95 % interval):"
        for title, held in (("", self.held_back), (" asked at random", self.at_random)):
            if held is not None:
                yield (
                    f"  {counted(held.after.num_compared, 'question')}{title}: "
                    f"{_share(held.before)} before, {_share(held.after)} after, difference "
                    f"{_signed(held.difference)}"
                )
        if self.steadiness.num_compared:
            times = counted(self.steadiness.num_compared, "repeat")
            yield f"  the raters with themselves: {_share(self.steadiness)} in {times}"
        else:
            yield "  the raters with themselves: not known, as no question came twice"
        if self.recall is not None:
            recall = self.recall
            held_out = "held-out classes" if recall.of_held_out_classes else "held-out images"
            yield (
                f"Class recall@1 of {counted(recall.num_images, 'image')} ({held_out}): "
                f"{recall.before:.3f} before, {recall.after:.3f} after; it may fall by "
                f"{recall.bound:g}."
            )
        if self.calibration is None:
            yield (
                "Not calibrated: compare tells no chance that two images are of one class, until "
                "calibrate has been run with images of known classes."
            )
        else:
            pairs = counted(self.calibration.num_pairs, "pair")
            yield f"Calibrated on {pairs}: compare tells how likely two images are of one class."
        yield f"Mixture: 1 part what the model knew, {self.mixture:.2g} parts what it learned."
        yield from self.notes


def _points(difference: Interval) -> str:
    return f"agreement {_signed(difference)}"


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _share(agreement: Agreement) -> str:
    share = agreement.share
    return f"{share.mean:.3f} ({share.low:.3f} to {share.high:.3f})"


def _held_back_as_json(held: HeldBack) -> dict[str, Any]:
    mean, low, high = held.difference
    return {
        "before": _as_json(held.before),
        "after": _as_json(held.after),
        "difference": {"mean": mean, "low": low, "high": high},
    }


def _as_json(agreement: Agreement) -> dict[str, Any]:
    share, low, high = (None if np.isnan(each) else float(each) for each in agreement.share)
    return {"share": share, "low": low, "high": high, "compared": agreement.num_compared}
