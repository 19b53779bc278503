"""Statistics of a folder of classes: number, size and format of its images, and mean colour."""

import os
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.datasets.folders import read_folder
from deep_ranking.datasets.labelled import LabelledImages
from deep_ranking.datasets.splits import ordered_splits
from deep_ranking.files import InputError, without_path
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images import (
    decode_image,
    open_header,
    read_image,
    read_with_threads,
)

WHOLE = 1 << 20  # a size at which `decode_image` shrinks no image
PIXELS_AT_ONCE = 1 << 20

Sums = tuple[int, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]


@dataclass
class Statistics:
    """Statistics of the images of one folder of classes.

    Attributes:
        split: name of the folder if it is one of several splits, otherwise None.
        images_per_class: images of each class, broken ones too.
        widths: width of each image that can be read, in pixels as stored.
        heights: height of each.
        num_bytes: total size of the files of readable images.
        formats: images of each file format.
        modes: images of each colour mode, by Pillow's names.
        num_pixels: pixels that went into mean and standard deviation.
        broken: path and problem of each image that cannot be read.
    """

    split: str | None
    images_per_class: dict[str, int]
    widths: "array[int]" = field(default_factory=lambda: array("l"))
    heights: "array[int]" = field(default_factory=lambda: array("l"))
    num_bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    num_pixels: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    # Python's integers, so that the sums are exact for any number of images.
    _sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    _squares: list[int] = field(default_factory=lambda: [0, 0, 0])

    @property
    def num_images(self) -> int:
        """Number of images of all classes, broken ones too."""
        return sum(self.images_per_class.values())

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Mean of all pixels, R, G and B from 0 to 1; None if no image can be read."""
        if not self.num_pixels:
            return None
        return tuple(total / (255 * self.num_pixels) for total in self._sums)

    @property
    def std(self) -> tuple[float, ...] | None:
        """Standard deviation of all pixels, in the same unit, n in the denominator."""
        if not self.num_pixels:
            return None
        variances = [
            self.num_pixels * squares - total**2
            for total, squares in zip(self._sums, self._squares, strict=True)
        ]
        return tuple(variance**0.5 / (255 * self.num_pixels) for variance in variances)

    def add(self, path: str, measured: "_Measured") -> None:
        """Add one image."""
        if measured.problem:
            self.broken.append((path, measured.problem))
            return
        self.widths.append(measured.size[0])
        self.heights.append(measured.size[1])
        self.num_bytes += measured.num_bytes
        self.formats[measured.format] += 1
        self.modes[measured.mode] += 1
        num_pixels, sums, squares = measured.sums
        self.num_pixels += num_pixels
        self._sums = [a + b for a, b in zip(self._sums, sums.tolist(), strict=True)]
        self._squares = [a + b for a, b in zip(self._squares, squares.tolist(), strict=True)]

    def as_json(self) -> dict[str, Any]:
        """Return all statistics as values that JSON can hold."""
        return {
            "split": self.split,
            "num_images": self.num_images,
            "num_classes": len(self.images_per_class),
            "images_per_class": self.images_per_class,
            "images_per_class_summary": spread(list(self.images_per_class.values())),
            "width": spread(self.widths),
            "height": spread(self.heights),
            "num_bytes": self.num_bytes,
            "formats": dict(self.formats.most_common()),
            "modes": dict(self.modes.most_common()),
            "num_pixels": self.num_pixels,
            "mean": self.mean,
            "std": self.std,
            "num_broken": len(self.broken),
            "broken": [{"path": path, "problem": problem} for path, problem in self.broken],
        }


def dataset_statistics(
    dataset: str | os.PathLike[str] | LabelledImages,
    *,
    image_size: int | None = None,
    progress: bool = False,
) -> list[Statistics]:
    """Read all images of a data set, and return their statistics.

    Args:
        dataset: folder with one folder a class, or with one folder a split (train, val, held_back,
            test, unseen) of such folders; or the images of `read_folder`.
        image_size: compute mean and standard deviation from each image as a square of this side, as
            a network sees it. By default, from the image's own pixels, so large images count more.
        progress: whether to show a progress bar on standard error, if that is a terminal.

    Returns:
        `Statistics` of each split, or of the one folder of classes.

    Raises:
        InputError: there are no images.
    """
    data = dataset if isinstance(dataset, LabelledImages) else read_folder(dataset)
    parts: dict[str | None, LabelledImages] = {None: data}
    if data.splits is not None:
        names = ordered_splits(set(data.splits.tolist()))
        parts = {name: data.select(data.splits == name) for name in names}
    found: list[Statistics] = []
    images: list[tuple[Statistics, str]] = []
    for split, part in parts.items():
        sizes = zip(part.items.names, part.items.sizes().tolist(), strict=True)
        found.append(Statistics(split, {name: size for name, size in sizes if size}))
        images += [(found[-1], path) for path in part.paths]
    measured = read_with_threads(
        partial(_measure_image, image_size=image_size),
        (data.root / path for _, path in images),
        len(images),
        progress=progress,
    )
    for (statistics, path), each in zip(images, measured, strict=True):
        statistics.add(path, each)
    return found


def spread(values: Sequence[int]) -> dict[str, float] | None:
    """Return the smallest, the median and the largest of some numbers; None if there are none."""
    if not values:
        return None
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


@dataclass(frozen=True)
class _Measured:
    """Measurements of one image, or the problem with it."""

    problem: str = ""
    size: tuple[int, int] = (0, 0)
    num_bytes: int = 0
    format: str = ""
    mode: str = ""
    sums: Sums = (0, np.zeros(3, np.uint64), np.zeros(3, np.uint64))


def _measure_image(file: Path, image_size: int | None) -> _Measured:
    try:
        pixels = read_image(file, image_size) if image_size else decode_image(file, WHOLE)
        with open_header(file) as header:
            return _Measured(
                size=header.size,
                num_bytes=file.stat().st_size,
                format=header.format or "unknown",
                mode=header.mode,
                sums=_sums(pixels),
            )
    except InputError as error:
        return _Measured(problem=without_path(error, file))
    except OSError as error:  # it was removed meanwhile
        return _Measured(problem=error.strerror or str(error))


def _sums(pixels: UInt8Array) -> Sums:
    """Return the number of pixels, and for each channel the sum and the sum of squares."""
    rows = pixels.reshape(-1, 3)
    sums, squares = np.zeros(3, np.uint64), np.zeros(3, np.uint64)
    for begin in range(0, len(rows), PIXELS_AT_ONCE):
        part = rows[begin : begin + PIXELS_AT_ONCE]
        sums += part.sum(axis=0, dtype=np.uint64)
        squares += np.square(part, dtype=np.uint16).sum(axis=0, dtype=np.uint64)  # 255**2 fits
    return len(rows), sums, squares
