"""Which strategy, by its settings."""

from dataclasses import dataclass, field

import numpy as np

from deep_ranking.errors import InputError
from deep_ranking.sampling.hard import Nearest
from deep_ranking.sampling.in_class import SameCategory
from deep_ranking.sampling.out_of_class import OtherClasses
from deep_ranking.sampling.pool import Integers, Pool
from deep_ranking.sampling.positives import GivenPositives, SameItem
from deep_ranking.sampling.relevance import ByRelevance, Relevance
from deep_ranking.sampling.reservoir import Float64Array
from deep_ranking.sampling.strategy import (
    ByQuery,
    Negatives,
    Positives,
    Strategy,
    check_counts,
    check_share,
)

OUT_OF_CLASS, IN_CLASS, RELEVANCE, HARD = "out-of-class", "in-class", "relevance", "hard"
STRATEGIES = (OUT_OF_CLASS, IN_CLASS, RELEVANCE, HARD)
OUT_OF_CLASS_SHARES = {IN_CLASS: 0.0, RELEVANCE: 0.2}


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How triplets are drawn.

    Raises:
        InputError: a value is out of its range.
    """

    num_pos_images: int = field(
        default=10, metadata={"help": "positives for each image, at most (relevance: on average)"}
    )
    num_neg_images: int = field(
        default=50,
        metadata={
            "help": "negatives for each pair of an image and a positive, at most (relevance: "
            "triplets for each positive)"
        },
    )
    strategy: str | None = field(
        default=None,
        metadata={
            "help": "negatives: out-of-class, images of all other classes; in-class, other items "
            "of the same category (folders: category/.../item/image); relevance, all three by how "
            "relevant images are to each other (Wang et al. 2014); hard, the nearest images of "
            "other classes (default: out-of-class; with given pairs, in-class where a category "
            "has other items)",
            "choices": STRATEGIES,
        },
    )
    out_of_class_share: float | None = field(
        default=None,
        metadata={
            "help": "share of negatives of other categories, with in-class (default: 0) and "
            "relevance (default: 0.2)",
            "metavar": "SHARE",
        },
    )
    relevance_cap: float = field(
        default=1.0,
        metadata={"help": "T_p: relevance above it makes a positive no likelier", "metavar": "T"},
    )
    relevance_gap: float = field(
        default=0.05,
        metadata={
            "help": "T_r: a positive is by so much more relevant than an in-class negative",
            "metavar": "T",
        },
    )
    buffer: int = field(
        default=256,
        metadata={"help": "relevance: images of each category that are drawn from at a time"},
    )
    num_neighbours: int = field(
        default=50, metadata={"help": "hard: nearest images of other classes to draw from"}
    )
    balance: bool = field(
        default=False,
        metadata={"help": "every class gives equally many queries, images of small ones again"},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        names = ("num_pos_images", "num_neg_images", "num_neighbours")
        check_counts(**{name: getattr(self, name) for name in names})
        if self.buffer < 2:
            raise InputError(f"buffer must be 2 or more. Received: {self.buffer}")
        if self.strategy not in (None, *STRATEGIES):
            raise InputError(
                f"strategy must be one of {', '.join(STRATEGIES)}. Received: {self.strategy}"
            )
        for name in ("relevance_cap", "relevance_gap"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0. Received: {getattr(self, name)}")
        if self.out_of_class_share is not None:
            check_share("out_of_class_share", self.out_of_class_share)
            if self.strategy not in OUT_OF_CLASS_SHARES:
                raise InputError("out_of_class_share needs strategy in-class or relevance")

    @property
    def share(self) -> float:
        """Share of negatives of other categories."""
        if self.out_of_class_share is not None:
            return self.out_of_class_share
        return OUT_OF_CLASS_SHARES.get(self.strategy or "", 0.0)


def make_strategy(
    config: SamplingConfig,
    items: Integers,
    *,
    categories: Integers | None = None,
    pairs: Integers | None = None,
    relevance: tuple[Relevance, Float64Array] | None = None,
    neighbours: Integers | None = None,
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
