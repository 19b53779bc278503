"""CSV files -> labelled images.

A class file has the columns path, label and, if it likes, category and split; a pair file query,
positive, item and, if it likes, category. A first line with these names may stand above; without
it, they are taken in this order. Paths start from the folder that is given.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from deep_ranking.datasets.image_collector import ImageCollector
from deep_ranking.datasets.labelled import LabelledImages
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.csv_lines import read_lines

CLASS_COLUMNS = ("path", "label", "category", "split")
PAIR_COLUMNS = ("query", "positive", "item", "category")


def read_classes(file: Path, root: Path | None = None) -> LabelledImages:
    """Read a class file.

    Args:
        file: the file.
        root: folder that its paths start from; None for the file's own.

    Raises:
        InputError: with path and line: it is no such file, names a file that is not there, or
            contradicts itself.
    """
    collector = ImageCollector(file, file.parent if root is None else root)
    for line, row in read_table(file, CLASS_COLUMNS, num_required=2):
        collector.add_image(line, row["path"], row["label"], row.get("split", ""))
        if row.get("category"):
            collector.add_category(line, row["label"], row["category"])
    return collector.labelled_images()


def read_positive_pairs(file: Path, root: Path | None = None) -> LabelledImages:
    """Read a pair file: of each line, query and positive show the item.

    Args:
        file: the file.
        root: folder that its paths start from; None for the file's own.

    Raises:
        InputError: as `read_classes`.
    """
    collector = ImageCollector(file, file.parent if root is None else root)
    for line, row in read_table(file, PAIR_COLUMNS, num_required=3):
        query = collector.add_image(line, row["query"], row["item"])
        positive = collector.add_image(line, row["positive"], row["item"])
        if query == positive:
            raise collector.error(line, "query and positive are the same image")
        collector.add_pair(query, positive)
        if row.get("category"):
            collector.add_category(line, row["item"], row["category"])
    return collector.labelled_images()


def read_table(
    file: Path, columns: Sequence[str], *, num_required: int
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the lines of a CSV file.

    Args:
        file: the file.
        columns: names of the columns, in the order they have without a first line of names.
        num_required: how many of them, from the first, must be there.

    Yields:
        Number of the line, from 1, and the fields by column.

    Raises:
        InputError: the file cannot be read, or a line has too few or too many fields.
    """
    required = columns[:num_required]
    expected = ",".join(required) + "".join(f"[,{name}]" for name in columns[num_required:])
    names: Sequence[str] | None = None
    for line, fields in read_lines(file, kind="table", hint=f"expected lines of {expected}"):
        if names is None:
            header = [field.strip().lower() for field in fields]
            if set(required) <= set(header):
                names = header
                continue
            names = columns[: max(num_required, len(fields))]
        if len(fields) != len(names):
            raise InputError(
                f"{file}:{line}: expected {expected}, received {len(fields)} "
                f"field{'s' * (len(fields) != 1)}; quote a path that has commas in it"
            )
        yield line, dict(zip(names, fields, strict=True))


def write_classes(file: Path, data: LabelledImages, prefix: str) -> None:
    """Write a class file of labelled images, with their splits.

    Args:
        file: file to write.
        data: the images.
        prefix: what leads from the file's folder to the images' root: "" or a path that ends in /.
    """
    with (
        atomic_path(file) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as handle,
    ):
        writer = csv.writer(handle, lineterminator="\n")
        columns = [[prefix + path for path in data.paths]]
        columns.append([data.items.names[code] for code in data.items.codes])
        names = ["path", "label"]
        if data.categories is not None:
            names.append("category")
            columns.append([data.categories.names[code] for code in data.categories.codes])
        if data.splits is not None:
            names.append("split")
            columns.append(data.splits.tolist())
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))


def relative_prefix(root: Path, folder: Path) -> str:
    """Give what leads from a folder to a root: "" or a path that ends in "/"."""
    relative = os.path.relpath(os.path.realpath(root), os.path.realpath(folder))
    return "" if relative == os.curdir else relative.replace(os.sep, "/") + "/"
