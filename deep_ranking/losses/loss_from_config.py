"""The loss, and what is shown beside it, that the settings ask for."""

import keras

from deep_ranking.config import LossConfig
from deep_ranking.files import InputError
from deep_ranking.losses.batch import BatchRankingLoss
from deep_ranking.losses.monitoring import QUANTITIES, ClassTripletMetric, TripletMetric
from deep_ranking.losses.similarity import (
    MultiSimilarityLoss,
    SimilarityLoss,
    SoftMarginLoss,
    SupervisedContrastiveLoss,
)
from deep_ranking.losses.triplet_rows import RankingLoss

SIMILARITY_LOSSES: dict[str, type[SimilarityLoss]] = {
    "soft_margin": SoftMarginLoss,
    "supervised_contrastive": SupervisedContrastiveLoss,
    "multi_similarity": MultiSimilarityLoss,
}


def make_loss(config: LossConfig, batches: str, embedding_size: int) -> keras.losses.Loss:
    """Make the loss.

    Args:
        config: the settings.
        batches: "triplets" for batches of rows query, positive, negative in turn, "classes" for
            batches of images with labels.
        embedding_size: length of an embedding.

    Raises:
        InputError: the loss needs batches of classes.
    """
    if batches == "classes":
        if config.loss in SIMILARITY_LOSSES:
            similarity_loss = SIMILARITY_LOSSES[config.loss]
            return similarity_loss(config.temperature, config.memory, embedding_size)
        return BatchRankingLoss(
            config.gap,
            config.distance,
            config.hinge,
            config.clip,
            norm=config.distance_norm,
            mining=config.mining,
            memory=config.memory,
            embedding_size=embedding_size,
        )
    if config.loss != "ranking":
        raise InputError(f"loss {config.loss} needs batches of classes. Received: {batches}")
    return RankingLoss(
        config.gap, config.distance, config.hinge, config.clip, norm=config.distance_norm
    )


def make_metrics(config: LossConfig, batches: str) -> list[keras.metrics.Metric]:
    """Make one metric for each of `QUANTITIES`.

    Args:
        config: the settings; gap and distance count whatever the loss.
        batches: "triplets" or "classes", as for `make_loss`.
    """
    metric = ClassTripletMetric if batches == "classes" else TripletMetric
    return [
        metric(quantity, config.gap, config.distance, config.distance_norm)
        for quantity in QUANTITIES
    ]
