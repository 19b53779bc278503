"""One pass that reads every image file of a data set once, and keeps what the checks need.

This takes about a hundred bytes an image beside its path, whatever the image's size.
"""

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from deep_ranking.datasets import LabelledImages, Labels
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array, UInt8Array
from deep_ranking.files.content_digest import data_digest
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images import decode_bytes, open_header, read_file, resample
from deep_ranking.images.hand_made_features import HASH_IMAGE_SIZE
from deep_ranking.images.near_copies import GLANCE, hash_and_glance
from deep_ranking.reports.doctor.findings import Item
from deep_ranking.reports.doctor.parts import Part

IMAGES_AT_ONCE = 1024
MAX_THREADS = 8  # each holds one image
DIGEST_BYTES = 32


class ImageFacts(NamedTuple):
    """What the survey keeps of one image; of a broken one, only the problem."""

    problem: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    digest: bytes = bytes(DIGEST_BYTES)
    hash: UInt8Array = np.zeros(8, np.uint8)
    glance: UInt8Array = np.zeros(GLANCE * GLANCE * 3, np.uint8)


class PartSummary(NamedTuple):
    """The size of one part."""

    name: str
    num_images: int
    num_readable: int
    num_classes: int
    is_trained: bool


class Survey:
    """The images of all parts, numbered in the order of the parts and their paths.

    Args:
        root: folder of the data set.
        parts: its parts.

    Attributes:
        part: int32 (images,), number of the part.
        is_trained: bool (images,), whether training learns from the part.
        is_judged: bool (images,), whether training is judged on the part.
        label: int32 (images,), index into `classes`.
        classes: names of all classes, sorted; parts share the classes of the same name.
        problems: the problem of each image that cannot be read, by its number.
        readable: bool (images,).
        width: int32 (images,), pixels as stored; this and all below are 0 for a broken image.
        height: int32 (images,).
        format: int32 (images,), index into `formats`.
        mode: int32 (images,), index into `modes`, Pillow's names.
        digests: uint8 (images, 32), of the file's content.
        hashes: uint8 (images, 8), perceptual.
        glances: uint8 (images, 48), colours at a glance.
        seconds: time that the pass took.
    """

    def __init__(self, root: Path, parts: Sequence[Part]) -> None:
        self.root = root
        self.parts = list(parts)
        sizes = [len(part.images) for part in parts]
        self._ends = np.cumsum(sizes)
        count = sum(sizes)
        self.part = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
        self.is_trained = np.array([part.is_trained for part in parts])[self.part]
        self.is_judged = np.array([part.is_judged for part in parts])[self.part]
        items = [part.images.items for part in parts]
        labels = Labels.of([each.names[code] for each in items for code in each.codes.tolist()])
        self.label, self.classes = labels.codes, labels.names
        self.problems: dict[int, str] = {}
        self.readable = np.zeros(count, bool)
        self.width = np.zeros(count, np.int32)
        self.height = np.zeros(count, np.int32)
        self.formats: list[str] = []
        self.modes: list[str] = []
        self.format = np.zeros(count, np.int32)
        self.mode = np.zeros(count, np.int32)
        self.digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self.hashes = np.zeros((count, 8), np.uint8)
        self.glances = np.zeros((count, GLANCE * GLANCE * 3), np.uint8)
        self.seconds = 0.0

    def __len__(self) -> int:
        """Return the number of images, broken ones included."""
        return len(self.part)

    @property
    def trained_images(self) -> LabelledImages:
        """The images that are trained on, in order."""
        return next(part.images for part in self.parts if part.is_trained)

    def summary(self) -> list[PartSummary]:
        """Return the number of images and classes of each part."""
        return [
            PartSummary(
                part.name,
                len(part.images),
                int(self.readable[self.part == number].sum()),
                part.images.items.num_names,
                part.is_trained,
            )
            for number, part in enumerate(self.parts)
        ]

    def file(self, number: int) -> Path:
        """Return the file of an image."""
        part, path = self._place(number)
        return part.images.root / path

    def path(self, number: int) -> str:
        """Return the path of an image as it is shown."""
        part, path = self._place(number)
        return part.prefix + path

    def format_of(self, number: int) -> str:
        """Return Pillow's name of an image's file format."""
        return self.formats[int(self.format[number])]

    def item(self, number: int, detail: str = "") -> Item:
        """Return an image for a finding."""
        return Item(self.path(number), self.file(number), detail)

    def sized_items(self, numbers: Iterable[int] | Int64Array) -> list[Item]:
        """Return images for a finding, with their sizes."""
        return [self.item(int(n), f"{self.width[n]}x{self.height[n]}") for n in numbers]

    def record(self, number: int, facts: ImageFacts) -> None:
        """Record what is known of an image."""
        if facts.problem:
            self.problems[number] = facts.problem
            return
        self.readable[number] = True
        self.width[number], self.height[number] = facts.width, facts.height
        self.format[number] = _number_of(facts.format, self.formats)
        self.mode[number] = _number_of(facts.mode, self.modes)
        self.digests[number] = np.frombuffer(facts.digest, np.uint8)
        self.hashes[number], self.glances[number] = facts.hash, facts.glance

    def _place(self, number: int) -> tuple[Part, str]:
        part = self.parts[self.part[number]]
        begin = self._ends[self.part[number]] - len(part.images)
        return part, part.images.paths[number - begin]


def survey_images(root: Path, parts: Sequence[Part], *, progress: bool = False) -> Survey:
    """Read all images of a data set.

    Args:
        root: folder of the data set.
        parts: result of `find_parts`.
        progress: whether to show a progress bar on standard error, if that is a terminal.

    Returns:
        The `Survey`.
    """
    survey = Survey(root, parts)
    cv2.setNumThreads(1)  # OpenCV's own threads would compete with these
    start = time.monotonic()
    bar = progress_bar(total=len(survey), title="reading", unit="images", shown=progress)
    with bar, ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as threads:
        try:
            for begin in range(0, len(survey), IMAGES_AT_ONCE):
                numbers = range(begin, min(begin + IMAGES_AT_ONCE, len(survey)))
                files = [survey.file(number) for number in numbers]
                for number, facts in zip(numbers, threads.map(inspect_image, files), strict=True):
                    survey.record(number, facts)
                    bar.update()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # an interrupt ends it soon
            raise
    survey.seconds = time.monotonic() - start
    return survey


def inspect_image(file: Path) -> ImageFacts:
    """Read an image file once, and return what it is or what is wrong with it."""
    try:
        data = read_file(file)
        pixels = decode_bytes(data, HASH_IMAGE_SIZE, file)
        with open_header(file, data) as header:
            width, height = header.size
            kind, mode = header.format or "unknown", header.mode
    except InputError as error:
        return ImageFacts(problem=str(error).removeprefix(f"{file}: "))
    look = hash_and_glance(resample(pixels, HASH_IMAGE_SIZE))
    return ImageFacts("", width, height, kind, mode, data_digest(data), *look)


def _number_of(name: str, names: list[str]) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)
