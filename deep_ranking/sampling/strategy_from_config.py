"""SamplingConfig and images -> the strategy that draws their triplets."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from deep_ranking.config import HARD, IN_CLASS, OUT_OF_CLASS, RELEVANCE, SamplingConfig
from deep_ranking.datasets import LabelledImages
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, Int32Array, IntArray
from deep_ranking.sampling.by_relevance import ByRelevance
from deep_ranking.sampling.drawing import Pool
from deep_ranking.sampling.negatives import HardNegatives, InClassNegatives, OutOfClassNegatives
from deep_ranking.sampling.positives import GivenPositives, SameItemPositives
from deep_ranking.sampling.relevance import Relevance, open_relevance
from deep_ranking.sampling.strategy import ByQuery, Partners, Positives, Strategy


@contextmanager
def open_strategy(
    config: SamplingConfig,
    data: LabelledImages,
    *,
    seed: int,
    relevance: str | None = None,
    weights: str | None = "imagenet",
    neighbours_of: Path | None = None,
    skip_broken: bool = False,
) -> Iterator[Strategy]:
    """Yield a strategy for labelled images, with the relevance or the neighbours that it needs.

    Args:
        config: which strategy, and its settings.
        data: the images.
        seed: decides which images stand for a large category in its sum of relevance.
        relevance: how relevant images are to each other, as `open_relevance` reads it, for strategy
            `relevance`; open until the block ends.
        weights: weights of the backbone, for relevance by the untrained backbone.
        neighbours_of: model file, or folder of an index that has the images, that finds neighbours
            for strategy `hard`.
        skip_broken: leave an unreadable image out, instead of stopping.

    Raises:
        InputError: the images do not give such triplets, or cannot be read.
    """
    items = data.items.codes
    categories = None if data.categories is None else data.categories.codes
    scored = neighbours = None
    with ExitStack() as opened:
        if config.strategy == RELEVANCE and relevance is not None:
            measure = opened.enter_context(
                open_relevance(relevance, data, weights=weights, skip_broken=skip_broken)
            )
            scored = measure, measure.totals(items if categories is None else categories, seed)
        if config.strategy == HARD and neighbours_of is not None:
            from deep_ranking.search.neighbours import find_neighbours

            neighbours = find_neighbours(
                data, config.num_neighbours, neighbours_of, skip_broken=skip_broken
            )
        yield make_strategy(
            config,
            items,
            categories=categories,
            pairs=data.pairs,
            relevance=scored,
            neighbours=neighbours,
        )


def make_strategy(
    config: SamplingConfig,
    items: IntArray,
    *,
    categories: IntArray | None = None,
    pairs: IntArray | None = None,
    relevance: tuple[Relevance, Float64Array] | None = None,
    neighbours: IntArray | None = None,
) -> Strategy:
    """Return the strategy for images given as arrays.

    Args:
        config: which strategy, and its settings.
        items: integers (images,), class or item of each image.
        categories: integers (images,), category of each image.
        pairs: integers (pairs, 2), queries and their given positives; negatives are drawn from
            these positives too. None draws both from all images.
        relevance: r_ij and r_i, for strategy `relevance`.
        neighbours: integers (images, K), as in `HardNegatives`, for strategy `hard`.

    Raises:
        InputError: the images do not give such triplets.
    """
    if config.strategy == RELEVANCE:
        if relevance is None or pairs is not None:
            raise InputError("strategy relevance needs --relevance, and no given pairs")
        return ByRelevance(
            *relevance,
            items if categories is None else categories,
            triplets_per_image=config.num_pos_images * config.num_neg_images,
            cap=config.relevance_cap,
            gap=config.relevance_gap,
            out_of_class_share=config.share,
            buffer=config.buffer,
            balance=config.balance,
        )
    count = config.num_neg_images
    pool = Pool(items, categories, None if pairs is None else np.unique(pairs[:, 1]))
    negatives: Partners
    if config.strategy == HARD:
        if neighbours is None:
            raise InputError("strategy hard needs neighbours: give --model or --index")
        negatives = HardNegatives(neighbours, items, count)
    elif config.strategy == IN_CLASS or (config.strategy is None and pairs is not None):
        if categories is None and pairs is None:
            raise InputError(
                "strategy in-class needs categories: folders category/item/image, a column "
                "category, or --level"
            )
        negatives = InClassNegatives(
            pool, count, out_of_class_share=config.share, any_item=pairs is not None
        )
    else:
        negatives = OutOfClassNegatives(pool, count)
    positives: Positives
    if pairs is None:
        positives = SameItemPositives(pool, config.num_pos_images)
    else:
        positives = GivenPositives(pairs, config.num_pos_images)
    return ByQuery(positives, negatives, balanced_items=items if config.balance else None)


def any_negatives(config: SamplingConfig) -> SamplingConfig:
    """Return settings that draw as many triplets as `hard`, with any negatives of other classes.

    They stand in for strategy `hard` where the nearest images are not known.
    """
    most = min(config.num_neg_images, config.num_neighbours)
    return replace(config, strategy=OUT_OF_CLASS, num_neg_images=most)


def sample_triplets(
    labels: IntArray, *, num_positives: int, num_negatives: int, seed: int
) -> Iterator[Int32Array]:
    """Sample triplets of images by the blog's rule, in order of their queries.

    Args:
        labels: integers (images,), not decreasing, so that images of a class are together.
        num_positives: positives drawn for each query, 1 or more.
        num_negatives: negatives drawn for each (query, positive) pair, 1 or more.
        seed: the same seed gives the same triplets.

    Yields:
        int32 (triplets, 3): indices of query, positive and negative. The time for a triplet does
        not depend on the number of images; memory is the labels and one block of bounded size.

    Example:
        >>> blocks = sample_triplets([0, 0, 1], num_positives=1, num_negatives=1, seed=0)
        >>> [block.tolist() for block in blocks]
        [[[0, 1, 2], [1, 0, 2]]]

    Raises:
        InputError: there are fewer than two classes, no class has two images, or a count is
            below 1.
        ValueError: the labels decrease somewhere.
    """
    labels = np.asarray(labels)
    if np.any(labels[1:] < labels[:-1]):
        raise ValueError("labels must not decrease: sort the images by class")
    pool = Pool(labels)
    negatives = OutOfClassNegatives(pool, num_negatives)
    return ByQuery(SameItemPositives(pool, num_positives), negatives).triplets(seed)
