"""The images of a collection that people are asked about."""

import copy
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.words import counted
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.base import read_rows
from deep_ranking.serving.image_ids import KnownImage, find_by_path
from deep_ranking.serving.pictures import check_is_there
from deep_ranking.serving.problems import RequestError

MOST_FLOATS = 1 << 27  # of the embeddings that questions are chosen from: 512 MiB
FEWEST_IMAGES = 3


class QuestionPool:
    """The images of one state of a collection that questions are about.

    Args:
        collection: the collection.

    Attributes:
        rows: int64 (images,), their rows, rising; images of one content share one.
        embeddings: float32 (images, dim), memory-mapped where the collection allows it.
        num_left_out: images that no question is about: there are so many, or their files are gone.

    Raises:
        InputError: there are too few images, their rows are elsewhere, or damaged.
    """

    def __init__(self, collection: Collection) -> None:
        if collection.settings.index["kind"] == "milvus":
            raise InputError(
                f"{collection.folder}: its embeddings lie on a Milvus server, and questions are "
                "chosen from embeddings on this machine; index the images with another --index"
            )
        self._collection = collection
        rows = collection.rows()
        if len(rows) < FEWEST_IMAGES:
            raise InputError(
                f"{collection.folder}: {counted(len(rows), 'different image')}, and a question "
                f"takes {FEWEST_IMAGES}; index more images"
            )
        most = max(FEWEST_IMAGES, MOST_FLOATS // collection.settings.dimension)
        self.num_left_out = max(0, len(rows) - most)
        if self.num_left_out:
            rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
        self.rows = rows
        self.embeddings = read_rows(collection.embeddings(), rows)
        self._index_by_path: dict[str, int | None] = {}

    def index_by_path(self, paths: Sequence[str]) -> dict[str, int]:
        """Return the index into `rows` of each path that has one."""
        unknown = [path for path in paths if path not in self._index_by_path]
        with closing(self._collection.images()) as table:
            rows = table.rows_by_path(unknown)
        for path in unknown:
            index = int(np.searchsorted(self.rows, rows.get(path, -1)))
            is_here = index < len(self.rows) and self.rows[index] == rows.get(path, -1)
            self._index_by_path[path] = index if is_here else None
        found = ((path, self._index_by_path[path]) for path in paths)
        return {path: index for path, index in found if index is not None}

    def contents(self) -> list[bytes]:
        """Return the SHA-256 of the file of each image."""
        keys = self._collection.store.keys()
        return [keys[row] for row in self.rows.tolist()]

    def without_gone(self) -> "QuestionPool | None":
        """Return a pool of the images that have their file; None if too few have.

        This one stays as it is: other requests are at work with it.
        """
        with closing(self._collection.images()) as table:
            images = table.of_rows(self.rows.tolist())
        has_file = [
            any(_has_file(self._collection, each.path) for each in images.get(row, ()))
            for row in self.rows.tolist()
        ]
        if sum(has_file) < FEWEST_IMAGES:
            return None
        found = copy.copy(self)
        found.num_left_out += len(has_file) - sum(has_file)
        found.rows, found.embeddings = self.rows[has_file], self.embeddings[has_file]
        found._index_by_path = {}
        return found

    def image(self, index: int) -> KnownImage | None:
        """Return an image of a row whose file is there; None if none is.

        Of copies, it is one that questions were about before: so a repeat has the same paths.
        """
        row = int(self.rows[index])
        with closing(self._collection.images()) as table:
            copies = [each.path for each in table.of_rows([row]).get(row, ())]
        for path in sorted(copies, key=lambda path: path not in self._index_by_path):
            found = find_by_path(self._collection, path)
            if found is not None and _has_file(self._collection, path):
                return found
        return None


def _has_file(collection: Collection, path: str) -> bool:
    try:
        check_is_there(Path(collection.settings.root), path)
    except RequestError:
        return False
    return True
