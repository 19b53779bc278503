"""Which triplets: index triplets (query, positive, negative) from labels and a seed.

NumPy only. Relevance and neighbours come in as arguments: no model, no index, no file in here.
"""

from deep_ranking.sampling.by_relevance import ByRelevance, Relevance
from deep_ranking.sampling.class_batches import ClassBatches
from deep_ranking.sampling.drawing import draw_distinct
from deep_ranking.sampling.hard import Nearest
from deep_ranking.sampling.in_class import SameCategory
from deep_ranking.sampling.out_of_class import OtherClasses, sample_triplets
from deep_ranking.sampling.pool import Pool
from deep_ranking.sampling.positives import GivenPositives, SameItem
from deep_ranking.sampling.reservoir import Reservoirs
from deep_ranking.sampling.strategy import ByQuery, Strategy
from deep_ranking.sampling.strategy_from_config import make_strategy

__all__ = [
    "ByQuery",
    "ByRelevance",
    "ClassBatches",
    "GivenPositives",
    "Nearest",
    "OtherClasses",
    "Pool",
    "Relevance",
    "Reservoirs",
    "SameCategory",
    "SameItem",
    "Strategy",
    "draw_distinct",
    "make_strategy",
    "sample_triplets",
]
