"""Losses of batches of triplets and of batches of classes, and what is shown beside them.

Batches of triplets have rows query, positive, negative in turn, and labels that nobody looks at;
batches of classes have one label a row. Nothing here needs to know how a batch came about.
"""

from deep_ranking.losses.batch import BatchLoss, BatchRankingLoss
from deep_ranking.losses.loss_from_config import make_loss, make_metrics
from deep_ranking.losses.memory import CrossBatchMemory
from deep_ranking.losses.mining import label_masks, mined_weights, pairwise_distances
from deep_ranking.losses.monitoring import QUANTITIES, ClassTripletMetric, TripletMetric
from deep_ranking.losses.penalty import kernel_penalty, penalise_kernels
from deep_ranking.losses.similarity import (
    MultiSimilarityLoss,
    SoftMarginLoss,
    SupervisedContrastiveLoss,
)
from deep_ranking.losses.triplet_rows import RankingLoss, triplet_distances

__all__ = [
    "QUANTITIES",
    "BatchLoss",
    "BatchRankingLoss",
    "ClassTripletMetric",
    "CrossBatchMemory",
    "MultiSimilarityLoss",
    "RankingLoss",
    "SoftMarginLoss",
    "SupervisedContrastiveLoss",
    "TripletMetric",
    "kernel_penalty",
    "label_masks",
    "make_loss",
    "make_metrics",
    "mined_weights",
    "pairwise_distances",
    "penalise_kernels",
    "triplet_distances",
]
