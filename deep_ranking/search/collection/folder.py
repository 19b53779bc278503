"""The folder of a collection: its settings, its files, and the lock of whoever writes to it.

collection.json   version, model, images, index; replaced atomically
model.h5          a copy of the model, so that a search needs nothing but this folder
images.sqlite     path, class, content and row of each image
embeddings.bin    rows of unit length; keys.bin, their contents; blocks.bin, their checksums
*.faiss           what a cluster index keeps
lock, holder      who writes
"""

import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from deep_ranking.files import InputError, atomic_path, make_folder, open_regular, read_text_file
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.row_store import RowStore
from deep_ranking.files.stored_rows import StoredRows
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.header import read_calibration
from deep_ranking.search.collection.image_table import ImageTable

VERSION = 1
SETTINGS, MODEL, IMAGES = "collection.json", "model.h5", "images.sqlite"
LOCK, HOLDER = "lock", "holder"
STORE = ("embeddings.bin", "keys.bin", "blocks.bin")
OWN_FILES = {MODEL, IMAGES, f"{IMAGES}-journal", LOCK, HOLDER, *STORE}
DTYPES = ("float32", "float16")
REMEDY = "run `index --checksum` again, which embeds those images anew"
# The most that `NetworkConfig` allows, and batches ten times larger than any that are made.
MAX_DIMENSION, MAX_IMAGE_SIZE, MAX_BATCH_SIZE = 8192, 1024, 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that a collection was made with.

    Attributes:
        fingerprint: of the model.
        dimension: floats an embedding.
        image_size: side in pixels of the images that the model takes.
        dtype: type of the embeddings on disk.
        batch_size: images that are embedded at once. An image gets the same bytes in every batch
            of one size.
        root: folder of the images, absolute.
        shard: (i, n) for the i-th of n parts of the images, counted from 1; or None.
        index: kind and options of the index.
        version: version of the folder's format.
    """

    fingerprint: str
    dimension: int
    image_size: int
    dtype: str
    batch_size: int
    root: str
    shard: tuple[int, int] | None = None
    index: dict[str, Any] = field(default_factory=lambda: {"kind": "exact"})
    version: int = VERSION

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the settings that `Collection` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: the file is something else, or of a newer version.
        """
        text = read_text_file(file, hint="index the images anew")
        try:
            values = json.loads(text)
            version = int(values["version"])
            if version <= VERSION:
                shard = values.pop("shard")
                settings = cls(shard=shard and (int(shard[0]), int(shard[1])), **values)
                if settings._is_sane():
                    return settings
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            version = 0
        if version > VERSION:
            raise InputError(
                f"{file}: made by a newer version of deep ranking (format {version}, this one "
                f"reads up to {VERSION}); update deep ranking, or index the images anew"
            )
        raise InputError(f"{file}: not what `index` wrote; index the images anew")

    def _is_sane(self) -> bool:
        numbers = (
            (self.dimension, MAX_DIMENSION),
            (self.image_size, MAX_IMAGE_SIZE),
            (self.batch_size, MAX_BATCH_SIZE),
        )
        texts = (self.fingerprint, self.root, self.index["kind"])
        return (
            self.dtype in DTYPES
            and all(type(number) is int and 0 < number <= most for number, most in numbers)
            and all(type(text) is str for text in texts)
            and b"\0" not in os.fsencode(self.root)
            and all(type(self.index.get(name, 1)) is int for name in ("probes", "clusters"))
            and self.index.get("probes", 1) >= 1
            and self.index.get("clusters", 0) >= 0
            and 0 < self.index.get("target_recall", 1) <= 1
            and all(type(self.index.get(name, "")) is str for name in ("uri", "name"))
            and (self.index["kind"] != "milvus" or "uri" in self.index)
            and (self.shard is None or 1 <= self.shard[0] <= self.shard[1])
        )


class Collection:
    """An open collection.

    Args:
        folder: a folder that `make` or `open` checked.
        settings: the settings.

    Attributes:
        folder: as given.
        settings: the settings, as on disk.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a collection.

        Raises:
            InputError: there is none, it is damaged, or of a newer version.
        """
        folder = Path(folder)
        file = folder / SETTINGS
        missing = InputError(
            f"{folder}: no index here; make one with: python -m deep_ranking index --model M "
            f"--images DIR --output {folder}"
        )
        if not folder.is_dir() or not file.is_file():
            raise missing
        try:
            _check_own_files(folder)
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
        _check_vacant(folder)
        collection = cls(folder, settings)
        collection._copy_model(model)
        ImageTable(folder / IMAGES, writable=True).close()
        if is_complete:
            collection.change()
        return collection

    def change(self, **changes: Any) -> None:
        """Replace some of the settings, and write them all to the disk."""
        settings = replace(self.settings, **changes)
        with atomic_path(self.folder / SETTINGS) as temporary:
            temporary.write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
        self.settings = settings

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

    @cached_property
    def calibration(self) -> Calibration | None:
        """The calibration of the model: what its distances mean."""
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
        """Copy the model file again if it was calibrated since."""
        if read_calibration(model) != self.calibration:
            self._copy_model(model)
            vars(self).pop("calibration", None)

    def _copy_model(self, model: Path) -> None:
        with atomic_path(self.model) as temporary:
            shutil.copyfile(model, temporary)


def _check_vacant(folder: Path) -> None:
    """Refuse a folder with files that do not belong to an unfinished collection."""
    names = {each.name for each in folder.iterdir() if not each.name.startswith(".writing-")}
    if others := names - OWN_FILES:
        raise InputError(
            f"{folder}: holds other files, such as {min(others)}; choose a folder of its own"
        )


def _check_own_files(folder: Path) -> None:
    """Refuse links, pipes and the like: a link would be written through, a pipe never ends."""
    names = OWN_FILES | {SETTINGS, "milvus.name", f"{IMAGES}-wal", f"{IMAGES}-shm"}
    for each in sorted(folder.iterdir()):
        if each.name not in names and each.suffix != ".faiss":
            continue
        with suppress(FileNotFoundError):  # the journal of a change that ended meanwhile
            if not stat.S_ISREG(each.lstat().st_mode):
                raise InputError(
                    f"{each}: a link, or not a regular file; all files of an index must lie in its "
                    "folder"
                )


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a collection, or of a folder that is to become one.

    Raises:
        InputError: another process holds it, and which one; or the folder cannot be made, or holds
            other files.
    """
    folder = make_folder(folder)
    _check_own_files(folder)
    if not (folder / SETTINGS).exists():
        _check_vacant(folder)  # before anything is written into it
    holder = folder / HOLDER
    try:
        with FileLock(folder / LOCK, timeout=0):
            name = f"process {os.getpid()} on {socket.gethostname()}"
            since = datetime.now().astimezone().isoformat(" ", "seconds")
            with atomic_path(holder) as temporary:
                temporary.write_text(f"{name} since {since}\n", encoding="utf-8")
            yield
    except Timeout:
        try:
            with open_regular(holder) as file:
                who = file.read(1000).decode(errors="replace").strip()
        except OSError:
            who = "another process"
        raise InputError(f"{folder}: being written to by {who}; wait for it, or stop it") from None
