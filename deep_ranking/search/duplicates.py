"""Find groups of near-duplicates in a collection."""

import os
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.datasets.not_duplicates import Pair, path_beside, read_not_duplicates
from deep_ranking.files import InputError, printable
from deep_ranking.files.html import paragraph
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.words import byte_size, counted, listed
from deep_ranking.images.near_copies import MAX_EMBEDDING_DISTANCE
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.search.collection import Collection, GalleryImage, moved_hint
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.index.near_groups import group_near_rows
from deep_ranking.search.keeper import DuplicateImage, measure_image
from deep_ranking.search.kept_groups import DuplicateGroup, split_chain
from deep_ranking.search.links import Links, freed_bytes
from deep_ranking.search.out_of_date import out_of_date

if TYPE_CHECKING:
    from deep_ranking.search.set_aside import MoveReport

MAX_DISTANCE = 2.0
"""The largest distance of two unit rows."""

MAX_THREADS = 4  # each holds a whole image in memory


@dataclass(frozen=True)
class Duplicates:
    """The duplicates in a collection.

    Attributes:
        groups: the largest first; those of one size by the first path in each.
        left_out: path and problem of each image that was not compared, by path.
        root: folder of the images, which the paths start from.
        threshold: images nearer than this are duplicates.
        index: folder of the collection.
        num_told_apart: pairs that people said are no duplicates, of images that are near.

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
    num_told_apart: int = 0

    @property
    def summary(self) -> str:
        """One line: the numbers of groups and images, and what space could be freed."""
        images = sum(len(group.images) for group in self.groups)
        movable = [image for group in self.groups for image in group.movable]
        told_apart = ""
        if self.num_told_apart:
            told_apart = f"; {counted(self.num_told_apart, 'pair')} told apart by people"
        return (
            f"{counted(len(self.groups), 'group')}, {counted(images, 'image')}, "
            f"{len(movable):,} could go, {byte_size(freed_bytes(movable))}{told_apart}"
        )

    def text(self) -> str:
        """Return the groups as text: what to keep, and the distance of the others to it."""
        if not self.groups:
            return ""
        lines = [
            f"Each group: the image to keep, and those nearer than {self.threshold:g} to it, or "
            f"equal; paths are below {self.root}.",
            "",
        ]
        for number, group in enumerate(self.groups, start=1):
            lines.append(f"Group {number}: {group_title(group)}")
            for image in group.images:
                what = "keep" if image.is_keeper else f"{image.distance:.4f}"
                sides, size = f"{image.width}x{image.height}", byte_size(image.num_bytes)
                remark = f"  ({'; '.join(remarks)})" if (remarks := remarks_about(image)) else ""
                lines.append(
                    f"  {what:>6}  {sides:>11}  {size:>10}  {printable(image.path)}{remark}"
                )
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
                    "effective_side": image.effective_side,
                    "bytes": image.num_bytes,
                    "is_keeper": image.is_keeper,
                    "why_it_stays": image.why_it_stays or None,
                    "num_links": image.num_links,
                }
                for image in group.images
            ]
            for group in self.groups
        ]
        left_out = [{"path": str(root / path), "problem": text} for path, text in self.left_out]
        return {"groups": groups, "left_out": left_out}


def group_title(group: DuplicateGroup) -> str:
    """Return the number of images of a group and, if they differ, of their classes."""
    title = counted(len(group.images), "image")
    if len(group.labels) < 2:
        return title
    return f"{title} of {counted(len(group.labels), 'class')} ({listed(group.labels)})"


def remarks_about(image: DuplicateImage) -> list[str]:
    """Return what a person must know before an image is moved."""
    remarks = []
    if image.why_it_stays and not image.is_keeper:
        remarks.append(f"stays: {image.why_it_stays}")
    if image.num_links > 1:
        remarks.append(
            f"a file with {image.num_links} names (hard links): frees no space before the last goes"
        )
    return remarks


def find_duplicates(
    collection: Collection | str | os.PathLike[str],
    threshold: float = MAX_EMBEDDING_DISTANCE,
    *,
    index: Index | None = None,
    not_duplicates: Container[Pair] | None = None,
    progress: bool = False,
) -> Duplicates:
    """Find groups of near-duplicates.

    Two images are duplicates if their embeddings are nearer than the threshold, or if their files
    are equal. Chains are split: if A is near B and B is near C, but not A near C, then of the three
    the best is kept, with those near it as its group; the rest is grouped likewise. So each image
    is near the one that is kept in its place.

    The best image is the one with the most detail, by its spectrum; see `choose_keeper`.

    Images whose files are gone, changed or became unreadable since the last sync are left out. If
    several paths lead to one file, all but one of them are left out. A file that a link leads to
    may be kept, and is never moved.

    Args:
        collection: an open collection, or its folder.
        threshold: Euclidean distance, 0 (only equal files) to 2.
        index: the collection's index; None to open it. One that does not compare all embeddings
            may miss duplicates.
        not_duplicates: pairs of paths, of which neither stands for the other in a group; None for
            those in INDEX.not_duplicates.csv, which people told apart. Equal files always are
            duplicates.
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
    if not_duplicates is None:
        not_duplicates = read_not_duplicates(path_beside(collection.folder))
    root = Path(collection.settings.root)
    if not root.is_dir():
        raise InputError(f"{root}: the folder of the images is gone; {moved_hint(collection)}")
    with closing(collection.images()) as table:
        images = list(table.images())
    paths = [image.path for image in images]
    links = Links(paths, root)
    left_out = {
        path: f"{problem} since the collection was synced; run `index` again"
        for path, problem in out_of_date(collection, paths).items()
    }
    images = [image for image in images if image.path not in left_out]
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
    paths = [image.path for each in candidates for image in each]
    with closing(collection.images()) as table:
        contents = {file.path: content for file, content in table.recorded(paths)}

    def measure(image: GalleryImage) -> DuplicateImage | str:
        return measure_image(image, contents[image.path], root, links.why_it_stays(image.path))

    groups: list[DuplicateGroup] = []
    told_apart: set[Pair] = set()
    with (
        ThreadPoolExecutor(MAX_THREADS) as pool,
        progress_bar(total=len(paths), title="measuring", unit="images", shown=progress) as bar,
    ):
        for candidate in candidates:
            files = _one_for_each_file(candidate, links, left_out)
            members = _measured(files, measure, left_out, pool)
            groups += split_chain(members, embeddings, threshold, not_duplicates, told_apart)
            bar.update(len(candidate))
    groups.sort(key=lambda group: (-len(group.images), min(each.path for each in group.images)))
    return Duplicates(
        groups,
        sorted(left_out.items()),
        root,
        threshold,
        collection.folder,
        len(told_apart),
    )


def _measured(
    files: Sequence[GalleryImage],
    measure: Callable[[GalleryImage], DuplicateImage | str],
    left_out: dict[str, str],
    pool: ThreadPoolExecutor,
) -> list[DuplicateImage]:
    """Measure images; add those that cannot be read to `left_out`."""
    members = []
    for image, result in zip(files, pool.map(measure, files), strict=True):
        if isinstance(result, str):
            left_out[image.path] = result
        else:
            members.append(result)
    return members


def _one_for_each_file(
    images: Sequence[GalleryImage], links: Links, left_out: dict[str, str]
) -> list[GalleryImage]:
    """Return one image for each file; add the other paths of the file to `left_out`.

    Otherwise the file could be moved, and a link to it be kept.
    """
    found: dict[str, GalleryImage] = {}
    for image in sorted(images, key=lambda each: (links.is_link(each.path), each.path)):
        first = found.setdefault(links.real(image.path), image)
        if first is not image:
            left_out[image.path] = f"a link that leads to {first.path}"
    return list(found.values())
