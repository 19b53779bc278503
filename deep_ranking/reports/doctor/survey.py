"""One pass over all images of a data set, each file read once: what the checks go by.

What is kept of an image takes about a hundred bytes beside its path, whatever its size.
"""

import hashlib
import io
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from deep_ranking.datasets import hold_back_classes
from deep_ranking.datasets.layout import split_folders
from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Int64Array, UInt8Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images import (
    FORMATS,
    ImageListing,
    decode_bytes,
    find_images,
    read_file,
    resample,
)
from deep_ranking.images.hand_made_features import HASH_IMAGE_SIZE
from deep_ranking.images.near_copies import GLANCE, hash_and_glance
from deep_ranking.reports.doctor.findings import Item

IMAGES_AT_ONCE = 1024
MAX_THREADS = 8  # each holds one image
DIGEST_BYTES = 16
TRAIN = "train"


@dataclass(frozen=True)
class Part:
    """A folder of classes, or the classes of it that are held back.

    Attributes:
        name: of the split; "" for a data set without any.
        listing: its images.
        prefix: what goes before their paths where they are shown.
        is_trained: whether training learns from it.
        is_judged: whether training is judged on it.
        must_be_unseen: whether its classes are to be none of those that are trained on.
    """

    name: str
    listing: ImageListing
    prefix: str = ""
    is_trained: bool = False
    is_judged: bool = False
    must_be_unseen: bool = False


class Seen(NamedTuple):
    """What is kept of one image; of a broken one, only the problem with it."""

    problem: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    num_bytes: int = 0
    digest: bytes = bytes(DIGEST_BYTES)
    hash: UInt8Array = np.zeros(8, np.uint8)
    glance: UInt8Array = np.zeros(GLANCE * GLANCE * 3, np.uint8)


class Survey:
    """The images of all parts, numbered in the order of the parts and their listings.

    Args:
        root: the data set.
        parts: its parts.

    Attributes:
        part: int32 (images,), number of the part.
        label: int32 (images,), index into `classes`.
        classes: names of all classes, sorted; a class of two parts is one.
        problems: what is wrong with each image that cannot be read.
        readable: bool (images,).
        width: int32 (images,), pixels as stored; as all that follow, 0 for a broken image.
        height: int32 (images,).
        num_bytes: int64 (images,), of the file.
        format: int32 (images,), index into `formats`.
        mode: int32 (images,), index into `modes`, Pillow's words.
        digests: uint8 (images, 16), of the file's content.
        hashes: uint8 (images, 8), perceptual.
        glances: uint8 (images, 48), colours at a glance.
        seconds: what the pass took.
    """

    def __init__(self, root: Path, parts: Sequence[Part]) -> None:
        self.root = root
        self.parts = list(parts)
        sizes = [len(part.listing.paths) for part in parts]
        self._ends = np.cumsum(sizes)
        count = sum(sizes)
        self.part = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
        self.classes = sorted({name for part in parts for name in part.listing.classes})
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.label = np.concatenate(
            [
                np.array([numbers[name] for name in part.listing.classes], np.int32)[
                    part.listing.labels
                ]
                for part in parts
            ]
        )
        self.problems: dict[int, str] = {}
        self.readable = np.zeros(count, bool)
        self.width = np.zeros(count, np.int32)
        self.height = np.zeros(count, np.int32)
        self.num_bytes = np.zeros(count, np.int64)
        self.formats: list[str] = []
        self.modes: list[str] = []
        self.format = np.zeros(count, np.int32)
        self.mode = np.zeros(count, np.int32)
        self.digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self.hashes = np.zeros((count, 8), np.uint8)
        self.glances = np.zeros((count, GLANCE * GLANCE * 3), np.uint8)
        self.seconds = 0.0

    def __len__(self) -> int:
        """Give the number of images, broken ones too."""
        return len(self.part)

    def file(self, number: int) -> Path:
        """Give the file of an image."""
        part, path = self._place(number)
        return part.listing.root / path

    def path(self, number: int) -> str:
        """Give the path of an image as it is shown."""
        part, path = self._place(number)
        return part.prefix + path

    def class_of(self, number: int) -> str:
        """Give the class of an image."""
        name: str = self.classes[self.label[number]]
        return name

    def item(self, number: int, detail: str = "") -> Item:
        """Give an image as findings show it."""
        return Item(self.path(number), self.file(number), detail)

    def items(self, numbers: Sequence[int] | Int64Array, detail: str = "") -> Iterator[list[Item]]:
        """Give images as findings show them, each by itself."""
        return ([self.item(int(number), detail)] for number in numbers)

    def where(self, *, trained: bool | None = None, judged: bool | None = None) -> BoolArray:
        """Say which images are in a part that is trained on, or judged on: bool (images,)."""
        wanted = [
            (trained is None or part.is_trained == trained)
            and (judged is None or part.is_judged == judged)
            for part in self.parts
        ]
        return np.array(wanted, bool)[self.part]

    def enter(self, number: int, seen: Seen) -> None:
        """Keep what was seen of an image."""
        if seen.problem:
            self.problems[number] = seen.problem
            return
        self.readable[number] = True
        self.width[number], self.height[number] = seen.width, seen.height
        self.num_bytes[number] = seen.num_bytes
        self.format[number] = _number_of(seen.format, self.formats)
        self.mode[number] = _number_of(seen.mode, self.modes)
        self.digests[number] = np.frombuffer(seen.digest, np.uint8)
        self.hashes[number], self.glances[number] = seen.hash, seen.glance

    def _place(self, number: int) -> tuple[Part, str]:
        part = self.parts[self.part[number]]
        begin = self._ends[self.part[number]] - len(part.listing.paths)
        return part, part.listing.paths[number - begin]


def find_parts(
    root: Path, *, validation: Path | None = None, validation_share: float | None = None
) -> list[Part]:
    """List the parts of a data set: its splits, if its folders are named so, and what is judged on.

    Args:
        root: folder with one folder a class, or one a split, of which `train` is trained on, or
            the first if there is no such.
        validation: another folder of classes, to judge on.
        validation_share: share of the classes that training holds back to judge on; where they are
            too few for that, none is.

    Raises:
        InputError: a folder is none, or holds no images of classes.
    """
    if splits := split_folders(root) if root.is_dir() else []:
        trained = TRAIN if TRAIN in splits else splits[0]
        parts = [
            Part(
                name,
                find_images(root / name),
                f"{name}/",
                is_trained=name == trained,
                must_be_unseen=name == "unseen",
            )
            for name in splits
        ]
    else:
        parts = [Part("", find_images(root), is_trained=True)]
    if validation_share is not None:
        parts = [each for part in parts for each in _held_back(part, validation_share)]
    if validation is not None:
        listing = find_images(validation)
        parts.append(
            Part("validation", listing, f"{validation}/", is_judged=True, must_be_unseen=True)
        )
    return parts


def survey_images(root: Path, parts: Sequence[Part], *, progress: bool = False) -> Survey:
    """Read all images.

    Args:
        root: the data set.
        parts: as `find_parts` gives them.
        progress: whether to show a progress bar on standard error, if that is a terminal.
    """
    found = Survey(root, parts)
    cv2.setNumThreads(1)  # OpenCV's own threads would get in the way of these
    start = time.monotonic()
    bar = progress_bar(total=len(found), title="reading", unit="images", shown=progress)
    with bar, ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as threads:
        try:
            for begin in range(0, len(found), IMAGES_AT_ONCE):
                numbers = range(begin, min(begin + IMAGES_AT_ONCE, len(found)))
                files = [found.file(number) for number in numbers]
                for number, seen in zip(numbers, threads.map(look_at, files), strict=True):
                    found.enter(number, seen)
                    bar.update()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # an interrupt ends it soon
            raise
    found.seconds = time.monotonic() - start
    return found


def look_at(file: Path) -> Seen:
    """Read an image file once, and say what it is or what is wrong with it."""
    try:
        data = read_file(file)
        pixels = decode_bytes(data, HASH_IMAGE_SIZE, file)
    except InputError as error:
        return Seen(problem=str(error).removeprefix(f"{file}: "))
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        width, height = header.size
        kind, mode = header.format or "unknown", header.mode
    digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
    seen = hash_and_glance(resample(pixels, HASH_IMAGE_SIZE))
    return Seen("", width, height, kind, mode, len(data), digest, *seen)


def _held_back(part: Part, share: float) -> list[Part]:
    """Split what is trained on as `--validation_share` does."""
    if not part.is_trained:
        return [part]
    listing = part.listing
    try:
        held = hold_back_classes(listing.labels, share, seed=0)  # as `class_folders` does
    except InputError:  # `checks` says so
        return [part]
    name = f"{part.name} held back".strip()
    return [
        replace(part, listing=_selected(listing, ~held)),
        Part(name, _selected(listing, held, first=False), part.prefix, is_judged=True),
    ]


def _selected(listing: ImageListing, chosen: BoolArray, *, first: bool = True) -> ImageListing:
    """Give some of the images; only the first selection goes on counting what was left out."""
    paths = [listing.paths[number] for number in np.flatnonzero(chosen)]
    found, labels = np.unique(listing.labels[chosen], return_inverse=True)
    classes = [listing.classes[number] for number in found]
    counts = (listing.num_unlistable, listing.num_outside, listing.num_seen_again)
    return ImageListing(
        listing.root, paths, labels.astype(np.int32), classes, *(counts if first else (0, 0, 0))
    )


def _number_of(name: str, names: list[str]) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)
