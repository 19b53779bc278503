"""Which strategy, by its settings."""

import numpy as np

from deep_ranking.config import HARD, IN_CLASS, RELEVANCE, SamplingConfig
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, IntArray
from deep_ranking.sampling.by_relevance import ByRelevance, Relevance
from deep_ranking.sampling.hard import Nearest
from deep_ranking.sampling.in_class import SameCategory
from deep_ranking.sampling.out_of_class import OtherClasses
from deep_ranking.sampling.pool import Pool
from deep_ranking.sampling.positives import GivenPositives, SameItem
from deep_ranking.sampling.strategy import (
    ByQuery,
    Negatives,
    Positives,
    Strategy,
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
    """Make a strategy for some images.

    Args:
        config: which, and its settings.
        items: integers (images,), class or item of each image.
        categories: integers (images,), what the items are one of.
        pairs: integers (pairs, 2), queries and the positives given for them, which are also the
            images that negatives are drawn from; None for all images of an item.
        relevance: r_ij and r_i, for `relevance`.
        neighbours: integers (images, K), for `hard`.

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
    if pairs is None:
        pool = Pool(items, categories)
    else:
        pool = Pool(items, categories, np.unique(pairs[:, 1]))
    negatives: Negatives
    if config.strategy != HARD:
        negatives = _negatives(config, pool, categories is not None, has_pairs=pairs is not None)
    elif neighbours is not None:
        negatives = Nearest(neighbours, items, config.num_neg_images)
    else:
        raise InputError("strategy hard needs neighbours: give --model or --index")
    positives: Positives
    if pairs is None:
        positives = SameItem(pool, config.num_pos_images)
    else:
        positives = GivenPositives(pairs, config.num_pos_images)
    return ByQuery(positives, negatives, balanced_items=items if config.balance else None)


def _negatives(
    config: SamplingConfig, pool: Pool, has_categories: bool, *, has_pairs: bool
) -> Negatives:
    count = config.num_neg_images
    if config.strategy == IN_CLASS or (config.strategy is None and has_pairs):
        if not has_categories and not has_pairs:
            raise InputError(
                "strategy in-class needs categories: folders category/item/image, a column "
                "category, or --level"
            )
        return SameCategory(pool, count, out_of_class_share=config.share, any_item=has_pairs)
    return OtherClasses(pool, count)
