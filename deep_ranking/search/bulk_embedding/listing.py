"""`_listed_images`, the list of the images of a table in parts: row group N is part N.

path   text, relative to the root
class  text; null for none
stamp  text: what tells whether an image is still the one that was listed; null if that is unknown

The list is written once, before anything is embedded. So a run that is resumed embeds the images
that the first one found, in the same parts, and what has changed since then is noticed.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from deep_ranking.config import FolderConfig
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.words import counted
from deep_ranking.search.bulk_embedding.path_table import PathTable
from deep_ranking.search.bulk_embedding.sources import Source
from deep_ranking.search.table.format import CLASS, PATH, path_problem

LIST = "_listed_images"
STAMP = "stamp"


class ListedImage(NamedTuple):
    """An image: its path relative to the root, its class, and its stamp; None for none."""

    path: str
    label: str | None
    stamp: str | None


def listed_images(source: Source, folders: FolderConfig) -> tuple[list[ListedImage], list[str]]:
    """Return the images of a source in the order of the bytes of their paths; and lines about them.

    Args:
        source: where they are.
        folders: what their classes are.

    Raises:
        InputError: there are none, or the source cannot be listed.
    """
    data, lines = source.listed(folders)
    images, num_unnamed = [], 0
    for path, label in zip(data.paths, data.items.of_images(), strict=True):
        if _is_text(path) and _is_text(label) and path_problem(path) is None:
            images.append(ListedImage(path, label or None, source.stamp(path)))
        else:
            num_unnamed += 1
    if num_unnamed:
        lines = [
            *lines,
            f"{counted(num_unnamed, 'image')} left out: a name that is no Unicode text, or no path "
            "of folders; rename them.",
        ]
    if not images:
        raise InputError(f"{source.root}: no image in it. {lines[-1]}")
    return sorted(images), lines


def images_of_table(table: PathTable) -> Iterator[ListedImage]:
    """Yield the images that a Parquet file names, in its order."""
    for path, label in table.rows():
        yield ListedImage(path, label, None)


def write_list(folder: Path, images: Iterable[ListedImage], part_size: int) -> int:
    """Write the list of a table; the memory holds a part of it. Return the number of images.

    Args:
        folder: of the table.
        images: in the order of the rows.
        part_size: images of a part.

    Raises:
        InputError: as `images` raises; or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(PATH, pa.string()), (CLASS, pa.string()), (STAMP, pa.string())])
    images, num_images = iter(images), 0
    with (
        atomic_path(folder / LIST) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=[CLASS]) as writer,
    ):
        while part := list(islice(images, part_size)):
            columns = [pa.array(column, pa.string()) for column in zip(*part, strict=True)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(part))
            num_images += len(part)
    return num_images


class ImageList:
    """The list of a table, open.

    Raises:
        InputError: it is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = folder / LIST
        try:
            self._file: Any = pq.ParquetFile(self._path)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from None

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return int(self._file.num_row_groups)

    def part(self, number: int) -> list[ListedImage]:
        """Return the images of a part, by its number from 0."""
        import pyarrow as pa

        try:
            columns = self._file.read_row_group(number, use_threads=False).to_pydict().values()
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from None
        return list(map(ListedImage, *columns))

    def _damaged(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split())[:300]
        return InputError(
            f"{self._path}: cannot be read ({reason}); embed anew into another --output"
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of a file name that are no UTF-8
        return False
    return True
