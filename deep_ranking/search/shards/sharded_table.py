"""The tables of all shards as one: as the table would be after `merge`.

A file that several shards have belongs to the first of them that has a row for it. So it is found
once, also if it was changed between. Images of one content, in one shard or several, are found
together, under the row of the first shard that has it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np

from deep_ranking.files.array_types import Int64Array
from deep_ranking.search.collection import GalleryImage, ImageTable
from deep_ranking.search.collection.records import FoundFile
from deep_ranking.search.shards.shard import STRIDE, Shard

T = TypeVar("T")
NOBODY = -1, ""  # owns what no shard has a row for


class _Found(NamedTuple):
    """An image of a shard: its path, relative to the root of all, its class and content."""

    number: int
    path: str
    label: str
    row: int
    content: bytes


class ShardedTable:
    """The tables of some shards; see `ImageTable` for what each method returns.

    Args:
        shards: the shards, in their order.

    Raises:
        ShardError: the table of one cannot be opened; any method raises it if one is damaged.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = {shard.place.number: shard for shard in shards}
        self._tables: dict[int, ImageTable] = {}
        with ExitStack() as opened:
            for number, shard in self._shards.items():
                with shard.place.named_in_errors():
                    table = opened.enter_context(closing(shard.collection.images()))
                self._tables[number] = table
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def __len__(self) -> int:
        """Number of images that can be found; one that several shards have counts in each."""
        return sum(self._of_each(lambda _, table: len(table)))

    def classes(self) -> dict[str, int]:
        """Return the number of images of each class, as `len` counts them."""
        counts: Counter[str] = Counter()
        for of_shard in self._of_each(lambda _, table: table.classes()):
            counts.update(of_shard)
        return dict(sorted(counts.items()))

    def rows_of(self, labels: Sequence[str] | None, folder: str) -> Int64Array:
        """Return the rows of some images; several shards may have a row each of one content."""

        def of_shard(shard: Shard, table: ImageTable) -> Int64Array:
            inner = shard.inner_folder(folder)
            rows = np.empty(0, np.int64) if inner is None else table.rows_of(labels, inner)
            return shard.first_row + rows

        return np.concatenate(self._of_each(of_shard))

    def row_of_content(self, content: bytes) -> int | None:
        """Return the row of a content in the first shard that has it."""

        def of_shard(shard: Shard, table: ImageTable) -> int | None:
            row = table.row_of_content(content)
            return None if row is None else shard.first_row + row

        return next((row for row in self._of_each(of_shard) if row is not None), None)

    def recorded(self, paths: Iterable[str]) -> Iterator[tuple[FoundFile, bytes]]:
        """Yield the file of each path, as the shard that it belongs to recorded it."""
        given = list(paths)
        owners = self.owners(given)
        for path in filter(owners.__contains__, given):
            number, inner = owners[path]
            with self._shards[number].place.named_in_errors():
                recorded = list(self._tables[number].recorded([inner]))
            for file, content in recorded:
                yield replace(file, path=path), content

    def of_content(self, begin: bytes) -> Iterator[tuple[GalleryImage, bytes]]:
        """Yield the images whose content begins with some bytes."""
        for each in self._with_contents([begin]):
            yield GalleryImage(each.path, each.label, each.row), each.content

    def of_rows(self, rows: Sequence[int]) -> dict[int, list[GalleryImage]]:
        """Return the images of the contents of some rows, those of all shards, by path.

        Each names the row of the first shard that has the content.
        """
        contents: dict[int, bytes] = {}
        for number, part in groupby(sorted(rows), lambda row: row // STRIDE):
            if number not in self._tables:  # left out meanwhile
                continue
            shard, table = self._shards[number], self._tables[number]
            with shard.place.named_in_errors():
                own = [row - shard.first_row for row in part]
                for row, images in table.of_rows(own).items():
                    for _, content in table.recorded([images[0].path]):
                        contents[shard.first_row + row] = content
        images_of: dict[bytes, list[GalleryImage]] = {}
        for each in self._with_contents(sorted(set(contents.values()))):
            image = GalleryImage(each.path, each.label, each.row)
            images_of.setdefault(each.content, []).append(image)
        return {
            row: images_of[content] for row, content in contents.items() if content in images_of
        }

    def _with_contents(self, begins: Sequence[bytes]) -> list[_Found]:
        """Return the images whose contents begin with some bytes, by path, each file once."""

        def of_shard(shard: Shard, table: ImageTable) -> list[_Found]:
            return [
                _Found(
                    shard.place.number,
                    shard.outer(image.path),
                    image.label,
                    shard.first_row + image.row,
                    content,
                )
                for begin in begins
                for image, content in table.of_content(begin)
            ]

        found = [each for part in self._of_each(of_shard) for each in part]
        first_rows: dict[bytes, int] = {}
        for each in found:
            first_rows.setdefault(each.content, each.row)
        owners = self.owners([each.path for each in found])
        own = [each for each in found if owners.get(each.path, NOBODY)[0] == each.number]
        own.sort(key=lambda each: each.path)
        return [each._replace(row=first_rows[each.content]) for each in own]

    def owners(self, paths: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Return the first shard that has a row for each path: its number, and its own path."""
        owners: dict[str, tuple[int, str]] = {}
        left = dict.fromkeys(paths)

        def of_shard(shard: Shard, table: ImageTable) -> None:
            pairs = [(shard.inner(path), path) for path in left]
            outer = {inner: path for inner, path in pairs if inner is not None}
            for inner in table.rows_by_path(list(outer)):
                owners[outer[inner]] = shard.place.number, inner
                left.pop(outer[inner])

        self._of_each(of_shard)
        return owners

    def _of_each(self, ask: Callable[[Shard, ImageTable], T]) -> list[T]:
        """Return what a function returns of each shard, in their order."""
        answers = []
        for number, table in self._tables.items():
            shard = self._shards[number]
            with shard.place.named_in_errors():
                answers.append(ask(shard, table))
        return answers
