"""TrainConfig -> the training data of a run: which images or triplets, and in which batches."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.config import HARD, TrainConfig
from deep_ranking.datasets import (
    LabelledImages,
    hold_back_classes,
    limit_classes,
    read_pairs,
    take_split,
)
from deep_ranking.datasets.splits import TO_TRAIN, TO_VALIDATE
from deep_ranking.files.words import counted
from deep_ranking.sampling import ClassBatches, open_strategy
from deep_ranking.sampling.triplet_file import read_triplets
from deep_ranking.training.batches import ClassSource, EpochTriplets, FileTriplets, TripletSource
from deep_ranking.training.batches.epoch_triplets import DrawnTriplets
from deep_ranking.training.hard_triplets import HardTriplets
from deep_ranking.training.split_choice import validation_split


@dataclass(frozen=True)
class RunImages:
    """The labelled images of a run.

    Attributes:
        trained: the images to train on; None if a triplet file names them.
        validated: labelled images to validate on; None for none, or for triplets.
        validation_split: the split that is validated on, if it is one of `dataset`.
        lines: what was read, in words.
    """

    trained: LabelledImages | None = None
    validated: LabelledImages | None = None
    validation_split: str | None = None
    lines: Sequence[str] = ()


def read_run_images(config: TrainConfig, say: Callable[[str], None] | None = None) -> RunImages:
    """Read the images that a run trains and validates on, with their classes and categories.

    Args:
        config: the run's settings.
        say: called with each line about them as soon as it is known, before an error that follows.

    Raises:
        InputError: there are no images, or too few classes to hold some back.
    """
    trained, validated, split = None, None, None
    lines: list[str] = []

    def tell(*told: str) -> None:
        lines.extend(told)
        if say is not None:
            for line in told:
                say(line)

    if config.reads_folders:
        assert config.dataset is not None  # the config checks it
        data = _read_images(config, config.dataset)
        tell(*data.describe())
        trained = data if config.pairs else take_split(data, TO_TRAIN, config.split)
        tell(*trained.notes[len(data.notes) :])
        if not config.pairs and (split := validation_split(config, data)) is not None:
            validated = take_split(data, (), split)
            classes = counted(validated.num_classes, "class")
            tell(f"Validation: split {split}, {counted(len(validated), 'image')}, {classes}.")
        if config.validation_share is not None:
            # Always seed 0: runs that are compared hold back the same classes.
            # Of pairs, items: there may be few categories, and items are what a query looks for.
            by_item = config.pairs is not None or trained.categories is None
            labels = trained.items if by_item else trained.categories
            assert labels is not None
            held = hold_back_classes(labels.codes, config.validation_share, seed=0)
            trained, validated = trained.select(~held), trained.select(held)
            classes = counted(validated.num_classes, "class")
            tell(f"Validation: {counted(len(validated), 'image')} of {classes} held back.")
        whole = trained
        trained = limit_classes(trained, most=config.max_images_per_class)
        tell(*trained.notes[len(whole.notes) :])
    if config.validation_dataset is not None:
        given = config.read(config.validation_dataset, with_files=False)
        validated = take_split(given, TO_VALIDATE)
        notes = validated.notes[len(given.notes) :]
        tell(*(f"{config.validation_dataset}: {line}" for line in (*given.describe(), *notes)))
    return RunImages(trained, validated, split, lines)


def _read_images(config: TrainConfig, dataset: Path) -> LabelledImages:
    if config.pairs is not None:
        return read_pairs(
            dataset,
            config.pairs,
            label=config.label,
            level=config.level,
            by_content=config.by_content,
            corrections=config.corrections,
        )
    return config.read(dataset, level=config.sampling.category_level(config.level))


def image_source(
    config: TrainConfig, images: RunImages | None = None
) -> TripletSource | ClassSource:
    """Return the batches of images that a run trains on, checked.

    Args:
        config: the run's settings.
        images: as `read_run_images` returns them; None to read them.

    Raises:
        InputError: the data cannot be used.
    """
    images = images or read_run_images(config)
    options: dict[str, Any] = {
        "image_size": config.network.image_size,
        "augmentation": config.augmentation,
        "seed": config.seed,
        "skip_broken": config.skip_broken,
        "steps_per_epoch": config.steps_per_epoch,
        "save_dir": config.save_augmented,
    }
    if config.batches == "triplets":
        triplets = epoch_triplets(config, images)
        return TripletSource(
            triplets, batch_size=config.batch_size, shuffle=config.shuffle, **options
        )
    data = images.trained
    assert data is not None  # the config checks that it reads folders
    _, labels = np.unique(data.classes_of_images(), return_inverse=True)
    batches = ClassBatches(
        labels,
        batch_size=config.batch_size,
        images_per_class=config.images_per_class,
        seed=config.seed,
        gallery=data.gallery,
        categories=None if data.categories is None else data.categories.codes,
    )
    return ClassSource(data.files(), labels, batches=batches, **options)


def epoch_triplets(config: TrainConfig, images: RunImages | None = None) -> EpochTriplets:
    """Return the triplets that a run trains on, checked; relevance is computed here if needed.

    Args:
        config: the run's settings.
        images: as `read_run_images` returns them; None to read them.

    Raises:
        InputError: the file or the folders cannot be used.
    """
    data = (images or read_run_images(config)).trained
    if data is None:
        return FileTriplets(read_triplets(config.triplet_file), config.dataset)
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
