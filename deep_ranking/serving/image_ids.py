"""Names of images in the API: stable, and found again by the table's own index of contents.

An id has 32 hexadecimal digits: the first 16 of the SHA-256 of the file's content, and of that of
its path in the collection. It changes when the file does, and says nothing of the path.
"""

import os
import re
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from deep_ranking.files.content_digest import data_digest
from deep_ranking.search.collection.searchable import Searchable

ID = re.compile(r"[0-9a-f]{32}")
NUM_BYTES = 8  # of each digest


class KnownImage(NamedTuple):
    """An image of a collection.

    Attributes:
        path: relative to the collection's root.
        label: its class; "" for none.
        row: of its embedding.
        content: SHA-256 of the file that was embedded.
    """

    path: str
    label: str
    row: int
    content: bytes

    @property
    def image_id(self) -> str:
        """Its id."""
        return image_id(self.path, self.content)


def image_id(path: str, content: bytes) -> str:
    """Return the id of an image.

    Args:
        path: relative to the collection's root.
        content: SHA-256 of the file that was embedded.

    Example:
        >>> image_id("cat/0.png", bytes(32))
        '0000000000000000c9e0b4d31dde3c42'
    """
    return content[:NUM_BYTES].hex() + data_digest(os.fsencode(path))[:NUM_BYTES].hex()


def find_by_id(collection: Searchable, given: str) -> KnownImage | None:
    """Return the image of an id; None if the collection has none, or it is no id."""
    return next(iter(find_by_ids(collection, [given])), None)


def find_by_ids(collection: Searchable, ids: Iterable[str]) -> list[KnownImage]:
    """Return the images of some ids, in their order; not those that the collection lacks."""
    found = []
    with closing(collection.images()) as table:
        for given in filter(ID.fullmatch, ids):
            for image, content in table.of_content(bytes.fromhex(given)[:NUM_BYTES]):
                if image_id(image.path, content) == given:
                    found.append(KnownImage(image.path, image.label, image.row, content))
    return found


def find_by_path(collection: Searchable, path: str) -> KnownImage | None:
    """Return the image of a path relative to the root; None if the collection has none.

    It looks the path up in the collection, and never on the disk.
    """
    with closing(collection.images()) as table:
        for file, content in table.recorded([path]):
            row = table.row_of_content(content)
            if row is not None:
                return KnownImage(file.path, file.label, row, content)
    return None


def contents_of(collection: Searchable, paths: list[str]) -> dict[str, bytes]:
    """Return the content of each image, by its path relative to the root."""
    with closing(collection.images()) as table:
        return {file.path: content for file, content in table.recorded(paths)}
