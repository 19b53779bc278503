"""The folder of a collection: its settings, and its files.

collection.json   version, model, images, index; replaced atomically
model.h5          a copy of the model, so that a search needs nothing but this folder
model.*.litert    the model compiled
images.sqlite     path, class, content and row of each image
embeddings.bin    rows of unit length; keys.bin, their contents; blocks.bin, their checksums
*.faiss           what a cluster index keeps
smoothed.bin      the smoothed rows, if there are any: see `smoothed_rows`
parts.json        which parts of a Parquet table it has: see `search.table.parts`
lock, holder      who writes
"""

import json
import os
import shutil
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from deep_ranking.datasets.labels import FIRST, label_in_words
from deep_ranking.files import InputError, atomic_path, make_folder
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.html import paragraph
from deep_ranking.files.row_store import RowStore
from deep_ranking.files.stored_rows import StoredRows
from deep_ranking.files.words import counted
from deep_ranking.model.calibration import Calibration
from deep_ranking.search.collection.image_table import ImageTable
from deep_ranking.search.collection.own_files import (
    IMAGES,
    MODEL,
    SETTINGS,
    check_own_files,
    check_vacant,
)
from deep_ranking.search.collection.searchable import Searchable
from deep_ranking.search.collection.settings import VERSION, Settings
from deep_ranking.search.collection.table_schema import change_counter

if TYPE_CHECKING:
    from deep_ranking.model.header import ModelHeader
    from deep_ranking.search.index.base import Index

RETRY_SECONDS = 60.0
REMEDY = "run `index --checksum` again, which embeds those images anew"


class Collection(Searchable):
    """An open collection.

    Args:
        folder: a folder that `make` or `open` checked.
        settings: the settings.

    Attributes:
        folder: as given.
        settings: the settings, as on disk.
        retry_seconds: how long to retry when a server that has the index does not answer.

    Example:
        >>> Collection.open("photos.index").settings.image_size
        32
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__()
        self.folder = folder
        self.settings = settings
        self.retry_seconds = RETRY_SECONDS
        self._classes: tuple[int, dict[str, int]] | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a collection.

        Example:
            >>> Collection.open("photos.index")
            photos.index: 12 images of ...photos in index exact

        Raises:
            InputError: there is none, it is damaged, or of a newer version.
        """
        folder = Path(folder)
        file = folder / SETTINGS
        missing = InputError(
            f"{folder}: no index here; make one with: python -m deep_ranking index --model M "
            f"--images DIR --output {folder}"
        )
        if folder.is_file():
            raise InputError(
                f"{folder}: a file, not the folder of an index; `search` and `serve` take lists of "
                "shards, and `merge` makes one index of them"
            )
        if not folder.is_dir() or not file.is_file():
            raise missing
        try:
            check_own_files(folder)
            settings = Settings.read(file)
        except FileNotFoundError:  # removed meanwhile
            raise missing from None
        for name in (MODEL, IMAGES):
            if not (folder / name).is_file():
                raise InputError(f"{folder}: has no {name}; index the images anew")
        return cls(folder, settings)

    @classmethod
    def make(
        cls,
        folder: str | os.PathLike[str],
        settings: Settings,
        model: Path,
        *,
        is_complete: bool = True,
    ) -> Self:
        """Make a collection without images.

        Unless `is_complete`, its settings are not on disk, and it cannot be opened until `change`.

        Raises:
            InputError: it cannot be written, or holds other files.
        """
        folder = make_folder(folder)
        check_vacant(folder)
        collection = cls(folder, settings)
        collection._copy_model(model)
        ImageTable(folder / IMAGES, writable=True).close()
        if is_complete:
            collection.change()
        return collection

    def change(self, **changes: Any) -> None:
        """Replace some of the settings, and write them all to the disk."""
        settings = replace(self.settings, **changes, version=VERSION)
        with atomic_path(self.folder / SETTINGS) as temporary:
            temporary.write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
        self.settings = settings

    def __repr__(self) -> str:
        with closing(self.images()) as images:
            count = len(images)
        return (
            f"{self.folder}: {counted(count, 'image')} of {self.settings.root} in index "
            f"{self.settings.index['kind']}"
        )

    def _repr_html_(self) -> str:
        return paragraph(repr(self))

    def describe(self) -> str:
        """Return in words how many images and classes there are, and what makes a class."""
        classes = self.classes()
        folders = self.settings.folder_config()
        labelled_by = folders.classes or label_in_words(folders.label or FIRST)
        num_classes = counted(sum(map(bool, classes)), "class")
        return f"{counted(sum(classes.values()), 'image')}, {num_classes} ({labelled_by})."

    @property
    def model(self) -> Path:
        """Path of the model file."""
        return self.folder / MODEL

    @property
    def store(self) -> RowStore:
        """The embeddings."""
        width, dtype = self.settings.dimension, self.settings.dtype
        return RowStore(self.folder, "embeddings", width, dtype, remedy=REMEDY)

    def images(self, *, writable: bool = False) -> ImageTable:
        """Open the table of images."""
        return ImageTable(self.folder / IMAGES, writable=writable)

    def num_changes(self) -> int:
        """Return SQLite's count of the changes of the images: the same while nothing changes."""
        return change_counter(self.folder / IMAGES)

    def classes(self) -> dict[str, int]:
        """Return the number of images of each class that can be found, by name; "" for none.

        They are counted once for each state of the images, as that reads all of these.
        """
        counter = self.num_changes()  # before: what changes meanwhile is then counted again
        if self._classes is None or self._classes[0] != counter:
            with closing(self.images()) as images:
                self._classes = counter, images.classes()
        return self._classes[1]

    def embeddings(self) -> StoredRows:
        """Return the embeddings, (rows, dimension), also of images that are gone.

        They are memory-mapped, and checked when they are read.

        Raises:
            InputError: some are missing.
        """
        with closing(self.images()) as images:
            needed = images.num_rows_needed()
        rows = self.store.rows()
        if len(rows) < needed:
            raise InputError(
                f"{self.folder}: embeddings.bin or keys.bin is cut off or missing; run `index` "
                "again, which embeds what is lost"
            )
        return rows

    def rows(self) -> Int64Array:
        """Return the rows of the images that can be found, in rising order: int64 (rows,)."""
        with closing(self.images()) as images:
            return images.rows()

    def open_index(self) -> "Index":
        """Open the index; it has no rows if it is not built yet.

        Raises:
            InputError: it is damaged, or its server does not answer.
        """
        from deep_ranking.search.index.kinds import open_index  # late: it imports this package

        return open_index(self)

    @cached_property
    def calibration(self) -> Calibration | None:
        """The calibration of the model: what its distances mean."""
        from deep_ranking.model.header import read_calibration

        return read_calibration(self.model)

    def check_model(self, fingerprint: str) -> None:
        """Refuse a model other than the collection's.

        Raises:
            InputError: it is another model; with both fingerprints.
        """
        if fingerprint != self.settings.fingerprint:
            raise InputError(
                f"{self.folder}: made by the model {self.settings.fingerprint}, not by this one, "
                f"{fingerprint}, whose embeddings do not compare; choose another --output, or "
                "remove the folder to embed all images anew"
            )

    def take_calibration(self, model: Path) -> None:
        """Take over the calibration of the model file, if it was calibrated since.

        The rest of the collection's copy stays: it names the compiled files of the rows.
        """
        from deep_ranking.model.header import read_calibration, store_calibration

        calibration = read_calibration(model)
        if calibration is not None and calibration != self.calibration:
            store_calibration(self.model, calibration)
            vars(self).pop("calibration", None)
            vars(self).pop("embedder", None)

    def take_compiled(self, model: Path, header: "ModelHeader") -> None:
        """Copy compiled files of the model file that the collection does not have.

        Args:
            model: the model file.
            header: its header.
        """
        from deep_ranking.embedding.compiled.places import copy_compiled

        copy_compiled(model, header, self.model)
        vars(self).pop("embedder", None)

    def _copy_model(self, model: Path) -> None:
        from deep_ranking.model.header import read_header

        with atomic_path(self.model) as temporary:
            shutil.copyfile(model, temporary)
        self.take_compiled(model, read_header(model))


def moved_hint(collection: Searchable) -> str:
    """Return what to do if the folder of the images is gone, as part of a sentence."""
    return (
        f"if the images were moved, run `index --output {collection.folder} --images DIR` with the "
        "folder where they are now: no image is embedded again"
    )
