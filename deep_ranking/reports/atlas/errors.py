"""Embeddings and labels -> where the model errs, and which labels are likely wrong."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deep_ranking.files.array_types import BoolArray, Float64Array, FloatArray, Int64Array, IntArray
from deep_ranking.metrics.label_noise import LabelFit, OwnNeighbours, label_fit, own_neighbours

MOST_SUSPECTS = 100
VOTERS = 10  # nearest images that the evidence counts
FAR = 3.5  # robust standard deviations below the class's median cosine
FEWEST = 5  # images of a class for that
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


class DoubtedLabel(NamedTuple):
    """An image whose label is likely wrong.

    Attributes:
        row: the image.
        proposed: code of the class that fits it best.
        margin: by how much it fits better than the image's own.
        votes: how many of its nearest images are of that class.
        voters: how many were counted, at most 10.
        own_rank: rank of the nearest image of its own class, from 1.
        witness: row of the nearest image of the proposed class.
    """

    row: int
    proposed: int
    margin: float
    votes: int
    voters: int
    own_rank: int
    witness: int


class WrongNearest(NamedTuple):
    """An image whose nearest is of another class.

    Attributes:
        row: the image.
        nearest: row of its nearest image.
        own: row of the nearest image of its own class.
        lead: by how much the nearest is nearer than that.
    """

    row: int
    nearest: int
    own: int
    lead: float


class ConfusedPair(NamedTuple):
    """Two classes that the model takes for each other.

    Attributes:
        first: code of the class more of whose images are taken for the other.
        second: code of the other.
        num_first: images of `first` whose nearest is of `second`.
        num_second: images of `second` whose nearest is of `first`.
        rows: those images, the clearest first.
    """

    first: int
    second: int
    num_first: int
    num_second: int
    rows: list[int]


class FarImage(NamedTuple):
    """An image that is far from all of its class.

    Attributes:
        row: the image.
        own: row of the nearest image of its class.
        cosine: with the mean of the others of its class.
        usual: the median of this cosine in its class.
    """

    row: int
    own: int
    cosine: float
    usual: float


@dataclass(frozen=True)
class ModelErrors:
    """Where a model errs on labelled images.

    Attributes:
        codes: integer array (images,), the class of each.
        neighbours: the nearest images of each.
        suspects: images another class of which fits better than their own, the likeliest wrong
            label first.
        wrong: images whose nearest is of another class, the clearest first.
        confusions: pairs of classes that such images connect, the most first.
        far: images far from their class that no other class fits better, the farthest first.
        num_alone: images that are the only one of their class, which nothing can be said of.
        num_confirmed: images that would be suspects, if nobody had said that their label is right.
    """

    codes: IntArray
    neighbours: OwnNeighbours
    suspects: list[DoubtedLabel]
    wrong: list[WrongNearest]
    confusions: list[ConfusedPair]
    far: list[FarImage]
    num_alone: int
    num_confirmed: int = 0

    @property
    def likely(self) -> list[DoubtedLabel]:
        """The suspects that people are shown: the first 100."""
        return self.suspects[:MOST_SUSPECTS]

    def hard_triplets(self) -> Int64Array:
        """Return rows of query, positive and negative, int64 (triplets, 3), the clearest first.

        The negative is the first image of another class among the 10 nearest of the query, and the
        positive the nearest of its own. No image is among the likely wrong labels.
        """
        near = self.neighbours
        doubted = np.zeros(len(self.codes), bool)
        doubted[[each.row for each in self.likely]] = True
        usable = (self.codes[near.nearest] != self.codes[:, None]) & ~doubted[near.nearest]
        queries = np.flatnonzero(
            usable.any(axis=1) & (near.own >= 0) & ~doubted & ~doubted[near.own]
        )
        first = usable[queries].argmax(axis=1)
        leads = near.own_distance[queries] - near.distances[queries, first]
        triplets = np.stack([queries, near.own[queries], near.nearest[queries, first]], axis=1)
        return triplets[np.argsort(-leads, kind="stable")]


def find_errors(
    embeddings: FloatArray,
    codes: IntArray,
    progress: Callable[[int], None] | None = None,
    *,
    confirmed: BoolArray | None = None,
) -> ModelErrors:
    """Find where a model errs; the images are searched for among each other.

    Args:
        embeddings: float array (images, dim), rows of unit length.
        codes: integer array (images,), the class of each.
        progress: called with the number of images after each part of them.
        confirmed: bool (images,), whose label is right, as a person said: they are no suspects.

    Raises:
        ValueError: there are fewer than two classes.
    """
    fit = label_fit(embeddings, codes)
    near = own_neighbours(embeddings, codes, fit.proposed, most=VOTERS, progress=progress)
    doubted = _doubted_rows(fit)
    rows = _unconfirmed(doubted, confirmed)
    suspects = _suspects(rows, rows, codes, fit, near)
    wrong = _wrong(codes, near)
    return ModelErrors(
        codes,
        near,
        suspects,
        wrong,
        _confusions(codes, wrong),
        _far(codes, near.to_class, near.own, set(doubted.tolist())),
        int(np.count_nonzero(near.own < 0)),
        len(doubted) - len(rows),
    )


def confusion_examples(errors: ModelErrors, confusion: ConfusedPair) -> list[int]:
    """Return the images of a confusion that show it best, each pair of images once.

    Images whose label is likely wrong come last: they show that, and no confusion.
    """
    doubted = {each.row for each in errors.likely}
    pairs: dict[frozenset[int], int] = {}
    for row in confusion.rows:
        pairs.setdefault(frozenset((row, int(errors.neighbours.nearest[row, 0]))), row)
    return [row for _, row in sorted(pairs.items(), key=lambda each: bool(each[0] & doubted))]


def evidence(suspect: DoubtedLabel, *, own: str, proposed: str) -> str:
    """Return in a sentence why a label is likely wrong.

    Args:
        suspect: the image.
        own: its class.
        proposed: the class that fits it best.
    """
    first = f"{suspect.votes} of its {suspect.voters} nearest are {proposed}"
    if suspect.votes == 0:
        first = f"None of its {suspect.voters} nearest is {proposed}, which fits it best"
    return f"{first}; the nearest {own} is at rank {suspect.own_rank:,}."


def doubted_labels(
    embeddings: FloatArray,
    codes: IntArray,
    *,
    limit: int | None = None,
    confirmed: BoolArray | None = None,
) -> list[DoubtedLabel]:
    """Find the likely wrong labels alone, without searching for all images.

    Args:
        embeddings: float array (images, dim), rows of unit length.
        codes: integer array (images,), the class of each, two or more.
        limit: most of them; None for all.
        confirmed: as for `find_errors`.

    Returns:
        Images another class of which fits better than their own, the likeliest first.
    """
    fit = label_fit(embeddings, codes)
    rows = _unconfirmed(_doubted_rows(fit), confirmed)[:limit]
    near = own_neighbours(embeddings, codes, fit.proposed, most=VOTERS, queries=rows)
    return _suspects(rows, np.arange(len(rows)), codes, fit, near)


def _doubted_rows(fit: LabelFit) -> Int64Array:
    rows = np.flatnonzero(fit.margin > 0)
    return rows[np.argsort(-fit.margin[rows], kind="stable")]


def _unconfirmed(rows: Int64Array, confirmed: BoolArray | None) -> Int64Array:
    return rows if confirmed is None else rows[~confirmed[rows]]


def _suspects(
    rows: Int64Array, places: Int64Array, codes: IntArray, fit: LabelFit, near: OwnNeighbours
) -> list[DoubtedLabel]:
    """Return what is known of some rows, whose neighbours are at `places` of `near`."""
    voted = codes[near.nearest[places]] == fit.proposed[rows, None]
    votes = np.count_nonzero(voted, axis=1)
    return [
        DoubtedLabel(
            int(row),
            int(fit.proposed[row]),
            float(fit.margin[row]),
            int(count),
            near.nearest.shape[1],
            int(near.own_rank[place]),
            int(near.proposed[place]),
        )
        for row, place, count in zip(rows, places, votes, strict=True)
    ]


def _wrong(codes: IntArray, near: OwnNeighbours) -> list[WrongNearest]:
    nearest = near.nearest[:, 0]
    rows = np.flatnonzero((codes[nearest] != codes) & (near.own >= 0))
    leads = near.own_distance - near.distances[:, 0]
    return [
        WrongNearest(int(row), int(nearest[row]), int(near.own[row]), float(leads[row]))
        for row in rows[np.argsort(-leads[rows], kind="stable")]
    ]


def _confusions(codes: IntArray, wrong: list[WrongNearest]) -> list[ConfusedPair]:
    counts = Counter((int(codes[each.row]), int(codes[each.nearest])) for each in wrong)
    found = []
    rows_of: dict[tuple[int, int], list[int]] = {}
    for each in wrong:
        first, second = sorted(codes[[each.row, each.nearest]].tolist())
        rows_of.setdefault((first, second), []).append(each.row)
    for pair, rows in rows_of.items():
        way, back = sorted((pair, pair[::-1]), key=lambda each: (-counts[each], each))
        found.append(ConfusedPair(*way, counts[way], counts[back], rows))
    return sorted(found, key=lambda each: (-len(each.rows), each.first, each.second))


def _far(
    codes: IntArray, to_class: Float64Array, own: Int64Array, doubted: set[int]
) -> list[FarImage]:
    found = []
    for code in np.flatnonzero(np.bincount(codes) >= FEWEST):
        rows = np.flatnonzero(codes == code)
        cosines = to_class[rows]
        usual = float(np.median(cosines))
        spread = MAD_TO_DEVIATION * float(np.median(np.abs(cosines - usual)))
        far = cosines < usual - FAR * max(spread, 1e-6)
        found += [
            (float((usual - to_class[row]) / max(spread, 1e-6)), int(row), usual)
            for row in rows[far]
            if row not in doubted
        ]
    found.sort(key=lambda each: (-each[0], each[1]))
    return [FarImage(row, int(own[row]), float(to_class[row]), usual) for _, row, usual in found]
