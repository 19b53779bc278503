"""What training would take: triplets, bytes of their file, time and memory, each about.

Triplets and bytes follow from the folders alone. Time and memory follow from a few steps of the
very network, which `timing` measures on this machine.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.config import SamplingConfig, TrainConfig
from deep_ranking.datasets import relative_prefix
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.words import byte_size, duration
from deep_ranking.reports.doctor.drawing import limited, make_drawing
from deep_ranking.reports.doctor.findings import FAILS, WARNING, Finding, finding
from deep_ranking.reports.doctor.survey import Survey
from deep_ranking.sampling import ClassBatches
from deep_ranking.sampling.triplet_file import field_bytes

BYTES_A_TRIPLET = 16  # three numbers of images, and its place in the order of an epoch
MUCH_MEMORY = 0.9  # share of the machine's
LONG_TIME = 86_400.0  # seconds


@dataclass(frozen=True)
class Cost:
    """What was measured on this machine.

    Attributes:
        read_seconds: of one core, to read an image as training does.
        step_seconds: to train on one batch that is read already.
        frozen_seconds: to compute the frozen layers of an image once, where they are cached.
        memory: bytes of the whole process at its most.
    """

    read_seconds: float
    step_seconds: float
    frozen_seconds: float
    memory: int


@dataclass(frozen=True)
class Amount:
    """How much there is to do.

    Attributes:
        num_images: images that are trained on.
        num_triplets: an epoch, at most; of batches of classes, of one batch.
        num_steps: batches an epoch.
        file_bytes: of the triplet file, where there is one.
    """

    num_images: int
    num_triplets: int
    num_steps: int
    file_bytes: int | None


@dataclass(frozen=True)
class Estimate:
    """One line of what training would take.

    Attributes:
        kind: name, for programs.
        value: the number.
        unit: what it counts.
        what: one line.
        suggestion: one line, how to make it less.
    """

    kind: str
    value: float
    unit: str
    what: str
    suggestion: str

    def as_json(self) -> dict[str, Any]:
        """Give all of it as what JSON can hold."""
        return vars(self).copy()


def count(found: Survey, config: TrainConfig, sampling: SamplingConfig) -> Amount:
    """Count what a run would draw.

    Raises:
        InputError: there is nothing to draw from.
    """
    numbers = limited(found, config.max_images_per_class)
    drawing = make_drawing(found, numbers, config, sampling)
    if isinstance(drawing, ClassBatches):
        classes, each = drawing.num_classes, drawing.images_per_class
        triplets = classes * each * (each - 1) * (classes - 1) * each
        num_steps = config.steps_per_epoch or -(-len(numbers) // drawing.num_images)
        return Amount(len(numbers), triplets, num_steps, None)
    triplets = drawing.num_triplets
    num_steps = config.steps_per_epoch or -(-triplets // (config.batch_size // 3))
    file_bytes = None
    if not config.draws_triplets:
        file_bytes = round(triplets * _line_bytes(found, numbers, sampling))
    return Amount(len(numbers), triplets, num_steps, file_bytes)


def describe(
    amount: Amount, cost: Cost | None, config: TrainConfig, sampling: SamplingConfig
) -> Iterator[Estimate]:
    """Say what it comes to, with what would make it less."""
    positives, negatives = sampling.num_pos_images, sampling.num_neg_images
    if config.batches == "classes":
        yield Estimate(
            "triplets",
            amount.num_triplets,
            "triplets",
            f"{amount.num_triplets:,} at most in each of {amount.num_steps:,} batches an epoch; no "
            "file",
            "--images_per_class and --batch_size decide it",
        )
    else:
        fewer = max(1, negatives // 10)
        yield Estimate(
            "triplets",
            amount.num_triplets,
            "triplets",
            f"about {amount.num_triplets:,} an epoch, {positives} positives an image and "
            f"{negatives} negatives each, at most",
            f"--num_neg_images {fewer} gives about {fewer / negatives:.0%} of them"
            if negatives > 1
            else "--batches classes uses every triplet of a batch",
        )
    if amount.file_bytes is not None:
        yield Estimate(
            "file",
            amount.file_bytes,
            "bytes",
            f"about {byte_size(amount.file_bytes)} of triplets.txt in the working folder",
            "--compress of triplet_sampler.py takes a fifth or less; train.py --strategy "
            "out-of-class draws triplets with no file between",
        )
    if cost is None:
        return
    seconds_per_epoch, once = seconds_of(amount, cost, config)
    total = once + config.epochs * seconds_per_epoch
    first = f"{duration(once)} once for features, then " if once else ""
    what = (
        f"about {duration(total)}: {first}{config.epochs} epochs of {amount.num_steps:,} batches, "
        f"about {duration(seconds_per_epoch)} each; judging not counted"
    )
    if config.cache_features:
        suggestion = (
            "the features serve any number of runs; --max_images_per_class N takes fewer images"
        )
    else:
        suggestion = "--recipe laptop takes minutes; or fewer --epochs, --steps_per_epoch N"
    yield Estimate("time", total, "seconds", what, suggestion)
    memory = memory_of(amount, cost, config)
    yield Estimate(
        "memory",
        memory,
        "bytes",
        f"about {byte_size(memory)} of main memory, of {byte_size(machine_memory())}",
        "a smaller --batch_size or --image_size takes less",
    )


def seconds_of(amount: Amount, cost: Cost, config: TrainConfig) -> tuple[float, float]:
    """Give the seconds of an epoch, and those that come once before."""
    read = cost.read_seconds / (os.cpu_count() or 1)
    if config.cache_features:
        views = amount.num_images * config.cached_views
        return amount.num_steps * cost.step_seconds, views * (cost.frozen_seconds + read)
    return amount.num_steps * (cost.step_seconds + config.batch_size * read), 0.0


def memory_of(amount: Amount, cost: Cost, config: TrainConfig) -> int:
    """Give the bytes that training takes, the table of triplets included."""
    if config.batches == "classes":
        return cost.memory
    num_triplets = amount.num_triplets
    if config.draws_triplets and config.steps_per_epoch is not None:
        num_triplets = config.steps_per_epoch * (config.batch_size // 3)
    return cost.memory + BYTES_A_TRIPLET * num_triplets


def check_estimate(amount: Amount, cost: Cost | None, config: TrainConfig) -> Iterator[Finding]:
    """What there is not enough of on this machine."""
    free = shutil.disk_usage(Path.cwd()).free
    if amount.file_bytes is not None and amount.file_bytes > free:
        yield finding(
            "disk",
            FAILS,
            f"a triplet file of about {byte_size(amount.file_bytes)} does not fit on the disk "
            f"of the working folder, which has {byte_size(free)} left",
            "draw fewer by --num_neg_images, or train with --strategy out-of-class and no file",
        )
    if cost is None:
        return
    memory, machine = memory_of(amount, cost, config), machine_memory()
    if memory > MUCH_MEMORY * machine:
        yield finding(
            "memory",
            WARNING,
            f"training takes about {byte_size(memory)} of memory, and the machine has "
            f"{byte_size(machine)}",
            "lower --batch_size or --image_size, or draw fewer triplets",
        )
    seconds_per_epoch, once = seconds_of(amount, cost, config)
    if (total := once + config.epochs * seconds_per_epoch) > LONG_TIME:
        yield finding(
            "long_training",
            WARNING,
            f"training takes about {duration(total)} on this machine",
            "--recipe laptop takes minutes on two cores; a graphics processor, fewer triplets or "
            "fewer --epochs make the rest shorter",
        )


def machine_memory() -> int:
    """Give the bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _line_bytes(found: Survey, numbers: Int64Array, sampling: SamplingConfig) -> float:
    """Mean bytes of a line of the triplet file, with negatives of all other classes as likely."""
    part = next(part for part in found.parts if part.is_trained)
    prefix = relative_prefix(part.listing.root, Path.cwd())
    names = [prefix + found.path(n).removeprefix(part.prefix) for n in numbers.tolist()]
    sizes = field_bytes(names)
    labels = np.unique(found.label[numbers], return_inverse=True)[1]
    images = np.bincount(labels)
    own = np.bincount(labels, sizes)  # bytes of all paths of a class
    others = len(labels) - images
    positives = np.minimum(sampling.num_pos_images, images - 1)
    weights = positives * np.minimum(sampling.num_neg_images, others)  # triplets of a query
    weights = weights * (1 if sampling.balance else images)
    negative = (own.sum() - own) / np.maximum(others, 1)
    signs = 3  # two commas and the line's end
    return float(np.average(2 * own / images + negative + signs, weights=weights))
