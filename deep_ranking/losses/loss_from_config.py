"""Settings -> the loss, the weight penalty, and the metrics that training prints beside it."""

import keras
import numpy as np

from deep_ranking.config import LossConfig
from deep_ranking.files import InputError
from deep_ranking.losses.monitoring import QUANTITIES, ClassTripletMetric, TripletMetric
from deep_ranking.losses.ranking import BatchRankingLoss, RankingLoss
from deep_ranking.losses.similarity import (
    MultiSimilarityLoss,
    SimilarityLoss,
    SoftMarginLoss,
    SupervisedContrastiveLoss,
)

SIMILARITY_LOSSES: dict[str, type[SimilarityLoss]] = {
    "soft_margin": SoftMarginLoss,
    "supervised_contrastive": SupervisedContrastiveLoss,
    "multi_similarity": MultiSimilarityLoss,
}


def make_loss(config: LossConfig, batches: str, embedding_size: int) -> keras.losses.Loss:
    """Return the loss that the settings choose.

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
    return ranking_loss(config)


def ranking_loss(config: LossConfig) -> RankingLoss:
    """Return the ranking loss of triplets, whatever loss the settings choose."""
    return RankingLoss(
        config.gap, config.distance, config.hinge, config.clip, norm=config.distance_norm
    )


def make_metrics(config: LossConfig, batches: str) -> list[keras.metrics.Metric]:
    """Return one metric for each of `QUANTITIES`.

    Args:
        config: the settings; gap, distance and clipping apply with every loss.
        batches: "triplets" or "classes", as for `make_loss`.
    """
    metric = ClassTripletMetric if batches == "classes" else TripletMetric
    return [
        metric(quantity, config.gap, config.distance, config.distance_norm, clip=config.clip)
        for quantity in QUANTITIES
    ]


def penalise_kernels(model: keras.Model, penalty: float) -> None:
    """Add the paper's weight penalty to the loss (Wang et al. 2014, eq. 3): lambda * sum of w^2.

    It covers the kernels of trained layers, as is usual, but no biases and no scales of
    normalisation layers. It takes effect at the model's next `compile` and is not saved in its
    file.

    Args:
        model: the model; layers that are frozen when it is compiled are left out.
        penalty: the paper's lambda, 0 or more; 0 for none.
    """
    for kernel in _kernels(model):
        kernel.regularizer = keras.regularizers.L2(penalty) if penalty else None


def kernel_penalty(model: keras.Model, penalty: float) -> float:
    """Return what the penalty of `penalise_kernels` adds to the loss now."""
    squares = (
        float(np.square(keras.ops.convert_to_numpy(kernel)).sum(dtype=np.float64))
        for kernel in _kernels(model)
        if kernel.trainable
    )
    return penalty * sum(squares) if penalty else 0.0


def _kernels(model: keras.Model) -> list[keras.Variable]:
    return [weight for weight in model.weights if weight.name.endswith("kernel")]
