"""Triplets by relevance, in one pass: Wang et al. 2014, section 6.

With r_ij the relevance of two images and r_i the sum of r_ij over i's category, of every triplet

    the query i is drawn with probability r_i / sum of all r;
    the positive j of its category with probability min(T_p, r_ij) / Z_i;
    the negative, by a share of the triplets, is any image of another category, each as likely;
    otherwise one of the same category, drawn as the positive is, under r_ij - r_in >= T_r.

Images go by once, in an order that the seed gives, and each category keeps a buffer of them, from
which all but the out-of-class negatives are drawn. The paper draws the query uniformly from a
buffer, which took images in proportion to their r, and accepts a positive drawn uniformly with
probability min(1, r_ij / r_j), which undoes that proportion. A proportion it is as long as most of
a category is left out. So that the formulas hold for one that fits into its buffer too, we divide
by the chance p_j to be in the buffer: the query is drawn by r_i / p_i, the positive by
min(T_p, r_ij) / p_j, at once rather than by trial. In long streams p_j is in proportion to r_j, and
this is the paper's. Shares are exact where a category fits, and within a few per cent where it does
not, as the weights of a buffer are divided by their sum in that buffer.

A query that finds no positive with such a negative gives no triplet: where relevances differ by
less than T_r, fewer triplets are in-class than the share says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deep_ranking.config.checks import check_counts, check_share
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, Int32Array, Int64Array, IntArray
from deep_ranking.sampling.pool import Pool
from deep_ranking.sampling.reservoir import Reservoirs
from deep_ranking.sampling.strategy import BLOCK_TRIPLETS, Strategy, generator

IMAGES_AT_ONCE = 1 << 16  # that go by between two draws
TRIPLETS_AT_ONCE = 1 << 21  # that are drawn category by category, each of which is scored once
SCORES_AT_ONCE = 1 << 20
MAX_TRIES = 20  # of a query, to find a positive that has a negative


class Relevance(Protocol):
    """How relevant images are to each other."""

    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Give r_ij, symmetric: float (queries, candidates), 0 or more; of i = j anything."""


@dataclass
class _Tally:
    """What became of the in-class triplets of an epoch, and the widest difference seen."""

    tried: int = 0
    drawn: int = 0
    widest: float = 0.0


class ByRelevance(Strategy):
    """Triplets drawn by relevance.

    Args:
        relevance: r_ij.
        totals: float (images,), r_i; those of 0 are out-of-class negatives only.
        categories: integers (images,).
        triplets_per_image: triplets an epoch, for each image there is.
        cap: T_p, above 0: relevance beyond it makes a positive no likelier.
        gap: T_r, above 0: what the positive is more relevant than an in-class negative, at least.
        out_of_class_share: chance of a negative to be of another category.
        buffer: images kept of each category.
        balance: give every category equally many queries, rather than by its sum of r_i.

    Raises:
        InputError: a value is out of its range, no image is relevant to another, or there is but
            one category and a share of negatives of others.
    """

    def __init__(
        self,
        relevance: Relevance,
        totals: Float64Array,
        categories: IntArray,
        *,
        triplets_per_image: int,
        cap: float = 1.0,
        gap: float = 0.05,
        out_of_class_share: float = 0.2,
        buffer: int = 256,
        balance: bool = False,
    ) -> None:
        check_counts(triplets_per_image=triplets_per_image, buffer=buffer - 1)
        check_share("out_of_class_share", out_of_class_share)
        for name, value in (("relevance_cap", cap), ("relevance_gap", gap)):
            if not value > 0:
                raise InputError(f"{name} must be above 0. Received: {value}")
        self._pool = Pool(categories)
        if out_of_class_share and self._pool.num_items < 2:
            raise InputError(
                "all images are of one category, so there are no negatives of another; give "
                "--out_of_class_share 0"
            )
        self._images = np.flatnonzero(totals > 0)
        if not len(self._images):
            raise InputError("no two images of a category have a relevance above 0")
        self._relevance = relevance
        self._totals = totals
        self._categories = self._pool.item_of(np.arange(len(categories)))
        self._mass = totals.astype(float)
        if balance:
            sums = np.bincount(self._categories, totals)
            self._mass[self._images] /= sums[self._categories[self._images]]
        self._cap = cap
        self._gap = gap
        self._share = out_of_class_share
        self._buffer = buffer
        self._num_triplets = len(totals) * triplets_per_image

    @property
    def num_triplets(self) -> int:
        """How many triplets an epoch gives, if every query finds a positive and a negative."""
        return self._num_triplets

    def triplets(self, seed: int, epoch: int = 0, *, shuffle: bool = False) -> Iterator[Int32Array]:
        """Draw the triplets of one pass over the images.

        Raises:
            InputError: while drawing: no pair of images satisfies the gap.
        """
        rng = generator(seed, epoch)
        tally = _Tally()
        reservoirs = Reservoirs(self._pool.num_items, self._buffer)
        for counts in self._arrivals(rng, reservoirs):
            for share in _parts(rng, counts):
                drawn = [
                    self._draw(rng, reservoirs, category, int(share[category]), tally)
                    for category in np.flatnonzero(share).tolist()
                ]
                rows = np.concatenate(drawn)
                if shuffle:
                    rng.shuffle(rows)
                for begin in range(0, len(rows), BLOCK_TRIPLETS):
                    yield rows[begin : begin + BLOCK_TRIPLETS]
        if tally.tried and not tally.drawn:
            raise InputError(
                f"relevance_gap {self._gap:g}: none of {tally.tried:,} queries has a positive that "
                "is by so much more relevant than another image of its category (the largest "
                f"difference seen is {tally.widest:.3g}); lower --relevance_gap, or give "
                "--out_of_class_share 1"
            )

    def _arrivals(self, rng: np.random.Generator, reservoirs: Reservoirs) -> Iterator[Int64Array]:
        """Let all images go by, and yield now and then how many triplets each category is due."""
        order = rng.permutation(self._images)
        due = np.zeros(self._pool.num_items)
        given, whole = 0.0, self._mass.sum()
        drawn = 0
        for begin in range(0, len(order), IMAGES_AT_ONCE):
            images = order[begin : begin + IMAGES_AT_ONCE]
            categories = self._categories[images]
            reservoirs.add(rng, images, categories, self._totals[images])
            due += np.bincount(categories, self._mass[images], len(due))
            # A category of which one image went by has no positive yet: it is due later.
            now = np.where(np.diff(reservoirs.starts) > 1, due, 0)
            given += now.sum()
            due -= now
            wanted = round(self._num_triplets * min(1.0, given / whole)) - drawn
            if wanted > 0:
                drawn += wanted
                yield rng.multinomial(wanted, now / now.sum())

    def _draw(
        self,
        rng: np.random.Generator,
        reservoirs: Reservoirs,
        category: int,
        count: int,
        tally: _Tally,
    ) -> Int32Array:
        """Draw triplets of a category: int32 (count or fewer, 3)."""
        images = reservoirs.images[reservoirs.starts[category] : reservoirs.starts[category + 1]]
        inclusion = reservoirs.inclusion(category)
        weights = np.cumsum(self._totals[images] / inclusion)
        drawn = np.searchsorted(weights, rng.random(count) * weights[-1], side="right")
        drawn = np.sort(np.minimum(drawn, len(images) - 1))
        rows, row = np.unique(drawn, return_inverse=True)
        step = max(1, SCORES_AT_ONCE // len(images))
        parts = []
        for begin in range(0, len(rows), step):
            some = rows[begin : begin + step]
            scores = np.array(self._relevance.scores(images[some], images), float)
            scores[np.arange(len(some)), some] = 0  # an image is no positive of itself
            table = _Candidates(scores, np.minimum(scores, self._cap) / inclusion)
            here = row[np.searchsorted(row, begin) : np.searchsorted(row, begin + step)] - begin
            found, positive, negative = self._pairs(rng, table, here, tally)
            outside = negative < 0
            negatives = images[negative]
            negatives[outside] = self._others(rng, images[0], int(outside.sum()))
            parts.append(np.column_stack([images[some[found]], images[positive], negatives]))
        return np.concatenate(parts).astype(np.int32)

    def _pairs(
        self, rng: np.random.Generator, table: "_Candidates", rows: Int64Array, tally: _Tally
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Draw a positive and a negative for each of some rows; -1 stands for out-of-class.

        The paper tries an image several times before it gives it up: so with a query whose
        positive has no in-class negative that is by T_r less relevant.
        """
        positive = np.full(len(rows), -1)
        negative = np.full(len(rows), -1)
        inside = rng.random(len(rows)) >= self._share
        has_positive = table.totals[rows] > 0
        done = ~inside & has_positive
        positive[done] = table.order[rows[done], table.draw(rng, rows[done])]
        todo = np.flatnonzero(inside & has_positive)
        tally.tried += int(inside.sum())
        tally.widest = max(tally.widest, table.widest)
        for _ in range(MAX_TRIES):
            if not len(todo):
                break
            place = table.draw(rng, rows[todo])
            limits = table.limits(rows[todo], place, self._gap)
            chosen = table.draw(rng, rows[todo], limits)
            good = chosen >= 0
            hit = todo[good]
            positive[hit] = table.order[rows[hit], place[good]]
            negative[hit] = table.order[rows[hit], chosen[good]]
            done[hit] = True
            tally.drawn += len(hit)
            todo = todo[~good]
        return rows[done], positive[done], negative[done]

    def _others(self, rng: np.random.Generator, image: int, count: int) -> Int64Array:
        """Draw images of other categories than an image's, each as likely."""
        start, size = (int(each[0]) for each in self._pool.items(np.array([image])))
        if not count:
            return np.empty(0, np.int64)
        number = rng.integers(0, len(self._pool) - size, count)
        return self._pool.images[number + np.where(number >= start, size, 0)]


class _Candidates:
    """Candidates of some queries, the least relevant first, to draw from by weight.

    Args:
        scores: float (rows, candidates), relevance to the query of the row.
        weights: float (rows, candidates), above 0 where the score is.

    Attributes:
        order: int64 (rows, candidates), candidates by rising score.
        totals: float (rows,), sums of weights.
        widest: the largest difference between two scores above 0 of a row.
    """

    def __init__(self, scores: Float64Array, weights: Float64Array) -> None:
        self.order = np.argsort(scores, axis=1, kind="stable")
        self._scores = np.take_along_axis(scores, self.order, axis=1)
        sums = np.cumsum(np.take_along_axis(weights, self.order, axis=1), axis=1)
        self.totals = sums[:, -1]
        # Row i as numbers from i to i + 1, all in one line: one search finds a place in any row.
        self._shares = sums / np.where(self.totals > 0, self.totals, 1)[:, None]
        self._line = (self._shares + np.arange(len(sums))[:, None]).ravel()
        least = np.where(self._scores > 0, self._scores, np.inf).min(axis=1)
        self.widest = float(np.max(self._scores[:, -1] - least, initial=0.0))

    def draw(
        self, rng: np.random.Generator, rows: Int64Array, limits: Int64Array | None = None
    ) -> Int64Array:
        """Draw a place of each row by its weight, below the limit; -1 if no weight lies there."""
        width = self.order.shape[1]
        if limits is None:
            limits = np.full(len(rows), width)
        highest = np.where(limits > 0, self._shares[rows, limits - 1], 0)
        number = np.searchsorted(self._line, rows + rng.random(len(rows)) * highest, side="right")
        place = np.minimum(number - rows * width, limits - 1)  # rounding may have led beyond
        return np.where(highest > 0, place, -1)

    def limits(self, rows: Int64Array, places: Int64Array, gap: float) -> Int64Array:
        """Give how many candidates of a row are less relevant, by the gap, than that at a place."""
        counts = np.empty(len(rows), np.int64)
        step = max(1, SCORES_AT_ONCE // self.order.shape[1])
        for begin in range(0, len(rows), step):
            row = rows[begin : begin + step]
            lead = self._scores[row, places[begin : begin + step], None] - self._scores[row]
            counts[begin : begin + step] = np.count_nonzero(lead >= gap, axis=1)
        return counts


def _parts(rng: np.random.Generator, counts: Int64Array) -> Iterator[Int64Array]:
    """Split counts into random parts, each of which sums to `TRIPLETS_AT_ONCE` at most."""
    left = counts.copy()
    while remaining := int(left.sum()):
        part = left
        if remaining > TRIPLETS_AT_ONCE:
            part = rng.multivariate_hypergeometric(left, TRIPLETS_AT_ONCE, method="marginals")
        yield part
        left = left - part
