"""Where a model errs on the classes of a collection, and the file of corrections that people make.

The embeddings of the collection tell the errors: no image is read. Everything that the server knows
of corrections is in their file. What the collection says of a class, they replace, before the
collection itself is brought up to date with them.
"""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deep_ranking.datasets.corrections import Correction, CorrectionLog, Corrections
from deep_ranking.datasets.labelled import Labels
from deep_ranking.datasets.labels import normal_label
from deep_ranking.files import InputError
from deep_ranking.files.append_log import now
from deep_ranking.files.words import counted
from deep_ranking.reports.atlas.errors import ModelErrors, find_errors
from deep_ranking.search.collection import Collection, GalleryImage
from deep_ranking.search.index.base import read_rows
from deep_ranking.serving.image_ids import KnownImage
from deep_ranking.serving.kept_files import LOCK_SECONDS, told_of_file
from deep_ranking.serving.opened import ServedCollection
from deep_ranking.serving.problems import RequestError

MOST_IMAGES = 10_000  # that are compared with each other: some seconds on two cores
MOST_FLOATS = 1 << 26  # of their embeddings: 256 MiB


class CollectionErrors(NamedTuple):
    """Where a model errs on a collection.

    Attributes:
        images: those that were compared, each of another content; their labels are corrected.
        names: of the classes, by their codes.
        errors: rows are places in `images`.
        num_left_out: images with a class that were not compared, because there are so many.
    """

    images: list[GalleryImage]
    names: list[str]
    errors: ModelErrors
    num_left_out: int


class Correcting:
    """The corrections of one collection that is served.

    Args:
        served: the collection.
        path: the corrections file, which the first one makes.

    Raises:
        InputError: the file cannot be used, or is about other images.
    """

    def __init__(self, served: ServedCollection, path: Path) -> None:
        self.log = CorrectionLog(path, lock_seconds=LOCK_SECONDS)
        self._lock = threading.Lock()
        self.log.check()
        known = self.log.read()
        said_of = list(known.standing | known.right)
        state = served.current()
        with closing(state.one_index("A list of corrections").images()) as table:
            if said_of and not table.rows_by_path(said_of):
                raise InputError(
                    f"{path}: none of its {counted(len(said_of), 'image')} is in {served.folder}, "
                    f"whose images lie in {state.root}; give the corrections of this collection, "
                    "or a new file"
                )

    def read(self) -> Corrections:
        """Return the corrections that stand.

        Raises:
            RequestError: the file cannot be read.
        """
        with told_of_file(self.log.path, "corrections"):
            return self.log.read()

    def correct(self, image: KnownImage, to_class: str, who: str = "") -> Correction:
        """Keep a correction; when this returns, it is on the disk.

        Args:
            image: the image.
            to_class: its right class; "" if it belongs to none.
            who: says so.

        Returns:
            The correction.

        Raises:
            RequestError: that is its class already, a text cannot stand in the file, or it cannot
                be kept.
        """
        with self._lock:
            known = self.read()
            to_class = normal_label(to_class)
            if to_class == corrected_class(known, image.path, image.label):
                raise RequestError(409, "class: that is its class already.")
            return self._keep(known, image, to_class, who)

    def confirm(self, image: KnownImage, who: str = "") -> Correction:
        """Keep that the class of an image is right; when this returns, it is on the disk.

        Args:
            image: the image.
            who: says so.

        Returns:
            The line of the file.

        Raises:
            RequestError: it was said before, a text cannot stand in the file, or it cannot be kept.
        """
        with self._lock:
            known = self.read()
            label = corrected_class(known, image.path, image.label)
            if is_confirmed(known, image.path, label):
                raise RequestError(409, "right: that was said already.")
            return self._keep(known, image, label, who)

    def _keep(self, known: Corrections, image: KnownImage, to_class: str, who: str) -> Correction:
        from_class = _by_folders(known, image.path, image.label)
        try:
            made = Correction(image.path, from_class, to_class, now(), who, "in the page")
        except InputError as error:
            raise RequestError(422, f"class: {error}.") from None
        with told_of_file(self.log.path, "corrections"):
            self.log.add(made)
        return made

    def take_back(self, image: KnownImage, who: str = "") -> str:
        """Undo the last correction of an image, and return the class that it has then.

        Raises:
            RequestError: there is none, or this cannot be kept.
        """
        with self._lock:
            known = self.read()
            if image.path not in known.standing and image.path not in known.right:
                raise RequestError(409, "There is no correction of this image to take back.")
            with told_of_file(self.log.path, "corrections"):
                self.log.take_back(image.path, time=now(), who=who)
            return corrected_class(self.read(), image.path, image.label)


def corrected_class(known: Corrections, path: str, label: str) -> str:
    """Return the class of an image by the corrections, or else as the collection has it."""
    if path in known.standing:
        return known.standing[path].to_class
    return known.returned.get(path, label)


def is_confirmed(known: Corrections, path: str, label: str) -> bool:
    """Return whether a person said that this class of an image is right."""
    return path in known.right and known.right[path].to_class == label


def _by_folders(known: Corrections, path: str, label: str) -> str:
    """Return the class that the folders say: the collection may have a corrected one."""
    if path in known.standing:
        return known.standing[path].from_class or label
    return known.returned.get(path, label)


def find_collection_errors(
    collection: Collection, correcting: Correcting | None = None
) -> CollectionErrors:
    """Find where a model errs on the classes of a collection, from its embeddings.

    Of a large collection, a random part is compared, the same each time.

    Args:
        collection: the collection.
        correcting: what people say of its classes; None for nothing.

    Raises:
        RequestError: its embeddings are elsewhere, or it has fewer than two classes.
        InputError: its embeddings are damaged.
    """
    if collection.settings.index["kind"] == "milvus":
        raise RequestError(
            409, "The embeddings of this collection lie on a Milvus server; errors are not found."
        )
    known = None if correcting is None else correcting.read()
    rows = np.unique(np.fromiter((each.row for each in _labelled(collection, known)), np.int64))
    most = min(MOST_IMAGES, MOST_FLOATS // collection.settings.dimension)
    num_left_out = max(0, len(rows) - most)
    if num_left_out:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    chosen = set(rows.tolist())
    of_rows: dict[int, GalleryImage] = {}
    for each in _labelled(collection, known):
        if each.row in chosen:
            of_rows.setdefault(each.row, each)
    images = [of_rows[row] for row in rows.tolist()]
    labels = Labels.of([each.label for each in images])
    if len(labels.names) < 2:
        raise RequestError(
            409, "Errors are told by classes: this collection has fewer than two. Index folders."
        )
    embeddings = read_rows(collection.embeddings(), rows)
    confirmed = None
    if known is not None:
        confirmed = np.array([is_confirmed(known, each.path, each.label) for each in images])
    errors = find_errors(embeddings, labels.codes, confirmed=confirmed)
    return CollectionErrors(images, labels.names, errors, num_left_out)


def _labelled(collection: Collection, known: Corrections | None) -> Iterator[GalleryImage]:
    """Yield the images that have a class, with that of the corrections."""
    with closing(collection.images()) as table:
        for image in table.images():
            label = image.label
            if known is not None:
                label = corrected_class(known, image.path, label)
            if label:
                yield GalleryImage(image.path, label, image.row)
