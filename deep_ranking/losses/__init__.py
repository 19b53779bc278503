"""Losses of batches of triplets and of batches of classes, and the metrics that training prints.

A batch of triplets has rows query, positive, negative in turn; its labels are ignored. A batch of
classes has one label a row. The losses do not depend on how a batch was drawn.
"""

from deep_ranking.losses.batch import BatchLoss
from deep_ranking.losses.distances import pairwise_distances, row_triplet_distances
from deep_ranking.losses.loss_from_config import (
    kernel_penalty,
    make_loss,
    make_metrics,
    penalise_kernels,
)
from deep_ranking.losses.memory import CrossBatchMemory
from deep_ranking.losses.mining import label_masks, mined_weights
from deep_ranking.losses.monitoring import QUANTITIES, ClassTripletMetric, TripletMetric
from deep_ranking.losses.ranking import BatchRankingLoss, RankingLoss
from deep_ranking.losses.similarity import (
    MultiSimilarityLoss,
    SoftMarginLoss,
    SupervisedContrastiveLoss,
)

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
    "row_triplet_distances",
]
