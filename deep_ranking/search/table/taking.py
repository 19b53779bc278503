"""Take the rows of a table into a collection: nothing is embedded, and memory holds some thousands.

First the short columns of all rows, which decide what is new; then the vectors of what is new; then
all images are recorded at once. What fails before that leaves the collection as it was.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

from deep_ranking.config import FolderConfig
from deep_ranking.datasets import LabelledImages
from deep_ranking.datasets.labels import FIRST, folder_label
from deep_ranking.files import InputError, without_path
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.content_digest import content_digests, file_status
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images import open_header, open_image
from deep_ranking.search.collection import Collection
from deep_ranking.search.collection.arrivals import Arrival, Arrivals
from deep_ranking.search.collection.records import FoundFile
from deep_ranking.search.collection.syncing import NO_SPACE, UNREADABLE
from deep_ranking.search.table.parts import TableParts
from deep_ranking.search.table.reading import TableEntries
from deep_ranking.search.table.report import TakenRows


class Finder(Protocol):
    """Finds the image of each row."""

    def find(self, entries: TableEntries) -> Iterator[Arrival]:
        """Yield what arrives of some rows; without those that are left out."""


def take_rows(collection: Collection, table: TableParts, finder: Finder, taken: TakenRows) -> None:
    """Take the rows of a table into a collection, all or none. The caller holds its lock.

    Args:
        collection: the collection.
        table: the table.
        finder: finds the image of each row.
        taken: what became of the rows; it is brought up to date.

    Raises:
        InputError: the table is damaged, has rows that cannot be taken or none that can, or the
            disk is full.
    """
    store = collection.store
    with closing(collection.images(writable=True)) as images:
        arrivals = Arrivals(collection, images)
        with progress_bar(total=table.num_rows, title="reading", unit="rows") as bar:
            for entries in table.entries():
                arrivals.add(finder.find(entries))
                bar.update(len(entries.paths))
        if (twice := arrivals.repeated()) is not None:
            raise table.refusal_of_repeated(*twice)
        taken.num_taken = len(arrivals)
        taken.num_known = arrivals.num_known()
        if not taken.num_taken:
            return
        num_fresh, first_row = arrivals.sort_out(), len(store)
        try:
            if num_fresh:
                store.check_space(num_fresh, NO_SPACE)
                with (
                    closing(arrivals.fresh()) as fresh,
                    progress_bar(total=table.num_rows, title="taking in", unit="rows") as bar,
                ):
                    store.extend(_blocks(table, fresh, bar.update))
            arrivals.record(first_row)
        except BaseException:
            store.cut(first_row)
            raise


def _blocks(
    table: TableParts, fresh: Iterator[tuple[int, bytes]], update: Callable[[int], object]
) -> Iterator[tuple[list[bytes], Float32Array]]:
    """Yield contents and vectors of the rows that are fresh; all vectors are checked."""
    following = next(fresh, None)
    for begin, vectors in table.vectors():
        end = begin + len(vectors)
        numbers, contents = [], []
        while following is not None and following[0] < end:
            numbers.append(following[0] - begin)
            contents.append(following[1])
            following = next(fresh, None)
        yield contents, vectors if len(numbers) == len(vectors) else vectors[numbers]
        update(len(vectors))


class ByContent:
    """Takes the table's word for the content of each image; no file is opened.

    Args:
        folders: what makes a class of a path if the table has no column of classes.
    """

    def __init__(self, folders: FolderConfig) -> None:
        self._label_of = folder_label(folders.label or FIRST)

    def find(self, entries: TableEntries) -> Iterator[Arrival]:
        """Yield all rows."""
        labels = entries.labels
        if labels is None:
            folders = (os.fsdecode(path).rpartition("/")[0] for path in entries.paths)
            labels = [os.fsencode(self._label_of(folder)) for folder in folders]
        rows = zip(entries.paths, labels, entries.contents or (), strict=True)
        for number, (path, label, content) in enumerate(rows, entries.begin):
            # No status: the next sync with the folder looks at each file.
            yield number, path, label, UNREADABLE, 0, content, None, None


class ByFile:
    """Finds the file of each row among the images of a folder, and hashes it.

    Args:
        data: the images of the folder.
        taken: gets what is left out, and what has another class.
        by_table: whether the class that the table states goes before that of the folder.
    """

    def __init__(self, data: LabelledImages, taken: TakenRows, *, by_table: bool) -> None:
        self._root = data.root
        self._codes = dict(zip(data.paths, data.items.codes.tolist(), strict=True))
        self._names = data.items.names
        self._taken = taken
        self._by_table = by_table

    def find(self, entries: TableEntries) -> Iterator[Arrival]:
        """Yield the rows whose path is an image that can be read; the others are counted."""
        found: list[tuple[int, FoundFile]] = []
        labels: Sequence[bytes | None] = entries.labels or [None] * len(entries.paths)
        for number, (path, label) in enumerate(zip(entries.paths, labels, strict=True)):
            file = self._found(os.fsdecode(path), None if label is None else os.fsdecode(label))
            if file is not None:
                found.append((entries.begin + number, file))
        paths = [self._root / file.path for _, file in found]
        contents = content_digests(paths, open_file=open_image)
        for (number, file), content in zip(found, contents, strict=True):
            if isinstance(content, InputError):
                self._leave_out(file.path, content)
                continue
            path, label = os.fsencode(file.path), os.fsencode(file.label)
            status = file.inode, file.inode_changed
            yield number, path, label, file.size, file.changed, content, *status

    def _found(self, path: str, label: str | None) -> FoundFile | None:
        """Return the file of a row; None, and a note, if it is no image that can be read."""
        code = self._codes.get(path)
        if code is None:
            self._taken.num_missing += 1
            return None
        file = self._root / path
        try:
            status = file_status(os.stat(file))
            with open_header(file):
                pass
        except OSError:
            self._taken.num_missing += 1
            return None
        except InputError as error:
            self._leave_out(path, error)
            return None
        by_folder = self._names[code]
        if not self._by_table or label is None:
            label = by_folder
        self._taken.num_relabelled += label != by_folder
        size, changed, *identity = status
        return FoundFile(path, size, changed, label, *identity)

    def _leave_out(self, path: str, error: InputError) -> None:
        self._taken.broken.append((path, without_path(error, self._root / path)))
