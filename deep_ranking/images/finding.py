"""Find the images of a folder tree, sorted, and their classes, which are folders."""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int32Array

# The blog's five, and others that are common. Compared in lower case.
IMAGE_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".bmp", ".png", ".ppm", ".gif", ".tif", ".tiff", ".webp")
)


@dataclass(frozen=True)
class ImageListing:
    """The images of a folder tree, class by class, in sorted order.

    Attributes:
        root: the folder that was listed.
        paths: image paths relative to `root`, with "/" between folders; those of one class are next
            to each other.
        labels: int32 (images,), not decreasing, indices into `classes`.
        classes: names of the folders directly below `root` that hold images, sorted.
        num_unlistable: files left out because a line break in their path would break a text file.
        num_outside: images left out because they are directly in `root`, and so in no class.
        num_seen_again: links left out because their folder, of the same class or `root`, was listed
            already.

    Example:
        >>> find_images("photos").files()[0]
        'photos/cat/0.png'
    """

    root: Path
    paths: list[str]
    labels: Int32Array
    classes: list[str]
    num_unlistable: int = 0
    num_outside: int = 0
    num_seen_again: int = 0

    def files(self) -> list[str]:
        """Return the paths with `root` before them."""
        return [str(self.root / path) for path in self.paths]


def find_images(root: str | os.PathLike[str]) -> ImageListing:
    """List the images below each folder of `root`, by name alone: no image is opened.

    A class is a folder directly below `root`; its images may be in folders of its own. Hidden files
    and folders are skipped. Links are followed, but no folder is entered twice, so that a cycle of
    links ends.

    Args:
        root: folder with one folder a class.

    Returns:
        An `ImageListing`; the same tree gives the same listing on every machine.

    Example:
        >>> find_images("photos").classes
        ['cat', 'dog', 'owl']

    Raises:
        InputError: `root` is not a folder, or none of its folders holds an image.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a folder with one folder a class")
    paths: list[str] = []
    labels: list[int] = []
    classes: list[str] = []
    num_unlistable = num_seen_again = 0
    files, folders = _scan(root)
    num_outside = sum(map(is_image_name, files))
    for name in folders:
        visits = Counter([_identity(root)])  # a class that links to the root must not hold all
        found, num_left_out = _listable(f"{name}/{path}" for path in _walk(root / name, visits))
        num_seen_again += visits.total() - len(visits)
        num_unlistable += num_left_out
        if found:
            labels.extend([len(classes)] * len(found))
            paths.extend(found)
            classes.append(name)
    if not classes:
        where = "only directly in it" if num_outside else "none below it"
        raise InputError(
            f"{root}: no classes: expected one folder of images a class, found images {where}"
        )
    codes, left_out = np.array(labels, np.int32), (num_unlistable, num_outside, num_seen_again)
    return ImageListing(root, paths, codes, classes, *left_out)


def list_images(root: str | os.PathLike[str]) -> tuple[list[str], int]:
    """List all images of a folder tree, including those directly in it; no image is opened.

    Hidden files and folders and links are treated as by `find_images`.

    Args:
        root: the folder.

    Returns:
        Sorted paths relative to `root`, and how many were left out for a line break in their path.

    Raises:
        InputError: `root` is not a folder, or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a folder of images")
    paths, num_unlistable = _listable(_walk(root, Counter()))
    if not paths:
        endings = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise InputError(f"{root}: no image in it; looked for files that end in {endings}")
    return paths, num_unlistable


def resolve_image_paths(
    file: Path, paths: Sequence[str], folders: Sequence[Path], hint: str
) -> list[str]:
    """Find the folder that the image paths in a file start from; it is the same for all of them.

    Args:
        file: the file that lists the paths, for errors.
        paths: image paths as the file has them.
        folders: folders to try in turn; the first that holds any of the images is used.
        hint: how to mend it when no folder does.

    Returns:
        A path for each of `paths`. Whether each image exists is not checked.

    Raises:
        InputError: no image is in any of the folders.
    """
    for folder in folders:
        prefix = "" if folder == Path() else folder  # "a.jpg" rather than "./a.jpg"
        found = [os.path.join(prefix, path) for path in paths]
        if any(map(os.path.exists, found)):
            return found
    tried = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise InputError(f"{file}:1: image {paths[0]} not found in any of: {tried}; {hint}")


def class_of(path: str) -> str:
    """Return the class of an image by its path relative to the root: its first folder, or ""."""
    return path.split("/", 1)[0] if "/" in path else ""


def _listable(paths: Iterable[str]) -> tuple[list[str], int]:
    """Return the images without a line break in their path, sorted, and how many have one."""
    images = [path for path in paths if is_image_name(path)]
    listable = sorted(path for path in images if "\n" not in path and "\r" not in path)
    return listable, len(images) - len(listable)


def is_image_name(path: str) -> bool:
    """Return whether a file's extension, in any letter case, is one of `IMAGE_EXTENSIONS`."""
    return os.path.splitext(path)[1].lower() in IMAGE_EXTENSIONS


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the files and of the folders in `folder`, sorted, without hidden ones."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if _is_folder(entry) else files).append(entry.name)
    return sorted(files), sorted(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False  # a link to itself is a broken link


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _walk(folder: Path, visits: Counter[tuple[int, int]]) -> Iterator[str]:
    """Yield all files below `folder`, relative to it; `visits` counts how often a folder is met."""
    identity = _identity(folder)
    visits[identity] += 1
    if visits[identity] > 1:
        return
    files, folders = _scan(folder)
    yield from files
    for name in folders:
        for path in _walk(folder / name, visits):
            yield f"{name}/{path}"
