"""Which images of its class folders a run trains on, and which it validates on."""

import numpy as np
import numpy.typing as npt

from deep_ranking.config import TrainConfig
from deep_ranking.datasets import (
    LabelledImages,
    class_folders,
    hold_back_classes,
    limit_classes,
    nested_folders,
)
from deep_ranking.images import ImageListing

Labelled = tuple[list[str], npt.NDArray[np.str_]]


def labelled_images(listing: ImageListing) -> Labelled:
    """Return the path and the class's name of each image of a listing."""
    return listing.files(), np.array(listing.classes)[listing.labels]


def training_data(config: TrainConfig) -> LabelledImages:
    """Return the images that a run trains on, with their items and categories.

    Raises:
        InputError: there are no images, or too few classes to hold some back.
    """
    return limit_classes(_split(config)[0], most=config.max_images_per_class)


def training_images(config: TrainConfig) -> Labelled:
    """Return the paths and classes of the images that a run trains on.

    Raises:
        InputError: as `training_data`.
    """
    return _labelled(training_data(config))


def held_back_images(config: TrainConfig) -> Labelled:
    """Return the images of the classes that a run holds back, by its `validation_share`.

    Raises:
        InputError: as `training_data`.
    """
    return _labelled(_split(config)[1])


def _labelled(data: LabelledImages) -> Labelled:
    return data.files(), np.array(data.items.names)[data.items.codes]


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
