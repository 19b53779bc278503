"""What the nearest images say about a data set: wrong labels, duplicates, classes taken for others.

Everything is read off the nearest images of each image, as `RetrievalMetrics` holds them for a set
that was searched for in itself. Memory is proportional to that table: never images x images.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import FloatArray, IntArray
from deep_ranking.metrics import (
    Interval,
    bootstrap_interval,
    correct_triplets,
    rank_gallery,
    triplet_distances,
)
from deep_ranking.metrics.evaluation import draw_triplets

Labels = npt.NDArray[Any]

NUM_NEIGHBOURS = 30
LARGEST_VOTE = 10
"""No image votes more than this many times what the farthest one does, be it ever so near."""


class Suspect(NamedTuple):
    """An image that is likely mislabelled.

    Attributes:
        row: the image.
        label: its class.
        proposed: the class of most of its nearest images.
        share: of their votes, that class's, above one half.
        witness: row of the nearest image of the proposed class.
    """

    row: int
    label: str
    proposed: str
    share: float
    witness: int


class Duplicate(NamedTuple):
    """Two images of different classes that are hardly different: rows, first < second."""

    first: int
    second: int
    distance: float


class Confusion(NamedTuple):
    """How often the nearest wrong image of a class's images is of one other class.

    Attributes:
        label: the class.
        other: the other class.
        num_images: of how many images it is true.
        share: of the images of the class.
    """

    label: str
    other: str
    num_images: int
    share: float


def likely_mislabelled(
    labels: Labels, neighbours: IntArray, distances: FloatArray, *, limit: int = 30
) -> list[Suspect]:
    """Images most of whose 30 nearest are of one other class.

    The nearest images vote for their classes, each with the weight 1/distance; but none with more
    than ten times the weight of the farthest of them, so that one copy of the image under another
    label (a matter of `duplicates_across_classes`) does not decide alone.

    Args:
        labels: array (images,) of classes.
        neighbours: integer array (images, nearest) of rows, nearest first, the image itself left
            out; columns after the 30th are not looked at.
        distances: float array (images, nearest), not negative.
        limit: how many to give at most.

    Returns:
        Suspects by falling share; of equal shares, the image that comes first.
    """
    neighbours, distances = neighbours[:, :NUM_NEIGHBOURS], distances[:, :NUM_NEIGHBOURS]
    names, codes = np.unique(labels, return_inverse=True)
    found = codes[neighbours]  # (images, nearest)
    farthest = distances.max(axis=1, keepdims=True)
    floors = np.where(farthest > 0, farthest / LARGEST_VOTE, 1)
    weights = 1 / np.maximum(distances, floors)
    votes = np.stack(  # for each neighbour those of its class
        [np.sum(weights * (found == column[:, np.newaxis]), axis=1) for column in found.T], axis=1
    )
    rows = np.arange(len(labels))
    winner = votes.argmax(axis=1)  # of equal votes, the nearest: it is also the witness
    shares = votes[rows, winner] / weights.sum(axis=1)
    proposed = found[rows, winner]
    suspects = np.flatnonzero((proposed != codes) & (shares > 0.5))
    order = suspects[np.argsort(-shares[suspects], kind="stable")][:limit]
    return [
        Suspect(
            int(row),
            str(names[codes[row]]),
            str(names[proposed[row]]),
            float(shares[row]),
            int(neighbours[row, winner[row]]),
        )
        for row in order
    ]


def duplicates_across_classes(
    labels: Labels, neighbours: IntArray, distances: FloatArray, *, below: float, limit: int = 30
) -> list[Duplicate]:
    """Pairs of images of different classes that are nearer than a tiny distance.

    Args:
        labels: array (images,) of classes.
        neighbours: integer array (images, nearest) of rows, the image itself left out. A pair is
            found if either image is among the nearest of the other.
        distances: float array (images, nearest).
        below: the tiny distance; pairs at or above it are no duplicates, but those at 0 always are.
        limit: how many to give at most.

    Returns:
        Each pair once, by rising distance; of equal distances, by the rows.
    """
    tiny = (distances < below) | (distances == 0)
    rows, columns = np.nonzero(tiny & (labels[neighbours] != labels[:, np.newaxis]))
    ends = np.sort(np.stack([rows, neighbours[rows, columns]], axis=1), axis=1)
    near = distances[rows, columns]
    order = np.lexsort([near, ends[:, 1], ends[:, 0]])
    ends, near = ends[order], near[order]
    is_first = np.ones(len(ends), np.bool_)
    is_first[1:] = (ends[1:] != ends[:-1]).any(axis=1)
    ends, near = ends[is_first], near[is_first]
    chosen = np.argsort(near, kind="stable")[:limit]
    return [Duplicate(int(ends[pair, 0]), int(ends[pair, 1]), float(near[pair])) for pair in chosen]


def class_confusions(labels: Labels, neighbours: IntArray, *, limit: int = 15) -> list[Confusion]:
    """Which other class the nearest wrong image is of, counted by class.

    Args:
        labels: array (images,) of classes; classes of one image are left out, since all that is
            near such an image is wrong.
        neighbours: integer array (images, nearest) of rows, nearest first, the image itself left
            out. An image with no wrong one among them counts as confused with no class.
        limit: how many pairs of classes to give at most.

    Returns:
        By falling share; of equal shares the pair of more images, then by name.
    """
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    found = codes[neighbours]
    wrong = found != codes[:, np.newaxis]
    rows = np.flatnonzero(wrong.any(axis=1) & (sizes[codes] > 1))
    others = found[rows, wrong[rows].argmax(axis=1)]
    pairs, counts = np.unique(codes[rows] * len(names) + others, return_counts=True)
    firsts, seconds = np.divmod(pairs, len(names))
    shares = counts / sizes[firsts]
    return [
        Confusion(
            str(names[firsts[pair]]),
            str(names[seconds[pair]]),
            int(counts[pair]),
            float(shares[pair]),
        )
        for pair in np.lexsort([-counts, -shares])[:limit]
    ]


def in_class_negatives(
    classes: Sequence[str], class_means: FloatArray
) -> tuple[list[npt.NDArray[np.int64]], str]:
    """Which classes the hard negatives of each class are of (Wang et al. 2014, section 5).

    The paper's in-class negatives are of the query's category, but unlike it. Where every class is
    named "category/item", they are the other items of the category. Other data sets have no such
    levels: there, they are the one class whose mean is nearest.

    Args:
        classes: names of the classes, each once.
        class_means: float array (classes, dim), mean embedding of each.

    Returns:
        For each class the numbers of the others whose images are in-class negatives, and what
        that is in words.
    """
    if all("/" in name for name in classes):
        categories = np.array([name.rsplit("/", 1)[0] for name in classes])
        _, codes = np.unique(categories, return_inverse=True)
        members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        others = [np.setdiff1d(members[code], [item]) for item, code in enumerate(codes)]
        return others, "of the query's category"
    every = np.arange(len(classes))
    nearest = [
        ranking.order[:, :1].astype(np.int64)
        for ranking in rank_gallery(class_means, class_means, exclude=every, nearest=1)
    ]
    return list(np.concatenate(nearest)), "of the nearest other class"


def precision_over_shares(
    embeddings: FloatArray,
    labels: Labels,
    in_class: Sequence[IntArray],
    shares: Sequence[float],
    *,
    seed: int = 0,
) -> list[Interval] | None:
    """Similarity precision as more and more of the negatives are in-class ones.

    Each query gets ten positives, each with a negative that is in-class and with one that is
    neither that nor of the query's class; the precision at a share is the mean of the two, in that
    proportion.

    Args:
        embeddings: float array (images, dim).
        labels: array (images,) of classes.
        in_class: for each class, in sorted order, the numbers of the classes of its in-class
            negatives, from `in_class_negatives`.
        shares: shares of in-class negatives, 0 to 1.
        seed: decides the triplets and the bootstrap over queries.

    Returns:
        An interval for each share; None if no query has negatives of both kinds.

    Raises:
        InputError: as `draw_triplets`.
    """
    triplets = draw_triplets(labels, seed=seed)
    names, codes = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(seed)
    triplet_classes = codes[triplets[:, 0]]
    negatives = np.full((2, len(triplets)), -1)  # in-class, other; -1: there is none
    by_class = np.argsort(triplet_classes, kind="stable")
    ends = np.cumsum(np.bincount(triplet_classes, minlength=len(names)))
    for code, members in enumerate(np.split(by_class, ends[:-1])):
        kind = np.ones(len(names), np.int64)
        kind[in_class[code]] = 0
        kind[code] = 2
        kinds = kind[codes]
        for number in (0, 1):
            pool = np.flatnonzero(kinds == number)
            if len(pool):
                negatives[number, members] = pool[rng.integers(len(pool), size=len(members))]
    usable = (negatives >= 0).all(axis=0)
    if not usable.any():
        return None
    triplets, negatives = triplets[usable], negatives[:, usable]
    inside, outside = (
        correct_triplets(
            *triplet_distances(embeddings, np.column_stack([triplets[:, :2], chosen]))
        ).astype(np.float64)
        for chosen in negatives
    )
    return [
        bootstrap_interval(share * inside + (1 - share) * outside, seed=seed, groups=triplets[:, 0])
        for share in shares
    ]
