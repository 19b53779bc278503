"""Find groups of near-duplicates in a collection."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.html import paragraph
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.stored_rows import Rows
from deep_ranking.files.words import byte_size, counted
from deep_ranking.images.near_copies import MAX_EMBEDDING_DISTANCE
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.metrics import pair_distances
from deep_ranking.search.collection import Collection, GalleryImage, ImageTable
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.index.near_groups import group_near_rows
from deep_ranking.search.keeper import DuplicateImage, choose_keeper, measure_image

if TYPE_CHECKING:
    from deep_ranking.search.set_aside import MoveReport

MAX_DISTANCE = 2.0
"""The largest distance of two unit rows."""


@dataclass(frozen=True)
class DuplicateGroup:
    """Two or more images that are duplicates of each other.

    Attributes:
        images: the one to keep, then the others, by their distance to it and by path.
    """

    images: tuple[DuplicateImage, ...]

    @property
    def keeper(self) -> DuplicateImage:
        """The image to keep."""
        return self.images[0]

    @property
    def others(self) -> tuple[DuplicateImage, ...]:
        """The images that could go."""
        return self.images[1:]


@dataclass(frozen=True)
class Duplicates:
    """The duplicates in a collection.

    Attributes:
        groups: the largest first; those of one size by the first path in each.
        left_out: path and problem of each image that was not compared, by path.
        root: folder of the images, which the paths start from.
        threshold: images nearer than this are duplicates.
        index: folder of the collection.

    Example:
        >>> found = find_duplicates("photos.index", threshold=0)
        >>> [[image.path for image in group.images] for group in found.groups]
        [['cat/0.png', 'cat/3.png']]
    """

    groups: list[DuplicateGroup]
    left_out: list[tuple[str, str]]
    root: Path
    threshold: float
    index: Path

    @property
    def summary(self) -> str:
        """One line: the numbers of groups and images, and what the others take on the disk."""
        images = sum(len(group.images) for group in self.groups)
        others = [image for group in self.groups for image in group.others]
        size = byte_size(sum(image.num_bytes for image in others))
        return (
            f"{counted(len(self.groups), 'group')}, {counted(images, 'image')}, "
            f"{len(others):,} could go, {size}"
        )

    def text(self) -> str:
        """Return the groups as text: what to keep, and the distance of the others to it."""
        if not self.groups:
            return ""
        lines = [f"Images nearer than {self.threshold:g}; paths are below {self.root}.", ""]
        for number, group in enumerate(self.groups, start=1):
            lines.append(f"Group {number}: {counted(len(group.images), 'image')}")
            for image in group.images:
                what = "keep" if image.is_keeper else f"{image.distance:.4f}"
                sides, size = f"{image.width}x{image.height}", byte_size(image.num_bytes)
                lines.append(f"  {what:>6}  {sides:>11}  {size:>10}  {image.path}")
            lines.append("")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"{self.text()}\n{self.summary}" if self.groups else self.summary

    def _repr_html_(self) -> str:
        rows = [
            [
                (self.root / image.path, "keep" if image.is_keeper else f"{image.distance:.3f}")
                for image in group.images
            ]
            for group in self.groups
        ]
        return paragraph(self.summary) + image_rows(rows)

    def move_aside(self, folder: str | os.PathLike[str]) -> "MoveReport":
        """Move all images except those to keep into a folder; nothing is deleted.

        The folder gets an undo file, by which `move_back` moves them back.

        Args:
            folder: target folder, outside the folder of the images.

        Example:
            >>> moved = find_duplicates("photos.index", threshold=0).move_aside("copies")
            >>> moved
            1 image moved, ...
            >>> move_back("copies/undo.jsonl").num_images
            1

        Raises:
            InputError: the folder would be indexed again, or cannot be written.
        """
        from deep_ranking.search.set_aside import check_folder, move_aside

        check_folder(Path(folder), self.root, self.index)
        return move_aside(self.groups, self.root, Path(folder))

    def to_json(self, root: Path) -> dict[str, Any]:
        """Return the groups and the images left out as plain values, with paths below `root`."""
        groups = [
            [
                {
                    "path": str(root / image.path),
                    "class": image.label,
                    "distance": image.distance,
                    "width": image.width,
                    "height": image.height,
                    "sharpness": image.sharpness,
                    "bytes": image.num_bytes,
                    "is_keeper": image.is_keeper,
                }
                for image in group.images
            ]
            for group in self.groups
        ]
        left_out = [{"path": str(root / path), "problem": text} for path, text in self.left_out]
        return {"groups": groups, "left_out": left_out}


def find_duplicates(
    collection: Collection | str | os.PathLike[str],
    threshold: float = MAX_EMBEDDING_DISTANCE,
    *,
    index: Index | None = None,
    progress: bool = False,
) -> Duplicates:
    """Find groups of near-duplicates.

    Two images are duplicates if their embeddings are nearer than the threshold, or if their files
    are equal. Duplicates of duplicates are in one group: if A is near B and B is near C, all three
    are one group, however far A is from C. So a threshold that is too large makes chains of images
    that have little in common.

    The image to keep is one with the most pixels. Among several of these it is a sharp one: at
    least half as sharp as the sharpest, because compression may seem to sharpen. Among several
    sharp ones it is the largest file, and among equally large files the first path.

    Images whose files are gone, changed or became unreadable since the last sync are left out. If
    several paths lead to one file, all but one of them are left out.

    Args:
        collection: an open collection, or its folder.
        threshold: Euclidean distance, 0 (only equal files) to 2.
        index: the collection's index; None to open it. One that does not compare all embeddings
            may miss duplicates.
        progress: whether to show progress bars.

    Returns:
        The groups and the images left out; always the same for the same collection.

    Example:
        >>> find_duplicates("photos.index", threshold=0).summary
        '1 group, 2 images, 1 could go, ...'

    Raises:
        InputError: the threshold is out of range, the folder of images is gone, or the index is
            damaged.
    """
    if not 0 <= threshold <= MAX_DISTANCE:
        raise InputError(f"threshold must be 0 to {MAX_DISTANCE:g}. Received: {threshold}")
    if not isinstance(collection, Collection):
        collection = Collection.open(collection)
    root = Path(collection.settings.root)
    if not root.is_dir():
        raise InputError(
            f"{root}: the folder of the images is gone; run `index` with --images where it is now"
        )
    with closing(collection.images()) as table:
        left_out = _out_of_date(table, root)
        images = [image for image in table.images() if image.path not in left_out]
    rows, owners = np.unique([image.row for image in images], return_inverse=True)
    rows = rows.astype(np.int64)
    embeddings = collection.embeddings()
    numbers = np.arange(len(rows))
    if threshold > 0 and len(rows) > 1:
        index = open_index(collection) if index is None else index
        numbers = group_near_rows(embeddings, rows, index, threshold, progress=progress)
    near: dict[int, list[GalleryImage]] = {}
    for image, number in zip(images, numbers[owners].tolist(), strict=True):
        near.setdefault(number, []).append(image)
    candidates = [each for each in near.values() if len(each) > 1]
    total = sum(map(len, candidates))
    groups = []
    with (
        ThreadPoolExecutor() as pool,
        progress_bar(total=total, title="measuring", unit="images", shown=progress) as bar,
    ):
        for candidate in candidates:
            files = _without_links(candidate, root, left_out)
            measured = pool.map(lambda image: measure_image(image, root), files)
            members = []
            for image, result in zip(files, measured, strict=True):
                if isinstance(result, str):
                    left_out[image.path] = result
                else:
                    members.append(result)
            if len(members) > 1:
                groups.append(_make_group(members, embeddings))
            bar.update(len(candidate))
    groups.sort(key=lambda group: (-len(group.images), min(each.path for each in group.images)))
    return Duplicates(groups, sorted(left_out.items()), root, threshold, collection.folder)


def _out_of_date(table: ImageTable, root: Path) -> dict[str, str]:
    """Return path and problem of each image whose file changed since it was embedded."""
    problems: dict[str, str] = {}
    for file in table.files():
        try:
            status = (root / file.path).stat()
        except OSError as error:
            problems[file.path] = f"gone since the collection was synced ({error.strerror})"
            continue
        if (status.st_size, status.st_mtime_ns) != (file.size, file.changed):
            problems[file.path] = "changed since the collection was synced"
    return problems


def _without_links(
    images: Sequence[GalleryImage], root: Path, left_out: dict[str, str]
) -> list[GalleryImage]:
    """Return one image for each file; add the other paths of the file to `left_out`.

    Otherwise the file could be moved, and a link to it be kept.
    """
    real_root = os.path.realpath(root)
    real = {image.path: os.path.realpath(root / image.path) for image in images}

    def is_link(image: GalleryImage) -> bool:
        return real[image.path] != os.path.join(real_root, image.path)

    found: dict[str, GalleryImage] = {}
    for image in sorted(images, key=lambda each: (is_link(each), each.path)):
        first = found.setdefault(real[image.path], image)
        if first is not image:
            left_out[image.path] = f"a link that leads to {first.path}"
    return list(found.values())


def _make_group(members: Sequence[DuplicateImage], embeddings: Rows) -> DuplicateGroup:
    """Choose the image to keep, and sort the others by their distance to it."""
    keeper = choose_keeper(members)
    rows = np.array([image.row for image in members], np.int64)
    distances = pair_distances(embeddings, embeddings, rows, np.full_like(rows, keeper.row))
    images = [
        replace(image, distance=distance, is_keeper=image is keeper)
        for image, distance in zip(members, distances.tolist(), strict=True)
    ]
    images.sort(key=lambda image: (not image.is_keeper, image.distance, image.path))
    return DuplicateGroup(tuple(images))
