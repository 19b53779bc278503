"""What training would draw from a data set: a strategy of triplets, or batches of classes."""

import numpy as np

from deep_ranking.config import HARD, IN_CLASS, OUT_OF_CLASS, SamplingConfig, TrainConfig
from deep_ranking.datasets import Labels
from deep_ranking.datasets.folders import leading_folders
from deep_ranking.files.array_types import Int64Array
from deep_ranking.reports.doctor.survey import Survey
from deep_ranking.sampling import ClassBatches, Strategy, make_strategy


def make_drawing(
    found: Survey, numbers: Int64Array, config: TrainConfig, sampling: SamplingConfig
) -> Strategy | ClassBatches:
    """Make what draws from some of the images.

    Args:
        found: the images.
        numbers: those that are drawn from.
        config: the run; what it says of batches.
        sampling: how triplets are drawn, for a file or while training.

    Raises:
        InputError: they are of too few classes, or too few of each.
    """
    labels = found.label[numbers]
    if config.batches == "classes":
        return ClassBatches(
            labels,
            batch_size=config.batch_size,
            images_per_class=config.images_per_class,
            seed=config.seed,
        )
    if sampling.strategy == HARD:
        # The number of triplets needs no network: as many, of any other class.
        most = min(sampling.num_neg_images, sampling.num_neighbours)
        return make_strategy(
            SamplingConfig(
                num_pos_images=sampling.num_pos_images,
                num_neg_images=most,
                strategy=OUT_OF_CLASS,
                balance=sampling.balance,
            ),
            labels,
        )
    if sampling.strategy == IN_CLASS:
        folders = [_folder(found, number) for number in numbers.tolist()]
        categories = [leading_folders(folder, config.level or 1) for folder in folders]
        return make_strategy(
            sampling, Labels.of(folders).codes, categories=Labels.of(categories).codes
        )
    return make_strategy(sampling, labels)


def _folder(found: Survey, number: int) -> str:
    """Folders that an image lies in, below those of its part."""
    prefix = found.parts[found.part[number]].prefix
    return found.path(number).removeprefix(prefix).rpartition("/")[0]


def limited(found: Survey, most: int | None) -> Int64Array:
    """Give the images that are trained on, of each class no more than so many."""
    trained = np.flatnonzero(found.where(trained=True))
    if most is None:
        return trained
    kept = [members[:most] for members in _by_class(found, trained)]
    return np.sort(np.concatenate(kept))


def _by_class(found: Survey, numbers: Int64Array) -> list[Int64Array]:
    labels = found.label[numbers]
    order = np.argsort(labels, kind="stable")
    return np.split(numbers[order], np.flatnonzero(np.diff(labels[order])) + 1)
