"""TrainConfig -> the training data of a run: batches of triplets, classes, or cached features."""

import os
from collections.abc import Sequence

import keras
import numpy as np

from deep_ranking.config import TrainConfig
from deep_ranking.embedding.cached_features import CachedFeatures, cache_features
from deep_ranking.sampling import ClassBatches
from deep_ranking.training.batches import ClassSource, FeatureSource, TripletSource
from deep_ranking.training.drawn_triplets import epoch_triplets
from deep_ranking.training.split import training_images


def image_source(config: TrainConfig) -> TripletSource | ClassSource:
    """Return the batches of images that a run trains on, checked.

    Raises:
        InputError: the data cannot be used.
    """
    if config.batches == "triplets":
        return TripletSource(
            epoch_triplets(config),
            image_size=config.network.image_size,
            batch_size=config.batch_size,
            augmentation=config.augmentation,
            shuffle=config.shuffle,
            seed=config.seed,
            skip_broken=config.skip_broken,
            steps_per_epoch=config.steps_per_epoch,
            save_dir=config.save_augmented,
        )
    paths, classes = training_images(config)
    _, labels = np.unique(classes, return_inverse=True)
    return ClassSource(
        paths,
        labels,
        image_size=config.network.image_size,
        batches=ClassBatches(
            labels,
            batch_size=config.batch_size,
            images_per_class=config.images_per_class,
            seed=config.seed,
        ),
        augmentation=config.augmentation,
        seed=config.seed,
        skip_broken=config.skip_broken,
        steps_per_epoch=config.steps_per_epoch,
        save_dir=config.save_augmented,
    )


def cached_features(
    config: TrainConfig,
    paths: Sequence[str | os.PathLike[str]],
    frozen: keras.Model,
    *,
    num_views: int,
) -> CachedFeatures:
    """Return the frozen layers' features of images, after computing those that are not cached.

    Args:
        config: the run's settings.
        paths: the images.
        frozen: the first model of `split_at_frozen`.
        num_views: versions of each image; the first is the image itself.

    Raises:
        InputError: an image is missing or broken, or the disk is full.
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


def feature_source(config: TrainConfig, images: ClassSource, frozen: keras.Model) -> FeatureSource:
    """Return the same batches as features of the frozen layers; see `cached_features`."""
    return FeatureSource(
        cached_features(config, images.paths, frozen, num_views=config.cached_views),
        images.labels,
        batches=images.batches,
        seed=config.seed,
        steps_per_epoch=config.steps_per_epoch,
    )
