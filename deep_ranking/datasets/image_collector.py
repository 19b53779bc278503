"""Collect labelled images from the lines of a file; check each line against those before it."""

import os
import posixpath
from pathlib import Path

import numpy as np

from deep_ranking.datasets.labelled import LabelledImages, Labels
from deep_ranking.datasets.labels import join_numbers, normal_label
from deep_ranking.files import InputError
from deep_ranking.files.path_forms import existing_form


class ImageCollector:
    """Collects images line by line.

    Args:
        file: the file that is read, for errors.
        root: folder that its paths start from; None for the file's own.

    Attributes:
        categories: the category of each item.
        pairs: numbers of a query and of its positive.
    """

    def __init__(self, file: Path, root: Path | None = None) -> None:
        self._file = file
        self._root = file.parent if root is None else root
        self._numbers: dict[str, int] = {}
        self._lines: list[int] = []
        self._items: list[str] = []
        self._splits: list[str] = []
        self.categories: dict[str, str] = {}
        self.pairs: list[tuple[int, int]] = []

    def add_image(self, line: int, path: str, item: str, split: str = "") -> int:
        """Add an image, and return its number.

        Raises:
            InputError: there is no such file, it has no item, or an earlier line gives it another
                item or split.
        """
        item, split = normal_label(item), split.strip()
        if not path or not item:
            raise self.error(line, f"the {'item' if path else 'path'} is empty")
        if "\n" in path or "\r" in path:
            raise self.error(line, "a triplet file cannot hold a path with a line break")
        if os.path.isabs(path):
            path = os.path.relpath(path, self._root).replace(os.sep, "/")
        path = self._plain(path)
        if not path.isascii():  # the file may have it in another Unicode normal form
            found = existing_form(os.path.join(self._root, path))
            path = found.removeprefix(os.path.join(self._root, ""))
        number = self._numbers.get(path)
        if number is None:
            if not os.path.isfile(os.path.join(self._root, path)):
                raise self.error(
                    line,
                    f"no such image {path} in {self._root}; name the folder that its paths start "
                    "from, by --input_directory or --dataset",
                )
            number = self._numbers[path] = len(self._items)
            self._lines.append(line)
            self._items.append(item)
            self._splits.append(split)
        for what, before, now in (
            ("of two items", self._items[number], item),
            ("in two splits", self._splits[number], split),
        ):
            if before != now:
                raise self.error(
                    line,
                    f"image {path} is {what}: {before} in line {self._lines[number]}, {now} here",
                )
        return number

    def _plain(self, path: str) -> str:
        """Return a path in its normal form, so that one image is not counted as two."""
        plain = posixpath.normpath(path)
        if ".." not in path.split("/"):
            return plain
        try:  # after a link, ".." may lead somewhere else
            is_same = os.path.samefile(self._root / plain, self._root / path)
        except OSError:
            is_same = False
        return plain if is_same else path

    def add_category(self, line: int, item: str, category: str) -> None:
        """Add the category of an item, which holds for all of its images.

        Raises:
            InputError: the item has another category already.
        """
        item, category = normal_label(item), normal_label(category)
        before = self.categories.setdefault(item, category)
        if before != category:
            raise self.error(line, f"item {item} has two categories: {before} and {category}")

    def error(self, line: int, message: str) -> InputError:
        """Return an error with the place of a line."""
        return InputError(f"{self._file}:{line}: {message}")

    def labelled_images(self) -> LabelledImages:
        """Return all images that were added.

        Raises:
            InputError: there are none, or only some items have a category.
        """
        if not self._items:
            raise InputError(f"{self._file}: names no images")
        categories = None
        if self.categories:
            without = next((item for item in self._items if item not in self.categories), None)
            if without is not None:
                raise InputError(f"{self._file}: item {without} has no category, and others have")
            categories = Labels.of([self.categories[item] for item in self._items])
        items, replaced = join_numbers(self._items)
        for item in replaced:
            if self.categories.get(item) != self.categories.get(item.partition(".")[0]):
                raise InputError(
                    f"{self._file}: items {item} and {item.partition('.')[0]} are one "
                    "number, with two categories"
                )
        notes = f"Labels taken as whole numbers: {', '.join(replaced)}." if replaced else ""
        return LabelledImages(
            self._root,
            list(self._numbers),
            Labels.of(items),
            categories,
            np.array(self._splits) if any(self._splits) else None,
            np.array(self.pairs, np.int32) if self.pairs else None,
            (notes,) if notes else (),
            str(self._file),
        )
