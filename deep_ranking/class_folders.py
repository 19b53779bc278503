"""The labelled images of a run that learns from class folders, and those that it leaves out."""

import numpy as np
import numpy.typing as npt

from deep_ranking.config import TrainConfig
from deep_ranking.images import ImageListing, find_images
from deep_ranking.sampling import hold_back_classes

Labelled = tuple[list[str], npt.NDArray[np.str_]]


def labelled_images(listing: ImageListing) -> Labelled:
    """Give the path and the class's name of each image of a listing."""
    paths = [str(listing.root / path) for path in listing.paths]
    return paths, np.array(listing.classes)[listing.labels]


def training_images(config: TrainConfig) -> Labelled:
    """Give the images that a run trains on.

    Raises:
        InputError: there are none, or too few classes to hold some back.
    """
    paths, labels = _split(config)[0]
    if config.max_images_per_class is None:
        return paths, labels
    chosen = np.concatenate(
        [
            _spread(np.flatnonzero(labels == name), config.max_images_per_class)
            for name in np.unique(labels)
        ]
    )
    return [paths[number] for number in chosen], labels[chosen]


def held_back_images(config: TrainConfig) -> Labelled:
    """Give the images of the classes that a run leaves out, by its `validation_share`.

    Raises:
        InputError: as `training_images`.
    """
    return _split(config)[1]


def _spread(numbers: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Take `count` of some numbers, evenly spread, or all if there are no more."""
    if len(numbers) <= count:
        return numbers
    return numbers[np.arange(count) * len(numbers) // count]


def _split(config: TrainConfig) -> tuple[Labelled, Labelled]:
    assert config.dataset is not None  # the config checks it
    listing = find_images(config.dataset)
    paths, labels = labelled_images(listing)
    if config.validation_share is None:
        held = np.zeros(len(paths), bool)
    else:
        # Which classes are held back is no matter of chance between runs that are compared.
        held = hold_back_classes(listing.labels, config.validation_share, seed=0)
    kept, left = (
        ([paths[number] for number in np.flatnonzero(part)], labels[part]) for part in (~held, held)
    )
    return kept, left
