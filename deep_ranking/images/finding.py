"""Find the images of a folder tree, sorted, and count all that is left out."""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deep_ranking.files import InputError, open_regular
from deep_ranking.images.formats import (
    SIGNATURE_BYTES,
    format_of_bytes,
    format_of_name,
    missing_extra,
)
from deep_ranking.images.left_out import SYSTEM_FILES, LeftOut, is_system_folder


@dataclass(frozen=True)
class ImageListing:
    """The images of a folder tree, sorted by their first folder, then by path.

    Attributes:
        root: the folder that was listed.
        paths: image paths relative to `root`, with "/" between folders.
        left_out: what was left out.

    Example:
        >>> find_images("photos").files()[0]
        'photos/cat/0.png'
    """

    root: Path
    paths: list[str]
    left_out: LeftOut = field(default_factory=LeftOut)

    def files(self) -> list[str]:
        """Return the paths with `root` before them."""
        return [str(self.root / path) for path in self.paths]


def find_images(root: str | os.PathLike[str], *, by_content: bool = False) -> ImageListing:
    """List all images below a folder, and those directly in it.

    Hidden files and folders are left out, and folders of systems, such as recycle bins. Links are
    followed, but within one folder of `root` no folder is entered twice, so that a cycle of links
    ends. Images of a format whose reader is not installed are left out.

    Args:
        root: the folder.
        by_content: open files whose extension is no image's, and take those whose first bytes are.
            Otherwise names alone decide, and no file is opened.

    Returns:
        An `ImageListing`; the same tree gives the same listing on every machine.

    Example:
        >>> find_images("photos").paths[:2]
        ['cat/0.png', 'cat/1.png']

    Raises:
        InputError: `root` is not a folder, may not be read, or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a folder of images")
    walk = _Walk(root, by_content=by_content)
    try:
        paths = walk.images()
    except PermissionError:
        raise InputError(f"{root}: may not be read; check the folder's permissions") from None
    left_out = walk.left_out()
    if not paths:
        notes = " ".join(left_out.notes())
        raise InputError(f"{root}: no image in it" + (f". {notes}" if notes else ""))
    return ImageListing(root, paths, left_out)


def list_names(root: str, names: Iterable[str]) -> ImageListing:
    """List the images among the names of objects, such as those of a bucket; nothing is opened.

    The same are left out as in `find_images`.

    Args:
        root: what the names start from, for errors.
        names: of objects, with "/" between folders.

    Returns:
        An `ImageListing`, sorted as that of `find_images`.

    Example:
        >>> list_names("s3://photos", ["cat/1.png", "cat/notes.txt", ".trash/0.png"]).paths
        ['cat/1.png']

    Raises:
        InputError: none of them is an image.
    """
    walk = _Walk(Path(root), by_content=False)
    paths = sorted(walk.images_among(names), key=lambda path: (_first_folder(path), path))
    left_out = walk.left_out()
    if not paths:
        notes = "".join(f". {kind.what}" for kind in left_out.kinds())
        raise InputError(f"{root}: no image in it{notes}")
    return ImageListing(Path(root), paths, left_out)


class _Walk:
    """One walk through a folder tree."""

    def __init__(self, root: Path, *, by_content: bool) -> None:
        self._root = root
        self._by_content = by_content
        self._others: Counter[str] = Counter()
        self._without_reader: Counter[str] = Counter()
        self._system_folders: Counter[str] = Counter()
        self._num_hidden = self._num_unlistable = self._num_seen_again = 0
        self._unreadable: list[str] = []
        self._empty: list[str] = []

    def images(self) -> list[str]:
        """Return the images, sorted by their first folder, then by path.

        Raises:
            PermissionError: the root may not be read.
        """
        files, folders = self._scan(self._root)
        paths = sorted(filter(self._is_listed, files))
        for name in folders:
            # A folder that links to the root must not hold all.
            visits = Counter([_identity(self._root)])
            paths += sorted(self._below(name, visits))
            self._num_seen_again += visits.total() - len(visits)
        return paths

    def images_among(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the images among names of objects; each hidden or system folder counts once."""
        left_out = set()
        for name in names:
            *folders, file = name.split("/")
            if not file:  # an object that stands for a folder
                continue
            parts = [*(f"{folder}/" for folder in folders), file]
            depth = next((n for n, part in enumerate(parts) if _is_left_out(part)), None)
            if depth is None:
                if self._is_listed(name):
                    yield name
            elif (first := "".join(parts[: depth + 1])) not in left_out:
                left_out.add(first)
                if parts[depth].startswith("."):
                    self._num_hidden += 1
                else:
                    self._system_folders[folders[depth]] += 1

    def left_out(self) -> LeftOut:
        """Return what the walk left out."""
        return LeftOut(
            self._others,
            self._without_reader,
            self._system_folders,
            self._num_hidden,
            self._num_unlistable,
            self._num_seen_again,
            tuple(self._unreadable),
            tuple(self._empty),
            self._by_content,
        )

    def _below(self, folder: str, visits: Counter[tuple[int, int]]) -> list[str]:
        """Return all images below a folder; `visits` counts how often a folder is met."""
        try:
            identity = _identity(self._root / folder)
            visits[identity] += 1
            if visits[identity] > 1:
                return []
            files, folders = self._scan(self._root / folder)
        except OSError:
            self._unreadable.append(folder)
            return []
        num_unread, num_empty = self._num_unread, len(self._empty)
        images = [path for name in files if self._is_listed(path := f"{folder}/{name}")]
        for name in folders:
            images += self._below(f"{folder}/{name}", visits)
        if not images and self._num_unread == num_unread:
            self._empty[num_empty:] = [folder]  # stands for the empty folders in it
        return images

    @property
    def _num_unread(self) -> int:
        """Number of things so far that may be, or hold, images that cannot be listed."""
        return self._without_reader.total() + self._num_unlistable + len(self._unreadable)

    def _scan(self, folder: Path) -> tuple[list[str], list[str]]:
        """Return the names of the files and of the folders that count, sorted."""
        files: list[str] = []
        folders: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    self._num_hidden += 1
                elif not _is_folder(entry):
                    files.append(entry.name)
                elif is_system_folder(entry.name):
                    self._system_folders[entry.name] += 1
                else:
                    folders.append(entry.name)
        return sorted(files), sorted(folders)

    def _is_listed(self, path: str) -> bool:
        """Return whether a file is an image that can be listed; if not, count it."""
        format_name = format_of_name(path)
        if format_name is None and self._by_content:
            format_name = _format_by_content(self._root / path)
        if format_name is None:
            name = path.rpartition("/")[2].lower()
            kind = name if name in SYSTEM_FILES else os.path.splitext(name)[1]
            self._others[kind] += 1
        elif missing_extra(format_name) is not None:
            self._without_reader[format_name] += 1
        elif "\n" in path or "\r" in path:
            self._num_unlistable += 1
        else:
            return True
        return False


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


def _format_by_content(file: Path) -> str | None:
    """Return the format that a file's first bytes say; None for no image, or no regular file."""
    try:
        with open_regular(file) as handle:
            return format_of_bytes(handle.read(SIGNATURE_BYTES))
    except (OSError, ValueError):
        return None


def _first_folder(path: str) -> str:
    return path.partition("/")[0] if "/" in path else ""


def _is_left_out(part: str) -> bool:
    """Return whether a part of a path, a folder's with "/" after it, is hidden or a system's."""
    return part.startswith(".") or (part.endswith("/") and is_system_folder(part[:-1]))


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
