"""Triplets of images (query, positive, negative): which to draw, and the file that holds them.

`strategy` combines `positives` and `negatives`; `by_relevance` draws both together.
"""

from deep_ranking.sampling.by_relevance import ByRelevance
from deep_ranking.sampling.class_batches import ClassBatches
from deep_ranking.sampling.strategy import Strategy
from deep_ranking.sampling.strategy_from_config import (
    any_negatives,
    make_strategy,
    open_strategy,
    sample_triplets,
)

__all__ = [
    "ByRelevance",
    "ClassBatches",
    "Strategy",
    "any_negatives",
    "make_strategy",
    "open_strategy",
    "sample_triplets",
]
