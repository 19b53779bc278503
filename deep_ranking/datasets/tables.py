"""Read labelled images from CSV files: class files and pair files.

A class file has the columns path, label and optionally category and split; a pair file has query,
positive, item and optionally category. The first line may name the columns; without it, they are in
this order. Paths start from a folder that the caller gives.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from deep_ranking.datasets.image_collector import ImageCollector
from deep_ranking.datasets.labelled import LabelledImages
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.csv_lines import read_lines, write_lines
from deep_ranking.files.words import counted

CLASS_COLUMNS = ("path", "label", "category", "split")
PAIR_COLUMNS = ("query", "positive", "item", "category")


def read_classes(
    file: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> LabelledImages:
    """Read a class file.

    Args:
        file: the file.
        root: folder that its paths start from; None for the file's own.

    Example:
        >>> read_classes("classes.csv").paths[0]
        'photos/cat/0.png'

    Raises:
        InputError: with path and line: it is not a class file, a file that it names is missing, or
            two lines contradict each other.
    """
    file = Path(file)
    collector = ImageCollector(file, None if root is None else Path(root))
    for line, row in read_table(file, CLASS_COLUMNS, num_required=2):
        collector.add_image(line, row["path"], row["label"], row.get("split", ""))
        if row.get("category"):
            collector.add_category(line, row["label"], row["category"])
    return collector.labelled_images()


def read_positive_pairs(
    file: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> LabelledImages:
    """Read a pair file; the query and the positive of a line show the same item.

    Args:
        file: the file.
        root: folder that its paths start from; None for the file's own.

    Returns:
        The images with their items and pairs. Their `gallery` is True for images that are positives
        and never queries.

    Example:
        >>> read_positive_pairs("positives.csv").pairs.tolist()
        [[0, 1]]

    Raises:
        InputError: as `read_classes`.
    """
    file = Path(file)
    collector = ImageCollector(file, None if root is None else Path(root))
    for line, row in read_table(file, PAIR_COLUMNS, num_required=3):
        query = collector.add_image(line, row["query"], row["item"])
        positive = collector.add_image(line, row["positive"], row["item"])
        if query == positive:
            raise collector.error(line, "query and positive are the same image")
        collector.pairs.append((query, positive))
        if row.get("category"):
            collector.add_category(line, row["item"], row["category"])
    data = collector.labelled_images()
    queries = [query for query, _ in collector.pairs]
    return dataclasses.replace(data, gallery=~np.isin(np.arange(len(data)), queries))


def read_table(
    file: Path, columns: Sequence[str], *, num_required: int
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the lines of a CSV file as mappings.

    Args:
        file: the file.
        columns: names of the columns, in their order if the first line does not name them.
        num_required: how many of them, from the first on, must be there.

    Yields:
        The number of the line, from 1, and its fields by column.

    Raises:
        InputError: the file cannot be read, or a line has too few or too many fields.
    """
    required = columns[:num_required]
    expected = ",".join(required) + "".join(f"[,{name}]" for name in columns[num_required:])
    names: Sequence[str] | None = None
    for line, fields in read_lines(file, kind="table", hint=f"expected lines of {expected}"):
        if not fields:  # an empty line
            continue
        if names is None:
            header = [field.strip().lower() for field in fields]
            if set(required) <= set(header):
                names = header
                continue
            names = columns[: max(num_required, len(fields))]
        if len(fields) != len(names):
            raise InputError(
                f"{file}:{line}: expected {expected}, received "
                f"{counted(len(fields), 'field')}; quote a path that has commas in it"
            )
        yield line, dict(zip(names, fields, strict=True))


def write_classes(file: Path, data: LabelledImages, prefix: str) -> None:
    """Write a class file of labelled images, with their splits.

    Args:
        file: file to write.
        data: the images.
        prefix: path from the file's folder to the images' root: "", or one that ends in "/".
    """
    columns = {"path": [prefix + path for path in data.paths], "label": data.items.of_images()}
    if data.categories is not None:
        columns["category"] = data.categories.of_images()
    if data.splits is not None:
        columns["split"] = data.splits.tolist()
    with atomic_path(file) as temporary:
        write_lines(temporary, itertools.chain([columns], zip(*columns.values(), strict=True)))


def relative_prefix(root: Path, folder: Path) -> str:
    """Return the path from a folder to a root: "", or one that ends in "/"."""
    relative = os.path.relpath(os.path.realpath(root), os.path.realpath(folder))
    return "" if relative == os.curdir else relative.replace(os.sep, "/") + "/"
