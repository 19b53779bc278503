"""TrainConfig -> the training data of a run: which images or triplets, and in which batches."""

from contextlib import ExitStack
from typing import Any

import numpy as np

from deep_ranking.config import HARD, TrainConfig
from deep_ranking.datasets import (
    LabelledImages,
    class_folders,
    hold_back_classes,
    limit_classes,
    nested_folders,
)
from deep_ranking.sampling import ClassBatches, open_strategy
from deep_ranking.sampling.triplet_file import read_triplets
from deep_ranking.training.batches import ClassSource, EpochTriplets, FileTriplets, TripletSource
from deep_ranking.training.batches.epoch_triplets import DrawnTriplets
from deep_ranking.training.hard_triplets import HardTriplets


def image_source(config: TrainConfig) -> TripletSource | ClassSource:
    """Return the batches of images that a run trains on, checked.

    Raises:
        InputError: the data cannot be used.
    """
    options: dict[str, Any] = {
        "image_size": config.network.image_size,
        "augmentation": config.augmentation,
        "seed": config.seed,
        "skip_broken": config.skip_broken,
        "steps_per_epoch": config.steps_per_epoch,
        "save_dir": config.save_augmented,
    }
    if config.batches == "triplets":
        triplets = epoch_triplets(config)
        return TripletSource(
            triplets, batch_size=config.batch_size, shuffle=config.shuffle, **options
        )
    data = training_images(config)
    _, labels = np.unique(np.array(data.items.names)[data.items.codes], return_inverse=True)
    batches = ClassBatches(
        labels,
        batch_size=config.batch_size,
        images_per_class=config.images_per_class,
        seed=config.seed,
    )
    return ClassSource(data.files(), labels, batches=batches, **options)


def epoch_triplets(config: TrainConfig) -> EpochTriplets:
    """Return the triplets that a run trains on, checked; relevance is computed here if needed.

    Raises:
        InputError: the file or the folders cannot be used.
    """
    if not config.draws_triplets:
        return FileTriplets(read_triplets(config.triplet_file), config.dataset)
    data = training_images(config)
    if config.sampling.strategy == HARD:
        return HardTriplets(config, data)
    opened = ExitStack()
    strategy = open_strategy(
        config.sampling,
        data,
        seed=config.seed,
        relevance=config.relevance,
        weights=config.network.weights,
        skip_broken=config.skip_broken,
    )
    return DrawnTriplets(
        data,
        opened.enter_context(strategy),
        strategy_name=config.sampling.strategy,
        repeats=config.resample_every or 1,
        opened=opened,
    )


def training_images(config: TrainConfig) -> LabelledImages:
    """Return the images that a run trains on, with their items and categories.

    Raises:
        InputError: there are no images, or too few classes to hold some back.
    """
    return limit_classes(_split(config)[0], most=config.max_images_per_class)


def held_back_images(config: TrainConfig) -> LabelledImages:
    """Return the images of the classes that a run holds back, by its `validation_share`.

    Raises:
        InputError: as `training_images`.
    """
    return _split(config)[1]


def _split(config: TrainConfig) -> tuple[LabelledImages, LabelledImages]:
    """Return images to train on, and images of held back classes (categories, if there are any)."""
    assert config.dataset is not None  # the config checks it
    if config.sampling.has_nested_folders:
        data = nested_folders(config.dataset, config.level or 1)
    else:
        data = class_folders(config.dataset)
    held = np.zeros(len(data), bool)
    if config.validation_share is not None:
        # Always seed 0: runs that are compared hold back the same classes.
        classes = data.items if data.categories is None else data.categories
        held = hold_back_classes(classes.codes, config.validation_share, seed=0)
    return data.select(~held), data.select(held)
