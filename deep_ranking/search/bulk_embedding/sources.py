"""Where the bytes of images come from: a folder of this machine, or an object store.

A source can be pickled; each process opens it anew. It tells an image that is gone, or is another
one than was listed, from one that is broken, and both from a store that does not answer.
"""

import os
import stat
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from deep_ranking.config import FolderConfig
from deep_ranking.datasets import LabelledImages, label_listing
from deep_ranking.datasets.labels import FIRST
from deep_ranking.files import InputError
from deep_ranking.files.addresses import is_address, local_path, open_store, store_errors
from deep_ranking.files.content_digest import file_status
from deep_ranking.images import ImageListing, list_names, read_file
from deep_ranking.images.decoding import MAX_FILE_BYTES

READERS_OF_STORES = 32
"""Threads that read objects: each waits for the store most of the time."""

# What stores say of the state of an object, the most exact first.
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


class GoneError(InputError):
    """An image was there when it was listed, and is gone."""


class ChangedError(InputError):
    """An image is another one than was listed."""


class Source(Protocol):
    """What images are read from.

    Attributes:
        root: folder or address that the paths start from.
    """

    root: str

    @property
    def num_readers(self) -> int | None:
        """Threads that read at the same time; None for one a processor."""

    def listed(self, folders: FolderConfig) -> tuple[LabelledImages, list[str]]:
        """Return the images with their classes, and what was left out in lines."""

    def stamp(self, path: str) -> str | None:
        """Return what tells whether an image is still the one that was listed."""

    def read(self, path: str, stamp: str | None) -> bytes:
        """Return the bytes of an image.

        Args:
            path: relative to the root.
            stamp: what it was when it was listed; None if that is not known.

        Raises:
            GoneError: it is gone.
            ChangedError: it has another stamp.
            UnreachableError: the store does not answer.
            InputError: it cannot be read.
        """


def open_source(root: str | os.PathLike[str]) -> Source:
    """Return what images below a folder or an address are read from."""
    text = os.fspath(root)
    return ObjectStore(text) if is_address(text) else ImageFolder(local_path(text))


class ImageFolder:
    """A folder of this machine, or one that many machines mount under the same path."""

    num_readers = None

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def listed(self, folders: FolderConfig) -> tuple[LabelledImages, list[str]]:
        """List the folder, as `index` does."""
        data = folders.read(self.root, keep_outside=True)
        return data, data.describe()

    def stamp(self, path: str) -> str | None:
        """Return size and time of change."""
        try:
            status = os.stat(os.path.join(self.root, path))
        except OSError:
            return None
        size, changed, *_ = file_status(status)
        return f"{size} {changed}" if stat.S_ISREG(status.st_mode) else None

    def read(self, path: str, stamp: str | None) -> bytes:
        """Return the bytes of a file."""
        file = Path(self.root, path)
        if not file.exists():
            raise GoneError(f"{file}: no such image")
        if stamp is not None and self.stamp(path) != stamp:
            raise ChangedError(f"{file}: changed since it was listed")
        return read_file(file)


class ObjectStore:
    """A bucket or a folder in one, by fsspec."""

    num_readers = READERS_OF_STORES

    def __init__(self, address: str) -> None:
        self.root = address.rstrip("/")
        self._stamps: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_stamps": {}}

    def listed(self, folders: FolderConfig) -> tuple[LabelledImages, list[str]]:
        """List all objects below the address; names decide which are images.

        Raises:
            InputError: there are none, or the store does not answer.
        """
        store, below = self._store
        with store_errors(self.root):
            if not (found := store.find(below, detail=True)):
                store.info(below)  # tells a bucket that is missing from one that is empty
        begin = len(below.rstrip("/")) + 1
        objects = {name[begin:]: info for name, info in found.items()}
        listing = list_names(self.root, objects)
        self._stamps = {path: _stamp(objects[path]) for path in listing.paths}
        data = label_listing(
            ImageListing(listing.root, listing.paths),
            label=folders.label or FIRST,
            splits=folders.splits,
            keep_outside=True,
        )
        left_out = [f"{kind.what}." for kind in listing.left_out.kinds()]
        return data, [*data.describe(), *left_out]

    def stamp(self, path: str) -> str | None:
        """Return the stamp of the listing."""
        return self._stamps.get(path)

    def read(self, path: str, stamp: str | None) -> bytes:
        """Return the bytes of an object; it is asked for its state first."""
        store, below = self._store
        address, name = f"{self.root}/{path}", f"{below.rstrip('/')}/{path}"
        with store_errors(address):
            try:
                info = store.info(name)
                if stamp is not None and not _has_stamp(info, stamp):
                    raise ChangedError(f"{address}: changed since it was listed")
                if (info.get("size") or 0) > MAX_FILE_BYTES:
                    raise InputError(f"{address}: {info['size']:,} bytes are more than expected")
                data: bytes = store.cat_file(name)
            except FileNotFoundError:
                raise GoneError(f"{address}: no such object") from None
        return data

    @cached_property
    def _store(self) -> tuple[Any, str]:
        return open_store(self.root)


def _stamp(info: dict[str, Any]) -> str:
    """Return size and state of an object, by what a listing says of it: "SIZE NAME VALUE"."""
    name = next((each for each in STAMPS if info.get(each) is not None), STAMPS[0])
    return f"{info.get('size')} {name} {_state(info, name)}"


def _has_stamp(info: dict[str, Any], stamp: str) -> bool:
    """Return whether an object is as it was listed, by what the store says of it alone."""
    size, name, state = stamp.split(" ", 2)
    return str(info.get("size")) == size and (name not in info or _state(info, name) == state)


def _state(info: dict[str, Any], name: str) -> str:
    value = info.get(name)
    if isinstance(value, datetime):  # some stores say one time in two ways
        value = value.timestamp()
    return f"{value:.3f}" if isinstance(value, float) else str(value)
