"""Teach a model by answers of people: it goes on from what it knows, and only its head changes.

The learned distance is a weighted sum of base distances (`base_distances`), fitted to the votes
(`fitting`). It is added to the distance of the model to go on from, as much as answers held back
and images of known classes allow (`forgetting`), and folded into the head (`head`). All of it works
on cached features (`features`), in NumPy.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from deep_ranking.config.base import check_range
from deep_ranking.config.training import MAX_SEED
from deep_ranking.datasets import LabelledImages
from deep_ranking.datasets.ratings import read_ratings
from deep_ranking.files import InputError
from deep_ranking.model.file import load_model, save_model
from deep_ranking.training.taught.answers import Answers, usable_answers
from deep_ranking.training.taught.features import (
    HEAD_LAYER,
    Head,
    network_with_layout,
    sizes_of,
    taught_features,
)
from deep_ranking.training.taught.forgetting import Halves, halves_of
from deep_ranking.training.taught.lesson import Lesson
from deep_ranking.training.taught.report import TaughtReport


@dataclass(frozen=True, kw_only=True)
class TaughtConfig:
    """What to teach.

    Attributes:
        model: model file to go on from.
        output: model file to write, which ends in .h5.
        ratings: ratings files, read as one.
        images: folder that the paths of the ratings start from.
        labelled: images with classes, whose recall@1 must not fall; None to judge no forgetting.
        cache_dir: folder of cached features.
        seed: decides folds and halves.

    Example:
        >>> config = TaughtConfig(
        ...     model="model.h5",
        ...     output="taught.h5",
        ...     ratings=["answers.csv"],
        ...     images="photos",
        ...     cache_dir="cache",
        ... )
        >>> config.seed
        0

    Raises:
        InputError: a value is out of its range.
    """

    model: Path
    output: Path
    ratings: tuple[Path, ...]
    images: Path
    labelled: LabelledImages | None = None
    cache_dir: Path
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all that needs no file."""
        for name in ("model", "output", "images", "cache_dir"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        object.__setattr__(self, "ratings", tuple(map(Path, self.ratings)))
        check_range("seed", self.seed, 0, MAX_SEED)
        if self.output.suffix != ".h5":
            raise InputError(f"output must end in .h5. Received: {self.output}")
        if not self.ratings:
            raise InputError("ratings must name at least one file")


def teach(config: TaughtConfig, *, network: keras.Model | None = None) -> TaughtReport:
    """Learn from answers, and write a model file.

    The file is written whether or not the model is better; the report says which.

    Args:
        config: what to teach.
        network: the model to go on from, as `network_with_layout` returns it, if it is loaded
            already; it is left as it was.

    Example:
        >>> config = TaughtConfig(
        ...     model="model.h5",
        ...     output="taught.h5",
        ...     ratings=["answers.csv"],
        ...     images="photos",
        ...     cache_dir="cache",
        ... )
        >>> teach(config)
        Computing the frozen layers' features ...
        Learned from 32 answers to ...

    Raises:
        InputError: the model, the ratings or the images cannot be used, or too few answers are
            left.
    """
    answers = usable_answers(read_ratings(*config.ratings), config.images)
    if network is None:
        network = network_with_layout(load_model(config.model))
    lesson = _lesson(config, answers, network)
    begin = time.monotonic()
    learned = lesson.learn(config.seed)
    seconds = time.monotonic() - begin
    head = network.get_layer(HEAD_LAYER)
    before, calibration = head.get_weights(), getattr(network, "calibration", None)
    head.set_weights([learned.head.kernel, learned.head.bias])
    # Other distances mean something else; those of a head that stayed as it was do not.
    own = learned.calibration or (None if learned.mixture else calibration)
    network.calibration = own
    try:
        save_model(network, config.output)
    finally:
        head.set_weights(before)
        network.calibration = calibration
    return TaughtReport(
        output=config.output,
        num_answers=answers.num_answers,
        num_questions=len(lesson.questions),
        held_back=learned.held_back,
        at_random=learned.at_random,
        steadiness=answers.steadiness,
        recall=learned.recall,
        calibration=own,
        mixture=learned.mixture,
        seconds=seconds,
        left_out=[*answers.left_out, *lesson.left_out],
        notes=[*answers.notes, *learned.notes],
    )


def _lesson(config: TaughtConfig, answers: Answers, network: keras.Model) -> Lesson:
    """Compute the features of rated and labelled images."""
    files, labels = list(answers.files), np.full(len(answers.files), -1, np.int64)
    halves = None
    if config.labelled is not None:
        codes = config.labelled.items.codes
        chosen = halves_of(codes, seed=config.seed)
        paths = config.labelled.files()
        used = np.concatenate(chosen)
        files += [paths[number] for number in used]
        labels = np.concatenate([labels, codes[used]])
        numbers = np.arange(len(used)) + len(answers.files)
        halves = Halves(*np.split(numbers, [len(chosen.choosing)]))
    features = taught_features(network, files, config.cache_dir)
    head = Head.of(network, sizes_of(features))
    return Lesson.of(answers, head, features, halves=halves, labels=labels)
