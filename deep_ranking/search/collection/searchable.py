"""What a search needs: of one collection, or of several shards that are searched as one."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.hit_calibration import HitCalibration
from deep_ranking.search.collection.records import FoundFile, GalleryImage
from deep_ranking.search.collection.settings import Settings

if TYPE_CHECKING:
    from deep_ranking.embedding.embedder import Embedder
    from deep_ranking.search.index.base import IndexReader
    from deep_ranking.search.queries import PathOrPaths
    from deep_ranking.search.results import SearchResults
    from deep_ranking.search.searcher import Searcher


class LeftOutShard(NamedTuple):
    """A shard that cannot be searched, and is left out.

    Attributes:
        folder: of its collection.
        name: the last parts of that, as many as tell it from the others.
        reason: why it cannot be searched.
        num_shards: how many shards there are in all.
    """

    folder: Path
    name: str
    reason: str
    num_shards: int


class ShardError(InputError):
    """A shard cannot be searched.

    Attributes:
        number: of the shard, from 0.
        shard: which it is, and why it cannot be searched.

    Args:
        message: the whole line.
        number: as above.
        shard: as above.
    """

    def __init__(self, message: str, number: int, shard: LeftOutShard) -> None:
        super().__init__(message)
        self.number, self.shard = number, shard


class ImageLookup(Protocol):
    """What a search asks about images; see `ImageTable`. Paths are relative to the root."""

    def close(self) -> None:
        """Close the file."""

    def __len__(self) -> int: ...

    def classes(self) -> dict[str, int]:
        """Return the number of images of each class."""

    def rows_of(self, labels: Sequence[str] | None, folder: str) -> Int64Array:
        """Return the rows of the images of some classes, below a folder."""

    def row_of_content(self, content: bytes) -> int | None:
        """Return the row of a content."""

    def recorded(self, paths: Iterable[str]) -> Iterator[tuple[FoundFile, bytes]]:
        """Yield the file and the content of each path."""

    def of_content(self, begin: bytes) -> Iterator[tuple[GalleryImage, bytes]]:
        """Yield the images whose content begins with some bytes."""

    def of_rows(self, rows: Sequence[int]) -> dict[int, list[GalleryImage]]:
        """Return the images of some rows."""


class Searchable(ABC):
    """The images of one collection, or of several shards as one.

    Attributes:
        folder: of the collection; of shards, what names them in messages.
        settings: of all rows: model, precision, root of the images.
        retry_seconds: how long to retry when a server that has the index does not answer.
        num_shards: how many shards there are; 0 for one collection.
    """

    folder: Path
    settings: Settings
    retry_seconds: float
    num_shards: int = 0

    def __init__(self) -> None:
        self._searchers: dict[bool, Searcher] = {}

    @property
    @abstractmethod
    def model(self) -> Path:
        """Path of the model file."""

    @property
    @abstractmethod
    def calibration(self) -> Calibration | None:
        """The calibration of the model; None for none."""

    @property
    def hit_calibration(self) -> HitCalibration | None:
        """What the collection's own classes tell of the chance of a hit; None for nothing.

        The classes that a model is calibrated on tell nothing of it: how far apart images of one
        class are, and how many there are, differs too much from collection to collection.
        """
        return self.settings.hits

    @cached_property
    def embedder(self) -> "Embedder":
        """What embeds images as the collection's own were embedded."""
        from deep_ranking.embedding.embedder import Embedder  # late: not all searches open a model

        return Embedder(self.model, precision=self.settings.precision)

    @abstractmethod
    def images(self) -> ImageLookup:
        """Open the table of images."""

    @abstractmethod
    def embeddings(self) -> Rows:
        """Return the embeddings, (rows, dimension), also of images that are gone."""

    @abstractmethod
    def rows(self) -> Int64Array:
        """Return the rows of the images that can be found, in rising order: int64 (rows,)."""

    @abstractmethod
    def open_index(self) -> "IndexReader":
        """Open the index."""

    @property
    def left_out(self) -> list[LeftOutShard]:
        """The shards that are left out, in their order."""
        return []

    def leave_out(self, error: ShardError) -> None:
        """Go on without a shard.

        Raises:
            ShardError: nobody asked to leave shards out.
        """
        raise error

    def place_of(self, path: str) -> tuple[Path, str]:
        """Return the root of the collection that has an image, and the image's path below it.

        Args:
            path: of the image, relative to the root of all.
        """
        return Path(self.settings.root), path

    def parts_of(self, paths: Iterable[str]) -> "list[tuple[Searchable, list[str]]]":
        """Return which collections have some images, each with the paths of its own.

        Args:
            paths: of images, relative to the root.
        """
        return [(self, list(paths))]

    def note(self) -> str:
        """Return what a search cannot use, in lines; "" for nothing."""
        return ""

    def search(
        self,
        images: "PathOrPaths",
        top: int = 20,
        *,
        probes: int | None = None,
        label: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        like: "PathOrPaths" = (),
        unlike: "PathOrPaths" = (),
        smooth: bool | None = None,
        rerank: bool = False,
        min_probability: float | None = None,
    ) -> "SearchResults":
        """Find the images of the collection that are most similar to query images.

        Args:
            images: an image file, a folder of images, or several of either.
            top: images to find for each query.
            probes: clusters that a query visits; None for the index's own.
            label: find only images of this class.
            folder: find only images below this folder.
            like: image files or folders that the results shall be more like.
            unlike: image files or folders that they shall be less like.
            smooth: whether to rank by the smoothed rows; None to do so if the collection has them.
            rerank: rank the results again by what the collection knows of them.
            min_probability: leave out hits with a smaller chance to be of the query's class.

        Example:
            >>> found = Collection.open("photos.index").search("photos/cat/0.png", top=3)
            >>> [each.rank for each in found[0]]
            [1, 2, 3]
            >>> found = Collection.open("photos.index").search("photos/cat/0.png", label="owl")
            >>> {each.label for each in found[0]}
            {'owl'}

        Raises:
            InputError: a query is missing or cannot be read, the collection is damaged, or `smooth`
                is asked of one that is not smoothed.
        """
        is_smooth = self.settings.smoothing is not None if smooth is None else smooth
        return self._searcher(is_smooth).search_images(
            images,
            top,
            probes=probes,
            label=label,
            folder=folder,
            like=like,
            unlike=unlike,
            rerank=rerank,
            min_probability=min_probability,
        )

    def _searcher(self, smooth: bool) -> "Searcher":
        from deep_ranking.search.searcher import Searcher

        if smooth not in self._searchers:
            self._searchers[smooth] = Searcher(self, smooth=smooth)
        return self._searchers[smooth]
