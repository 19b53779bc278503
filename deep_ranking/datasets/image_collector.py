"""Labelled images from the lines of a file, each line checked against those before it."""

import os
import posixpath
from pathlib import Path

import numpy as np

from deep_ranking.datasets.labelled import LabelledImages, Labels
from deep_ranking.files import InputError


class ImageCollector:
    """Gathers images line by line.

    Args:
        file: the file that is read, for messages.
        root: folder that its paths start from.
    """

    def __init__(self, file: Path, root: Path) -> None:
        self._file = file
        self._root = root
        self._numbers: dict[str, int] = {}
        self._lines: list[int] = []
        self._items: list[str] = []
        self._splits: list[str] = []
        self._categories: dict[str, str] = {}
        self._pairs: list[tuple[int, int]] = []

    def add_image(self, line: int, path: str, item: str, split: str = "") -> int:
        """Take an image, and give its number.

        Raises:
            InputError: there is no such file, it has no item, or was of another item or another
                split before.
        """
        if not path or not item:
            raise self.error(line, f"the {'item' if path else 'path'} is empty")
        if "\n" in path or "\r" in path:
            raise self.error(line, "a path with a line break cannot stand in a triplet file")
        if os.path.isabs(path):
            path = os.path.relpath(path, self._root).replace(os.sep, "/")
        path = self._plain(path)
        number = self._numbers.get(path)
        if number is None:
            if not os.path.isfile(os.path.join(self._root, path)):
                raise self.error(
                    line,
                    f"no such image {path} in {self._root}; name the folder that its paths start "
                    "from by --input_directory",
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
        """Write a path in the one way, so that an image is not taken for two."""
        plain = posixpath.normpath(path)
        if ".." in path.split("/"):  # which may lead back from elsewhere, behind a link
            try:
                same = os.path.samefile(self._root / plain, self._root / path)
            except OSError:
                return path
            return plain if same else path
        return plain

    def add_category(self, line: int, item: str, category: str) -> None:
        """Take the category of an item; the first one counts for all of its images.

        Raises:
            InputError: it had another before.
        """
        before = self._categories.setdefault(item, category)
        if before != category:
            raise self.error(line, f"item {item} is of two categories: {before}, and {category}")

    def has_category(self, item: str) -> bool:
        """Whether the category of an item is known."""
        return item in self._categories

    def add_pair(self, query: int, positive: int) -> None:
        """Take a positive that is given for a query."""
        self._pairs.append((query, positive))

    def error(self, line: int, message: str) -> InputError:
        """Make an error of a line."""
        return InputError(f"{self._file}:{line}: {message}")

    def labelled_images(self) -> LabelledImages:
        """Give all images.

        Raises:
            InputError: there are none, or only some items have a category.
        """
        if not self._items:
            raise InputError(f"{self._file}: names no images")
        categories = None
        if self._categories:
            without = next((item for item in self._items if item not in self._categories), None)
            if without is not None:
                raise InputError(f"{self._file}: item {without} has no category, and others have")
            categories = Labels.of([self._categories[item] for item in self._items])
        return LabelledImages(
            self._root,
            list(self._numbers),
            Labels.of(self._items),
            categories,
            np.array(self._splits) if any(self._splits) else None,
            np.array(self._pairs, np.int32) if self._pairs else None,
        )
