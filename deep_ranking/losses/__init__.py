"""Losses of batches of triplets and of batches of classes, and the metrics that training prints.

A batch of triplets has rows query, positive, negative in turn; its labels are ignored. A batch of
classes has one label a row. The losses do not depend on how a batch was drawn.
"""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

from deep_ranking.losses.batch import BatchLoss
from deep_ranking.losses.loss_from_config import (
    kernel_penalty,
    make_loss,
    make_metrics,
    penalise_kernels,
    ranking_loss,
)
from deep_ranking.losses.ranking import BatchRankingLoss, RankingLoss
from deep_ranking.losses.similarity import (
    MultiSimilarityLoss,
    SoftMarginLoss,
    SupervisedContrastiveLoss,
)

__all__ = [
    "BatchLoss",
    "BatchRankingLoss",
    "MultiSimilarityLoss",
    "RankingLoss",
    "SoftMarginLoss",
    "SupervisedContrastiveLoss",
    "kernel_penalty",
    "make_loss",
    "make_metrics",
    "penalise_kernels",
    "ranking_loss",
]
