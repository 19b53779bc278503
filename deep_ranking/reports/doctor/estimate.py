"""Estimates of what training would take: triplets, size of their file, time and memory.

Triplets and file size follow from the folders alone. Time and memory follow from a few steps of the
network, which `timing` measures on this machine.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deep_ranking.config import HARD, SamplingConfig, TrainConfig
from deep_ranking.datasets import LabelledImages, limit_classes, relative_prefix
from deep_ranking.files.words import byte_size, duration
from deep_ranking.reports.doctor.findings import Finding, make_finding
from deep_ranking.reports.doctor.survey import Survey
from deep_ranking.sampling import ClassBatches, Strategy, any_negatives, make_strategy
from deep_ranking.sampling.triplet_file import field_bytes

BYTES_A_TRIPLET = 16  # three image numbers, and its place in the order of an epoch
MUCH_MEMORY = 0.9  # share of the machine's
LONG_TIME = 86_400.0  # seconds


@dataclass(frozen=True)
class TrainingCost:
    """What training takes on this machine, as measured.

    Attributes:
        read_seconds: seconds of one core to read an image as training does.
        step_seconds: seconds to train on one batch, without reading it.
        frozen_seconds: seconds to compute the frozen layers of an image once, where they are
            cached.
        memory: peak of the whole process in bytes.
    """

    read_seconds: float
    step_seconds: float
    frozen_seconds: float
    memory: int


@dataclass(frozen=True)
class Workload:
    """How much a run has to do.

    Attributes:
        num_images: images to train on.
        num_triplets: at most, in an epoch; with batches of classes, in one batch.
        num_steps: batches an epoch.
        file_bytes: size of the triplet file; None if the run needs none.
        limit: what --max_images_per_class leaves out, in words; "" for nothing.
    """

    num_images: int
    num_triplets: int
    num_steps: int
    file_bytes: int | None
    limit: str = ""


class Estimate(NamedTuple):
    """One estimate of what training would take.

    Attributes:
        kind: name, for programs.
        value: the number.
        unit: its unit.
        what: one line.
        suggestion: one line, how to reduce it.
    """

    kind: str
    value: float
    unit: str
    what: str
    suggestion: str


def planned_images(survey: Survey) -> LabelledImages:
    """Return the images to train on, broken ones included."""
    return next(part.images for part in survey.parts if part.is_trained)


def make_sampler(
    images: LabelledImages, config: TrainConfig, sampling: SamplingConfig
) -> Strategy | ClassBatches:
    """Return what draws triplets or batches, as the run needs, from some of the `planned_images`.

    Raises:
        InputError: there are too few classes, or too few images in each.
    """
    labels = images.items.codes
    if config.batches == "classes":
        return ClassBatches(
            labels,
            batch_size=config.batch_size,
            images_per_class=config.images_per_class,
            seed=config.seed,
        )
    if sampling.strategy == HARD:
        sampling = any_negatives(sampling)  # counting the triplets needs no network
    categories = None if images.categories is None else images.categories.codes
    return make_strategy(sampling, labels, categories=categories)


def estimate_workload(survey: Survey, config: TrainConfig, sampling: SamplingConfig) -> Workload:
    """Return how much a run has to do.

    Raises:
        InputError: there is nothing to draw from.
    """
    planned = planned_images(survey)
    images = limit_classes(planned, most=config.max_images_per_class)
    limit = " ".join(images.notes[len(planned.notes) :]).removesuffix(".")
    sampler = make_sampler(images, config, sampling)
    if isinstance(sampler, ClassBatches):
        classes, each = sampler.num_classes, sampler.images_per_class
        triplets = classes * each * (each - 1) * (classes - 1) * each
        num_steps = config.steps_per_epoch or -(-len(images) // sampler.num_images)
        return Workload(len(images), triplets, num_steps, None, limit)
    triplets = sampler.num_triplets
    num_steps = config.steps_per_epoch or -(-triplets // (config.batch_size // 3))
    file_bytes = None
    if not config.draws_triplets:
        file_bytes = round(triplets * _mean_line_bytes(images, sampling))
    return Workload(len(images), triplets, num_steps, file_bytes, limit)


def make_estimates(
    workload: Workload, cost: TrainingCost | None, config: TrainConfig, sampling: SamplingConfig
) -> Iterator[Estimate]:
    """Yield the estimates of a run; those of time and memory need its cost."""
    if config.batches == "classes":
        what = (
            f"{workload.num_triplets:,} at most in each of {workload.num_steps:,} batches an "
            "epoch; no file"
        )
        suggestion = "--images_per_class and --batch_size decide it"
    else:
        negatives = sampling.num_neg_images
        what = (
            f"about {workload.num_triplets:,} an epoch, at most {sampling.num_pos_images} "
            f"positives an image and {negatives} negatives each"
        )
        fewer = max(1, negatives // 10)
        suggestion = f"--num_neg_images {fewer} gives about {fewer / negatives:.0%} of them"
        if negatives == 1:
            suggestion = "--batches classes uses every triplet of a batch"
    yield Estimate("triplets", workload.num_triplets, "triplets", what, suggestion)
    if workload.file_bytes is not None:
        yield Estimate(
            "file",
            workload.file_bytes,
            "bytes",
            f"about {byte_size(workload.file_bytes)} of triplets.txt in the working folder",
            "--compress of triplet_sampler.py takes a fifth or less; train.py --strategy "
            "out-of-class draws triplets without a file",
        )
    if workload.limit:
        suggestion = "a higher --max_images_per_class uses more of them"
        yield Estimate("images", workload.num_images, "images", workload.limit, suggestion)
    if cost is None:
        return
    seconds_per_epoch, once = training_seconds(workload, cost, config)
    total = once + config.epochs * seconds_per_epoch
    first = f"{duration(once)} once for features, then " if once else ""
    what = (
        f"about {duration(total)}: {first}{config.epochs} epochs of {workload.num_steps:,} "
        f"batches, about {duration(seconds_per_epoch)} each; validation not counted"
    )
    if config.cache_features:
        suggestion = (
            "the features serve any number of runs; --max_images_per_class N takes fewer images"
        )
    else:
        suggestion = "--recipe laptop takes minutes; or fewer --epochs, --steps_per_epoch N"
    yield Estimate("time", total, "seconds", what, suggestion)
    memory = training_memory(workload, cost, config)
    yield Estimate(
        "memory",
        memory,
        "bytes",
        f"about {byte_size(memory)} of main memory, of {byte_size(machine_memory())}",
        "a smaller --batch_size or --image_size takes less",
    )


def training_seconds(
    workload: Workload, cost: TrainingCost, config: TrainConfig
) -> tuple[float, float]:
    """Return the seconds of an epoch, and the seconds once before the first."""
    read = cost.read_seconds / (os.cpu_count() or 1)
    if config.cache_features:
        views = workload.num_images * config.cached_views
        return workload.num_steps * cost.step_seconds, views * (cost.frozen_seconds + read)
    return workload.num_steps * (cost.step_seconds + config.batch_size * read), 0.0


def training_memory(workload: Workload, cost: TrainingCost, config: TrainConfig) -> int:
    """Return the bytes that training takes, with the table of triplets."""
    if config.batches == "classes":
        return cost.memory
    num_triplets = workload.num_triplets
    if config.draws_triplets and config.steps_per_epoch is not None:
        num_triplets = config.steps_per_epoch * (config.batch_size // 3)
    return cost.memory + BYTES_A_TRIPLET * num_triplets


def check_resources(
    workload: Workload, cost: TrainingCost | None, config: TrainConfig
) -> Iterator[Finding]:
    """Check that disk, memory and time of this machine are enough."""
    free = shutil.disk_usage(Path.cwd()).free
    if workload.file_bytes is not None and workload.file_bytes > free:
        yield make_finding(
            "disk",
            f"a triplet file of about {byte_size(workload.file_bytes)} does not fit on the disk "
            f"of the working folder, which has {byte_size(free)} left",
            "draw fewer by --num_neg_images, or train with --strategy out-of-class and no file",
        )
    if cost is None:
        return
    memory, machine = training_memory(workload, cost, config), machine_memory()
    if memory > MUCH_MEMORY * machine:
        yield make_finding(
            "memory",
            f"training takes about {byte_size(memory)} of memory, and the machine has "
            f"{byte_size(machine)}",
            "lower --batch_size or --image_size, or draw fewer triplets",
        )
    seconds_per_epoch, once = training_seconds(workload, cost, config)
    if (total := once + config.epochs * seconds_per_epoch) > LONG_TIME:
        yield make_finding(
            "long_training",
            f"training takes about {duration(total)} on this machine",
            "--recipe laptop takes minutes on two cores; a graphics processor, fewer triplets or "
            "fewer --epochs shorten any run",
        )


def machine_memory() -> int:
    """Return the bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _mean_line_bytes(images: LabelledImages, sampling: SamplingConfig) -> float:
    """Return the mean bytes of a line of the triplet file, all negatives being equally likely."""
    prefix = relative_prefix(images.root, Path.cwd())
    sizes = field_bytes([prefix + path for path in images.paths])
    labels = np.unique(images.items.codes, return_inverse=True)[1]
    num_images = np.bincount(labels)
    class_bytes = np.bincount(labels, sizes)  # of all paths of a class
    others = len(labels) - num_images
    positives = np.minimum(sampling.num_pos_images, num_images - 1)
    weights = positives * np.minimum(sampling.num_neg_images, others)  # triplets of a query
    weights = weights * (1 if sampling.balance else num_images)
    negative = (class_bytes.sum() - class_bytes) / np.maximum(others, 1)
    separators = 3  # two commas and the end of the line
    return float(np.average(2 * class_bytes / num_images + negative + separators, weights=weights))
