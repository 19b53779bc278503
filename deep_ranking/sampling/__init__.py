"""Triplets of images (query, positive, negative): which to draw, and the file that holds them.

`out_of_class`, `in_class`, `by_relevance` and `hard` are the strategies, one module each.
"""

from deep_ranking.sampling.by_relevance import ByRelevance
from deep_ranking.sampling.class_batches import ClassBatches
from deep_ranking.sampling.drawing import draw_distinct
from deep_ranking.sampling.hard import HardNegatives
from deep_ranking.sampling.in_class import InClassNegatives
from deep_ranking.sampling.out_of_class import OutOfClassNegatives, sample_triplets
from deep_ranking.sampling.pool import Pool
from deep_ranking.sampling.positives import GivenPositives, SameItemPositives
from deep_ranking.sampling.relevance import Relevance
from deep_ranking.sampling.reservoir import Reservoirs
from deep_ranking.sampling.strategy import ByQuery, Strategy
from deep_ranking.sampling.strategy_from_config import any_negatives, make_strategy, open_strategy

__all__ = [
    "ByQuery",
    "ByRelevance",
    "ClassBatches",
    "GivenPositives",
    "HardNegatives",
    "InClassNegatives",
    "OutOfClassNegatives",
    "Pool",
    "Relevance",
    "Reservoirs",
    "SameItemPositives",
    "Strategy",
    "any_negatives",
    "draw_distinct",
    "make_strategy",
    "open_strategy",
    "sample_triplets",
]
