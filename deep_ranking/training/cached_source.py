"""Images of a run -> the cached features of its frozen layers, to train and to validate on."""

import os
from collections.abc import Sequence

import keras

from deep_ranking.config import TrainConfig
from deep_ranking.embedding.cached_features import Features, cache_features
from deep_ranking.training.batches import ClassSource, FeatureSource


def run_features(
    config: TrainConfig,
    frozen: keras.Model,
    paths: Sequence[str | os.PathLike[str]],
    *,
    num_views: int = 1,
) -> Features:
    """Return the features of images, after computing those that are new.

    Args:
        config: the run's settings.
        frozen: the frozen layers.
        paths: the images.
        num_views: random views of each image; 1 for the image itself.
    """
    return cache_features(
        frozen,
        paths,
        config.feature_dir,
        num_views=num_views,
        augmentation=config.augmentation,
        precision=config.precision,
        skip_broken=config.skip_broken,
    )


def feature_source(config: TrainConfig, frozen: keras.Model, images: ClassSource) -> FeatureSource:
    """Return the batches of `images`, of features instead of pixels."""
    return FeatureSource(
        run_features(config, frozen, images.paths, num_views=config.cached_views),
        images.labels,
        batches=images.batches,
        seed=config.seed,
        steps_per_epoch=config.steps_per_epoch,
    )
