"""Read partition lists, which say which split each image is in.

DeepFashion's lists have the number of lines, a line of column names, then columns separated by
blanks:

    consumer-to-shop   image_pair_name_1 image_pair_name_2 item_id evaluation_status
    in-shop            image_name item_id evaluation_status

The first image of a pair is the customer's photo, a query; the second is the shop's photo, its
positive. In-shop's statuses `query` and `gallery` are the split `test`; a query's positives are the
gallery images of its item. A class file with a column `split`, such as the sampler writes, is a
partition list too.
"""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from deep_ranking.datasets.image_collector import ImageCollector
from deep_ranking.datasets.labelled import LabelledImages
from deep_ranking.datasets.labels import leading_folders
from deep_ranking.datasets.tables import read_classes
from deep_ranking.files import InputError, open_regular

PAIR_LIST = ("image_pair_name_1", "image_pair_name_2", "item_id", "evaluation_status")
IMAGE_LIST = ("image_name", "item_id", "evaluation_status")
QUERY, GALLERY, TEST = "query", "gallery", "test"
MAX_DIGITS = 18  # of the number of lines
MAX_LIST_BYTES = 1 << 28  # DeepFashion's longest list has 26 million


def read_partition(
    file: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    level: int | None = None,
) -> LabelledImages:
    """Read a partition list.

    Args:
        file: the list.
        root: folder that its paths start from; None for the file's own.
        level: number of leading folders of an image's path that make its item's category; None
            for all folders before the one that has the item's name.

    Example:
        >>> sorted(set(read_partition("classes.csv").splits.tolist()))
        ['test', 'train']

    Raises:
        InputError: with path and line: it is not a partition list, its count is wrong, a file that
            it names is missing, or it puts an image into two splits.
    """
    file, root = Path(file), None if root is None else Path(root)
    lines = _read_lines(file)
    if not lines or not lines[0].strip().isdecimal():
        data = read_classes(file, root)
        if data.splits is None:
            raise InputError(
                f"{file}: not a partition list: expected a class file with a column split, or a "
                "list whose first line is the number of its lines"
            )
        return data
    if len(lines[0].strip()) > MAX_DIGITS:
        raise InputError(f"{file}:1: expected the number of lines; no list has so many")
    names = tuple(lines[1].split()) if len(lines) > 1 else ()
    if names not in (PAIR_LIST, IMAGE_LIST):
        raise InputError(
            f"{file}:2: expected the columns {' '.join(PAIR_LIST)}, or {' '.join(IMAGE_LIST)}"
        )
    return _read_list(lines, names, ImageCollector(file, root), level)


def _read_list(
    lines: list[str], names: tuple[str, ...], collector: ImageCollector, level: int | None
) -> LabelledImages:
    by_item: dict[str, tuple[list[int], list[int]]] = {}
    num_rows = 0
    for line, text in enumerate(lines[2:], start=3):
        fields = text.split()
        if not fields:
            continue
        num_rows += 1
        if len(fields) != len(names):
            raise collector.error(line, f"expected {len(names)} fields, received {len(fields)}")
        *paths, item, status = fields
        images = [collector.add_image(line, path, item, status) for path in paths]
        if names == PAIR_LIST:
            collector.pairs.append((images[0], images[1]))
        elif status in (QUERY, GALLERY):
            by_item.setdefault(item, ([], []))[status == GALLERY].append(images[0])
        category = _category(paths[-1], item, level)
        if category:
            collector.categories.setdefault(item, category)
    if num_rows != (count := int(lines[0].strip())):
        raise collector.error(1, f"says {count:,} lines, and {num_rows:,} follow: is it cut off?")
    for queries, gallery in by_item.values():
        collector.pairs += itertools.product(queries, gallery)
    data = collector.labelled_images()
    splits = np.asarray(data.splits)
    return replace(data, splits=np.where(np.isin(splits, (QUERY, GALLERY)), TEST, splits))


def _read_lines(file: Path) -> list[str]:
    try:
        with open_regular(file, max_bytes=MAX_LIST_BYTES) as handle:
            text = handle.read().decode("utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise InputError(f"{file}: no such partition list; check --partition") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    if "\0" in text:
        raise InputError(f"{file}:{text[: text.index(chr(0))].count(chr(10)) + 1}: not a text file")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _category(path: str, item: str, level: int | None) -> str:
    """Return the category of an item from the path of an image; "" if the path does not tell."""
    folders = path.split("/")[:-1]
    if level is not None:
        return leading_folders("/".join(folders), level)
    return "/".join(folders[: folders.index(item)]) if item in folders else ""
