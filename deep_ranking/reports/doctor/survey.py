"""The parts of a data set, and one pass that reads every image file of them once.

Parts are its splits, the classes that training holds back, and a validation folder. The pass keeps
what the checks need: about a hundred bytes an image beside its path, whatever the image's size.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deep_ranking.config import TrainConfig
from deep_ranking.datasets import LabelledImages, Labels, hold_back_classes, take_split
from deep_ranking.datasets.splits import (
    TO_TRAIN,
    TO_VALIDATE,
    TRAIN,
    UNSEEN,
    ordered_splits,
    split_kind,
    split_to_take,
)
from deep_ranking.files import InputError, without_path
from deep_ranking.files.array_types import BoolArray, Int64Array, UInt8Array
from deep_ranking.files.content_digest import data_digest
from deep_ranking.files.words import listed
from deep_ranking.images import (
    decode_with_notes,
    open_header,
    read_file,
    read_with_threads,
    resample,
)
from deep_ranking.images.hand_made_features import HASH_IMAGE_SIZE
from deep_ranking.images.near_copies import GLANCE, hash_and_glance
from deep_ranking.reports.doctor.findings import Item
from deep_ranking.training.split_choice import validation_split


@dataclass(frozen=True)
class Part:
    """A folder of classes, or some of its classes where training holds the others back.

    Attributes:
        name: name of the split; "" for a data set without splits.
        images: the images of the part, labelled by class.
        prefix: text before the paths of the part where they are shown.
        is_trained: whether training learns from it.
        is_judged: whether training is judged on it.
        must_be_unseen: whether none of its classes may be trained on.
    """

    name: str
    images: LabelledImages
    prefix: str = ""
    is_trained: bool = False
    is_judged: bool = False
    must_be_unseen: bool = False

    @property
    def classes(self) -> list[str]:
        """Names of the classes that have images here, sorted."""
        items = self.images.items
        return [items.names[code] for code in np.unique(items.codes)]


class ImageFacts(NamedTuple):
    """What the survey keeps of an image that can be read."""

    width: int
    height: int
    format: str
    mode: str
    digest: bytes
    hash: UInt8Array
    glance: UInt8Array
    notes: tuple[str, ...] = ()


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
        confirmed: bool (images,), whose class is right, as a person said.
        problems: the problem of each image that cannot be read, by its number.
        readable: bool (images,).
        width: int32 (images,), pixels as stored; this and all below are 0 for a broken image.
        height: int32 (images,).
        format: int32 (images,), number of the file format in `formats`.
        mode: int32 (images,), number of the colour mode in `modes`, by Pillow's names.
        notes: what was decided about images that do not say how they are to be shown, by number.
        digests: 32 bytes (images,), of the file's content.
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
        confirmed = [
            np.zeros(len(part.images), bool)
            if part.images.confirmed is None
            else part.images.confirmed
            for part in parts
        ]
        self.confirmed = np.concatenate([np.zeros(0, bool), *confirmed])
        self.problems: dict[int, str] = {}
        self.notes: dict[int, tuple[str, ...]] = {}
        self.readable = np.zeros(count, bool)
        self.width, self.height, self.format, self.mode = np.zeros((4, count), np.int32)
        self.formats: dict[str, int] = {}
        self.modes: dict[str, int] = {}
        self.digests = np.zeros(count, "V32")
        self.hashes = np.zeros((count, 8), np.uint8)
        self.glances = np.zeros((count, GLANCE * GLANCE * 3), np.uint8)
        self.seconds = 0.0

    def __len__(self) -> int:
        """Return the number of images, broken ones included."""
        return len(self.part)

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
        return list(self.formats)[int(self.format[number])]

    def class_names(self, codes: Int64Array) -> str:
        """Return the names of the first of some classes, and the number of the others."""
        return listed([self.classes[code] for code in codes])

    def class_sizes(self, chosen: BoolArray) -> Int64Array:
        """Return the number of chosen images of each class."""
        return np.bincount(self.label[chosen], minlength=len(self.classes))

    def item(self, number: int, detail: str = "") -> Item:
        """Return an image for a finding."""
        return Item(self.path(number), self.file(number), detail)

    def sized_items(self, numbers: Iterable[int] | Int64Array) -> list[Item]:
        """Return images for a finding, with their sizes."""
        return [self.item(int(n), f"{self.width[n]}x{self.height[n]}") for n in numbers]

    def record(self, number: int, facts: ImageFacts | str) -> None:
        """Record what is known of an image, or its problem."""
        if isinstance(facts, str):
            self.problems[number] = facts
            return
        self.readable[number] = True
        if facts.notes:
            self.notes[number] = facts.notes
        self.width[number], self.height[number] = facts.width, facts.height
        self.format[number] = self.formats.setdefault(facts.format, len(self.formats))
        self.mode[number] = self.modes.setdefault(facts.mode, len(self.modes))
        self.digests[number] = facts.digest
        self.hashes[number], self.glances[number] = facts.hash, facts.glance

    def _place(self, number: int) -> tuple[Part, str]:
        part = self.parts[self.part[number]]
        begin = self._ends[self.part[number]] - len(part.images)
        return part, part.images.paths[number - begin]


def find_parts(data: LabelledImages, config: TrainConfig) -> list[Part]:
    """List the images of each part of a data set.

    Args:
        data: its images. Of splits, training learns from the one that `take_split` takes; a run on
            a triplet file, drawn before, from any: from the first if none is named train.
        config: the planned run, which says which images training holds back or validates on. With
            too few classes for `validation_share`, none is held back.

    Returns:
        The parts, exactly one of them trained on.

    Raises:
        InputError: there is no such split; or the folder to validate on has no images of classes.
    """
    whole = [Part("", data, is_trained=True)]
    parts = whole if data.splits is None else _split_parts(data, config)
    for flag, name in (("split", config.split), ("validation_split", config.validation_split)):
        if data.splits is None and name is not None:
            raise InputError(f"{data.root}: has no splits; leave out --{flag} {name}")
    if config.validation_share is not None:
        parts = [each for part in parts for each in _hold_back(part, config.validation_share)]
    if (validation := config.validation_dataset) is not None:
        given = config.read(validation, with_files=False)
        images = take_split(given, TO_VALIDATE)
        parts.append(
            Part("validation", images, f"{validation}/", is_judged=True, must_be_unseen=True)
        )
    return parts


def _split_parts(data: LabelledImages, config: TrainConfig) -> list[Part]:
    split_of = np.asarray(data.splits)
    names = ordered_splits(set(split_of.tolist()) - {""})
    judged = None
    if config.reads_folders:
        trained = split_to_take(data, TO_TRAIN, config.split)
        judged = validation_split(config, data)
        if judged is not None:
            split_to_take(data, (), judged)  # refuses one that is not there
    else:
        trained = next((each for each in names if split_kind(each) == TRAIN), names[0])
    return [
        Part(
            name,
            data.select(split_of == name),
            is_trained=name == trained,
            is_judged=name == judged,
            must_be_unseen=split_kind(name) == UNSEEN,
        )
        for name in names
    ]


def _hold_back(part: Part, share: float) -> list[Part]:
    """Split the part that is trained on as `--validation_share` does; leave the others whole."""
    if not part.is_trained:
        return [part]
    try:
        held = hold_back_classes(part.images.items.codes, share, seed=0)  # as training does
    except InputError:  # `check_classes` reports it
        return [part]
    return [
        replace(part, images=part.images.select(~held)),
        replace(
            part,
            name=f"{part.name} held back".strip(),
            images=part.images.select(held),
            is_trained=False,
            is_judged=True,
        ),
    ]


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
    start = time.monotonic()
    files = map(survey.file, range(len(survey)))
    facts = read_with_threads(_inspect_image, files, len(survey), progress=progress)
    for number, each in enumerate(facts):
        survey.record(number, each)
    survey.seconds = time.monotonic() - start
    return survey


def _inspect_image(file: Path) -> ImageFacts | str:
    """Read an image file once, and return what it is or what is wrong with it."""
    try:
        data = read_file(file)
        pixels, notes = decode_with_notes(data, HASH_IMAGE_SIZE, file)
        with open_header(file, data) as header:
            width, height = header.size
            kind, mode = header.format or "unknown", header.mode
    except InputError as error:
        return without_path(error, file)
    look = hash_and_glance(resample(pixels, HASH_IMAGE_SIZE))
    return ImageFacts(width, height, kind, mode, data_digest(data), *look, notes)
