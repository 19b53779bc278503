"""Strategy `relevance`: triplets in one pass over the images (Wang et al. 2014, section 6).

r_ij is the relevance of two images, and r_i the sum of r_ij over i's category. In each triplet

    the query i is drawn with probability r_i / sum of all r;
    the positive j, of the same category, is drawn with probability min(T_p, r_ij) / Z_i;
    in a share of the triplets, the negative is any image of another category, each equally likely;
    in all others, it is an image n of the same category, drawn like the positive among those with
    r_ij - r_in >= T_r.

The seed decides the order of the images. Each category keeps a buffer of the images so far, and all
but the out-of-class negatives are drawn from buffers.

We depart from the paper in one step. Its buffer takes images in proportion to their r. It draws the
query uniformly from the buffer, and accepts a uniformly drawn positive with probability
min(1, r_ij / r_j), which cancels that proportion. But the proportion holds only while most of a
category is left out. To make the formulas hold for a category that fits into its buffer too, we
divide by the probability p_j of being in the buffer: the query is drawn by r_i / p_i, and the
positive by min(T_p, r_ij) / p_j, directly and not by trial. In long streams p_j is proportional to
r_j, so both ways agree. Shares are exact where a category fits, and within a few per cent where it
does not, because the weights of a buffer are divided by their sum in that buffer.

A query gives no triplet if no positive with such a negative is found. Where relevances differ by
less than T_r, fewer triplets are in-class than the share says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deep_ranking.config.base import check_counts, check_positive, check_range
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, Int32Array, Int64Array, IntArray
from deep_ranking.sampling.drawing import Pool
from deep_ranking.sampling.relevance import Relevance
from deep_ranking.sampling.reservoir import Reservoirs
from deep_ranking.sampling.strategy import BLOCK_TRIPLETS, Strategy, generator

IMAGES_AT_ONCE = 1 << 16  # added to the buffers between two draws
TRIPLETS_AT_ONCE = 1 << 21  # drawn category by category, scoring each category once
SCORES_AT_ONCE = 1 << 20
MAX_TRIES = 20  # for a query, to find a positive that has a negative


@dataclass
class _Counts:
    """In-class triplets of an epoch, tried and drawn, and the widest difference of relevance."""

    tried: int = 0
    drawn: int = 0
    widest: float = 0.0


class ByRelevance(Strategy):
    """Draws triplets by relevance.

    Args:
        relevance: r_ij.
        totals: float (images,), r_i; images with 0 become out-of-class negatives only.
        categories: integers (images,).
        triplets_per_image: triplets in an epoch, divided by the number of images.
        cap: T_p, above 0: relevance above it makes a positive no more likely.
        gap: T_r, above 0: least lead of a positive in relevance over an in-class negative.
        out_of_class_share: probability that a negative is of another category.
        buffer: images kept of each category, 2 or more.
        balance: draw as many queries from every category, instead of by its sum of r_i.

    Raises:
        InputError: a value is out of its range, no image is relevant to another, or
            `out_of_class_share` is above 0 and there is only one category.
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
        check_counts(triplets_per_image=triplets_per_image)
        check_counts(low=2, buffer=buffer)
        check_range("out_of_class_share", out_of_class_share, 0, 1)
        check_positive(relevance_cap=cap, relevance_gap=gap)
        self._pool = Pool(categories)
        if out_of_class_share and self._pool.num_items < 2:
            raise InputError(
                "all images are of one category, so there are no negatives of another category; "
                "give --out_of_class_share 0"
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
        """Number of triplets in an epoch, if every query finds a positive and a negative."""
        return self._num_triplets

    def triplets(self, seed: int, epoch: int = 0, *, shuffle: bool = False) -> Iterator[Int32Array]:
        """Draw the triplets of one pass over the images.

        Raises:
            InputError: while drawing: no pair of images satisfies the gap.
        """
        rng = generator(seed, epoch)
        counts = _Counts()
        reservoirs = Reservoirs(self._pool.num_items, self._buffer)
        for due in self._add_images(rng, reservoirs):
            for part in _parts(rng, due):
                drawn = [
                    self._draw(rng, reservoirs, category, int(part[category]), counts)
                    for category in np.flatnonzero(part).tolist()
                ]
                rows = np.concatenate(drawn)
                if shuffle:
                    rng.shuffle(rows)
                for begin in range(0, len(rows), BLOCK_TRIPLETS):
                    yield rows[begin : begin + BLOCK_TRIPLETS]
        if counts.tried and not counts.drawn:
            raise InputError(
                f"relevance_gap {self._gap:g}: none of {counts.tried:,} queries has a positive "
                "this much more relevant than another image of its category (the largest "
                f"difference seen is {counts.widest:.3g}); lower --relevance_gap, or give "
                "--out_of_class_share 1"
            )

    def _add_images(self, rng: np.random.Generator, reservoirs: Reservoirs) -> Iterator[Int64Array]:
        """Add all images in blocks; yield after a block how many triplets to draw by category."""
        order = rng.permutation(self._images)
        due = np.zeros(self._pool.num_items)
        given, whole = 0.0, self._mass.sum()
        drawn = 0
        for begin in range(0, len(order), IMAGES_AT_ONCE):
            images = order[begin : begin + IMAGES_AT_ONCE]
            categories = self._categories[images]
            reservoirs.add(rng, images, categories, self._totals[images])
            due += np.bincount(categories, self._mass[images], len(due))
            # A category with a single image so far has no positive yet: its triplets come later.
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
        counts: _Counts,
    ) -> Int32Array:
        """Draw triplets with queries of a category: int32 (count or fewer, 3)."""
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
            scores[np.arange(len(some)), some] = 0  # an image is not its own positive
            table = _Candidates(scores, np.minimum(scores, self._cap) / inclusion)
            here = row[np.searchsorted(row, begin) : np.searchsorted(row, begin + step)] - begin
            found, positive, negative = self._pairs(rng, table, here, counts)
            outside = negative < 0
            negatives = images[negative]
            negatives[outside] = self._out_of_class(rng, images[0], int(outside.sum()))
            parts.append(np.column_stack([images[some[found]], images[positive], negatives]))
        return np.concatenate(parts).astype(np.int32)

    def _pairs(
        self, rng: np.random.Generator, table: "_Candidates", rows: Int64Array, counts: _Counts
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Draw a positive and a negative for each row; -1 means an out-of-class negative.

        The paper tries an image several times before it drops it. Likewise, redraw the positive of
        a query if it has no in-class negative at least T_r less relevant.
        """
        positive = np.full(len(rows), -1)
        negative = np.full(len(rows), -1)
        inside = rng.random(len(rows)) >= self._share
        has_positive = table.totals[rows] > 0
        done = ~inside & has_positive
        positive[done] = table.order[rows[done], table.draw(rng, rows[done])]
        todo = np.flatnonzero(inside & has_positive)
        counts.tried += int(inside.sum())
        counts.widest = max(counts.widest, table.widest)
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
            counts.drawn += len(hit)
            todo = todo[~good]
        return rows[done], positive[done], negative[done]

    def _out_of_class(self, rng: np.random.Generator, image: int, count: int) -> Int64Array:
        """Draw images of other categories than an image's, each equally likely."""
        start, size = (int(each[0]) for each in self._pool.item_ranges(np.array([image])))
        if not count:
            return np.empty(0, np.int64)
        number = rng.integers(0, len(self._pool) - size, count)
        return self._pool.images[number + np.where(number >= start, size, 0)]


class _Candidates:
    """Candidates of some queries, least relevant first, to draw from by weight.

    Args:
        scores: float (rows, candidates), relevance to the row's query.
        weights: float (rows, candidates), above 0 where the score is above 0.

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
        # Row i holds numbers from i to i + 1, all rows in one line: one search serves every row.
        self._shares = sums / np.where(self.totals > 0, self.totals, 1)[:, None]
        self._line = (self._shares + np.arange(len(sums))[:, None]).ravel()
        least = np.where(self._scores > 0, self._scores, np.inf).min(axis=1)
        self.widest = float(np.max(self._scores[:, -1] - least, initial=0.0))

    def draw(
        self, rng: np.random.Generator, rows: Int64Array, limits: Int64Array | None = None
    ) -> Int64Array:
        """Draw a place below the limit in each row by weight; -1 if there is no weight below it."""
        width = self.order.shape[1]
        if limits is None:
            limits = np.full(len(rows), width)
        highest = np.where(limits > 0, self._shares[rows, limits - 1], 0)
        number = np.searchsorted(self._line, rows + rng.random(len(rows)) * highest, side="right")
        place = np.minimum(number - rows * width, limits - 1)  # rounding may exceed it
        return np.where(highest > 0, place, -1)

    def limits(self, rows: Int64Array, places: Int64Array, gap: float) -> Int64Array:
        """Return how many candidates of a row are less relevant than that at a place, by `gap`."""
        counts = np.empty(len(rows), np.int64)
        step = max(1, SCORES_AT_ONCE // self.order.shape[1])
        for begin in range(0, len(rows), step):
            row = rows[begin : begin + step]
            lead = self._scores[row, places[begin : begin + step], None] - self._scores[row]
            counts[begin : begin + step] = np.count_nonzero(lead >= gap, axis=1)
        return counts


def _parts(rng: np.random.Generator, counts: Int64Array) -> Iterator[Int64Array]:
    """Split counts into random parts with a sum of at most `TRIPLETS_AT_ONCE` each."""
    left = counts.copy()
    while remaining := int(left.sum()):
        part = left
        if remaining > TRIPLETS_AT_ONCE:
            part = rng.multivariate_hypergeometric(left, TRIPLETS_AT_ONCE, method="marginals")
        yield part
        left = left - part
