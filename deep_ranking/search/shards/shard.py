"""One shard of several that are searched as one: its collection, and its place among the others.

Rows are numbered over all shards: `STRIDE` times the number of the shard, plus the row in it. So a
number stays the same while a shard grows, and when another one is left out. Paths are relative to
the root of all: the innermost folder that has the images of all shards.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deep_ranking.files import InputError, without_path
from deep_ranking.files.addresses import is_address
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.stored_rows import StoredRows
from deep_ranking.search.collection import Collection
from deep_ranking.search.collection.image_table import MAX_ROWS
from deep_ranking.search.collection.searchable import LeftOutShard, ShardError
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.subset import Subset

STRIDE = MAX_ROWS
HINT = "--skip_unavailable leaves it out"


class Place(NamedTuple):
    """Where a shard stands.

    Attributes:
        number: of the shard, from 0.
        total: of shards, those that are left out among them.
        folder: of its collection, as it was given.
        name: the last parts of that, as many as tell it from the others.
    """

    number: int
    total: int
    folder: Path
    name: str

    def failure(self, reason: str) -> ShardError:
        """Return the error that names the shard, for a reason in words."""
        return ShardError(
            f"{self.folder}: shard {self.number + 1} of {self.total} cannot be searched: {reason}; "
            f"{HINT}",
            self.number,
            LeftOutShard(self.folder, self.name, reason, self.total),
        )

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Name the shard in what goes wrong with it during the block.

        Raises:
            ShardError: anything went wrong.
        """
        try:
            yield
        except ShardError:
            raise
        except (InputError, OSError) as error:
            reason = without_path(error, self.folder) if isinstance(error, InputError) else error
            raise self.failure(str(reason)) from None


class Shard:
    """An open shard.

    Args:
        place: where it stands.
        collection: its collection.
        folder: of its images, relative to the root of all; "" if it is that.
    """

    def __init__(self, place: Place, collection: Collection, folder: str) -> None:
        self.place = place
        self.collection = collection
        self._folder = folder

    @property
    def first_row(self) -> int:
        """The number of its row 0 among those of all shards."""
        return self.place.number * STRIDE

    @cached_property
    def embeddings(self) -> StoredRows:
        """Its rows; the first reading checks them."""
        with self.place.named_in_errors():
            return self.collection.embeddings()

    def open_index(self) -> Index:
        """Open its index.

        Raises:
            ShardError: it is damaged, or its server does not answer.
        """
        with self.place.named_in_errors():
            if self.collection.settings.index["kind"] == ExactIndex.kind:
                return ExactIndex(self.embeddings, self.collection.rows())
            return self.collection.open_index()

    def outer(self, path: str) -> str:
        """Return the path of one of its images, relative to the root of all."""
        return f"{self._folder}/{path}" if self._folder else path

    def inner(self, path: str) -> str | None:
        """Return a path relative to its own root; None if it is not below that."""
        if not self._folder:
            return path
        begin = f"{self._folder}/"
        return path[len(begin) :] if path.startswith(begin) else None

    def inner_folder(self, folder: str) -> str | None:
        """Return a folder relative to its own root.

        Args:
            folder: relative to the root of all; "" for that.

        Returns:
            "" if all of its images lie in the folder; None if none does.
        """
        if not self._folder:
            return folder
        if not folder or f"{self._folder}/".startswith(f"{folder}/"):
            return ""
        return self.inner(folder)

    def inner_subset(self, subset: Subset) -> Subset | None:
        """Return a part of all shards as a part of this one; None if it has none of it."""
        folder = self.inner_folder(subset.folder)
        return None if folder is None else replace(subset, folder=folder)

    def rows_of(self, subset: Subset) -> Int64Array:
        """Return its rows in a part of all shards, by its own numbers: int64 (rows,)."""
        own = self.inner_subset(subset)
        if own is None:
            return np.empty(0, np.int64)
        with self.place.named_in_errors(), closing(self.collection.images()) as table:
            labels = None if own.labels is None else sorted(own.labels)
            return table.rows_of(labels, own.folder)


def common_root(roots: Sequence[str]) -> str | None:
    """Return the innermost folder that holds some folders; None if there is none.

    Args:
        roots: absolute paths, or addresses such as s3://bucket/photos.

    Example:
        >>> common_root(["/data/2023", "/data/2024/summer"])
        '/data'
    """
    if len(set(roots)) == 1:
        return roots[0]
    split = [root.split("/") for root in roots]
    common = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    has_address = any(map(is_address, roots))
    if len(common) < (3 if has_address else 1):  # of an address, the scheme and the bucket
        return None
    return "/".join(common) or "/"
