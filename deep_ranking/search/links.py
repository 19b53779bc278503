"""Several paths of one image, by links or mounts: what keeps an image from being moved."""

import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from deep_ranking.search.keeper import DuplicateImage

THROUGH_A_LINK = "reached through a link"


class Links:
    """The symbolic links of a collection, and all others below its root that lead to its files.

    Args:
        paths: of all its images, relative to its root.
        root: folder of the images.
    """

    def __init__(self, paths: Iterable[str], root: Path) -> None:
        real_root = os.path.realpath(root)
        names: dict[tuple[int, int], str] = {}

        @cache
        def real_folder(folder: str) -> str:
            real = os.path.realpath(os.path.join(real_root, folder))
            # A folder may be mounted at two places, or have names that differ in case alone.
            return names.setdefault(identity, real) if (identity := folder_id(real)) else real

        self._real_root = real_root
        self._leading_to = _links_below(real_root)
        self._links: dict[str, str] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            real = os.path.join(real_folder(folder), name)
            if os.path.islink(real):
                real = os.path.realpath(real)
            if real != os.path.join(real_root, path):
                self._links[path] = real
                self._leading_to.setdefault(real, path)

    def real(self, path: str) -> str:
        """Return the absolute path of the file that a path leads to."""
        return self._links.get(path) or os.path.join(self._real_root, path)

    def is_link(self, path: str) -> bool:
        """Return whether a path is a link, or leads through one."""
        return path in self._links

    def why_it_stays(self, path: str) -> str:
        """Return why an image must not be moved; "" if it may be.

        A file that a link leads to stays, or else the link would lead nowhere.
        """
        if path in self._links:
            return THROUGH_A_LINK
        link = self._leading_to.get(self.real(path))
        return "" if link is None else f"the link {link} leads to it"


def _links_below(root: str) -> dict[str, str]:
    """Return target -> a link, relative to the root, for the links to files below a folder."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found.setdefault(os.path.realpath(path), os.path.relpath(path, root))
    return found


def folder_id(folder: str) -> tuple[int, int] | None:
    """Return device and inode of a folder, which all its names share; None if it is gone."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def freed_bytes(moved: Iterable[DuplicateImage]) -> int:
    """Return the space that files take which would be freed without them.

    A file with several names (hard links) takes its space once, and until its last name is gone.
    """
    images = list(moved)
    names = Counter(image.file_id for image in images)
    sizes = {
        image.file_id: image.num_bytes
        for image in images
        if names[image.file_id] >= image.num_links
    }
    return sum(sizes.values())
