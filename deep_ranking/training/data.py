"""TrainConfig -> what a run trains on: batches of triplets, of classes, or of cached features."""

import os
from collections.abc import Sequence

import keras
import numpy as np

from deep_ranking.config import TrainConfig
from deep_ranking.embedding.cached_features import CachedFeatures, cache_features
from deep_ranking.embedding.embed import embed_images, embedded_features
from deep_ranking.model.whitening import principal_axes, whitening_axes
from deep_ranking.sampling import ClassBatches
from deep_ranking.training.batches import ClassSource, FeatureSource, TripletSource
from deep_ranking.training.drawn_triplets import triplet_supply
from deep_ranking.training.split import training_images

# Images that the embedding layer's start is computed from, at most.
MAX_START_IMAGES = 20_000


def image_source(config: TrainConfig) -> TripletSource | ClassSource:
    """Give the batches of images that a run trains on, checked.

    Raises:
        InputError: the data cannot be used.
    """
    if config.batches == "triplets":
        return TripletSource(
            triplet_supply(config),
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
    """Give what the frozen layers make of images, computed if need be.

    Args:
        config: the run's settings.
        paths: the images.
        frozen: the first model of `split_at_frozen`.
        num_views: versions of each image, the first of which is the image itself.

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
    """Give the same batches as features of the frozen layers; see `cached_features`."""
    return FeatureSource(
        cached_features(config, images.paths, frozen, num_views=config.cached_views),
        images.labels,
        batches=images.batches,
        seed=config.seed,
        steps_per_epoch=config.steps_per_epoch,
    )


def start_embedding(
    config: TrainConfig,
    model: keras.Model,
    source: ClassSource | FeatureSource,
    frozen: keras.Model | None = None,
) -> None:
    """Set the first weights of the embedding layer from training images, as the config says.

    Args:
        config: the run's settings.
        model: the whole network.
        source: what it is trained on.
        frozen: with cached features, the layers that gave them.

    Raises:
        InputError: there are too few images or features for so long an embedding.
    """
    rng = np.random.default_rng([config.seed, 5])
    usable = np.setdiff1d(np.arange(len(source.labels)), sorted(source.broken))
    chosen = np.sort(rng.permutation(usable)[:MAX_START_IMAGES])
    layer = model.get_layer("embedding")
    print(f"The embedding layer starts {config.embedding_start}, from {len(chosen):,} images.")
    if isinstance(source, FeatureSource) and frozen is not None:
        if any(each is layer.input for each in frozen.outputs):  # it is what was cached
            features = source.features.read(chosen, 0 * chosen)[0].astype(np.float32)
        else:
            before = keras.Model(frozen.outputs, layer.input)
            with embedded_features(before, source.features) as rows:
                features = rows[chosen]
    elif isinstance(source, ClassSource):
        before = keras.Model(model.input, layer.input)
        paths = [source.paths[number] for number in chosen]
        features = embed_images(before, paths, skip_broken=config.skip_broken, progress=True)
        chosen, features = chosen[~np.isnan(features[:, 0])], features[~np.isnan(features[:, 0])]
    if config.embedding_start == "pca":
        kernel, bias = principal_axes(features, config.network.embedding_size)
    else:
        kernel, bias = whitening_axes(
            features, source.labels[chosen], config.network.embedding_size
        )
    layer.set_weights([kernel, bias])
