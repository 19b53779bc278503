"""How well a model orders hard negatives, those of similar classes, compared with easy ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import FloatArray, Int64Array, IntArray
from deep_ranking.metrics import (
    Interval,
    bootstrap_interval,
    correct_triplets,
    rank_gallery,
    triplet_distances,
)
from deep_ranking.metrics.evaluation import draw_triplets


def in_class_negatives(
    classes: Sequence[str], class_means: FloatArray
) -> tuple[list[Int64Array], str]:
    """Return the classes of the hard negatives of each class (Wang et al. 2014, section 5).

    The paper's in-class negatives share the query's category but look different. Where every class
    is named "category/item", they are the other items of the category. Other data sets have no
    categories: there, they are the class with the nearest mean.

    Args:
        classes: names of the classes, each once.
        class_means: float array (classes, dim), mean embedding of each.

    Returns:
        For each class the numbers of the classes of its in-class negatives; and a description of
        these, such as "of the query's category".
    """
    every = np.arange(len(classes))
    if all("/" in name for name in classes):
        categories = np.array([name.rsplit("/", 1)[0] for name in classes])
        codes = np.unique(categories, return_inverse=True)[1]
        others = [np.flatnonzero((codes == codes[item]) & (every != item)) for item in every]
        return others, "of the query's category"
    ranked = rank_gallery(class_means, class_means, exclude=every, nearest=1)
    nearest = np.concatenate([ranking.order[:, :1].astype(np.int64) for ranking in ranked])
    return list(nearest), "of the nearest other class"


def precision_over_shares(
    embeddings: FloatArray,
    labels: npt.NDArray[Any],
    in_class: Sequence[IntArray],
    shares: Sequence[float],
    *,
    seed: int = 0,
) -> list[Interval] | None:
    """Return the similarity precision at rising shares of in-class negatives.

    Each query gets ten positives, each with two negatives: an in-class one, and one that is neither
    in-class nor of the query's class. The precision at a share is the mean over both kinds,
    weighted by the share.

    Args:
        embeddings: float array (images, dim).
        labels: array (images,) of classes.
        in_class: first result of `in_class_negatives` for the sorted classes.
        shares: shares of in-class negatives, 0 to 1.
        seed: seed of the triplets and of the bootstrap over queries.

    Returns:
        An interval for each share; None if no query has negatives of both kinds.

    Raises:
        InputError: as `draw_triplets`.
    """
    triplets = draw_triplets(labels, seed=seed)
    names, codes = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(seed)
    triplet_classes = codes[triplets[:, 0]]
    negatives = np.full((2, len(triplets)), -1)  # in-class, other; -1 for none
    by_class = np.argsort(triplet_classes, kind="stable")
    ends = np.cumsum(np.bincount(triplet_classes, minlength=len(names)))
    for code, members in enumerate(np.split(by_class, ends[:-1])):
        is_in_class = np.isin(codes, in_class[code])
        for number, pool in enumerate((is_in_class, ~is_in_class & (codes != code))):
            if pool.any():
                chosen = rng.integers(np.count_nonzero(pool), size=len(members))
                negatives[number, members] = np.flatnonzero(pool)[chosen]
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
