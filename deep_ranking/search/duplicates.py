"""Groups of near-duplicates in a collection, and which image of each group to keep."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import FloatArray, Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images import open_header, read_image
from deep_ranking.metrics import pair_distances
from deep_ranking.search.collection import Collection, GalleryImage, ImageTable
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.index.near_groups import group_near_rows

MAX_DISTANCE = 2.0
"""No two rows of unit length are further apart."""

SHARPNESS_SIZE = 256
"""Side in pixels at which all images are compared for sharpness."""

AS_SHARP = 0.5
"""Share of the sharpness of the sharpest from which on an image is as sharp.

On Caltech-101, saving again at quality 50 multiplies sharpness by 0.9 to 2.1, its blocks having
edges, and a blur of one pixel by 0.3 at most.
"""


@dataclass(frozen=True)
class DuplicateImage:
    """An image of a group.

    Attributes:
        path: relative to the collection's root.
        label: its class, the first folder of the path; "" for none.
        distance: Euclidean, to the image to keep.
        width: pixels, as stored.
        height: pixels, as stored.
        sharpness: variance of the Laplacian of the gray image, 0 to 255, at one common size.
        num_bytes: size of the file.
        changed: time of change of the file (ns).
        is_keeper: whether it is the image to keep.
    """

    path: str
    label: str
    distance: float
    width: int
    height: int
    sharpness: float
    num_bytes: int
    changed: int
    is_keeper: bool


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are duplicates of each other, two or more.

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
    """What was found in a collection.

    Attributes:
        groups: the largest first, of one size by the first path in each.
        left_out: path and problem of images that were not compared, by path.
    """

    groups: list[DuplicateGroup]
    left_out: list[tuple[str, str]]


def find_duplicates(
    collection: Collection,
    threshold: float,
    *,
    index: Index | None = None,
    progress: bool = False,
) -> Duplicates:
    """Find groups of near-duplicates.

    Two images are duplicates if their embeddings are nearer than the threshold, or their files are
    equal. Duplicates of duplicates are in one group: where A is near B and B near C, the three are
    one group, however far A is from C. So a threshold that is too large makes chains of images
    that have little in common.

    The image to keep is among those with the most pixels, and of those among the sharp ones (at
    least half as sharp as the sharpest, as compression may seem to sharpen); of these it is the
    largest file, and of equal ones the first path.

    Images that are gone, changed or became unreadable since the collection was synced are left
    out, and so are further ways (links) to one and the same file.

    Args:
        collection: the collection.
        threshold: Euclidean distance, 0 (only equal files) to 2.
        index: its index; by default opened. One that does not compare all may miss duplicates.
        progress: whether to show it.

    Returns:
        The groups, and what was left out; the same collection gives the same.

    Raises:
        InputError: the threshold is out of range, the folder of images is gone, or the index is
            damaged.
    """
    if not 0 <= threshold <= MAX_DISTANCE:
        raise InputError(f"threshold must be 0 to {MAX_DISTANCE:g}. Received: {threshold}")
    root = Path(collection.settings.root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, where the images were; index where they are now")
    with closing(collection.images()) as table:
        left_out = _out_of_date(table, root)
        images = [image for image in table.images() if image.path not in left_out]
    rows, owners = np.unique([image.row for image in images], return_inverse=True)
    rows = rows.astype(np.int64)
    embeddings = collection.embeddings()
    labels = np.arange(len(rows))
    if threshold > 0 and len(rows) > 1:
        index = open_index(collection) if index is None else index
        labels = group_near_rows(embeddings, rows, index, threshold, progress=progress)
    groups = []
    candidates = _candidates(images, labels[owners])
    for members in _measured(candidates, root, left_out, progress=progress):
        if len(members) > 1:
            groups.append(_group(members, embeddings))
    groups.sort(key=lambda group: (-len(group.images), min(each.path for each in group.images)))
    return Duplicates(groups, sorted(left_out.items()))


def _out_of_date(table: ImageTable, root: Path) -> dict[str, str]:
    """Give the problem of each image whose file is not the one that was embedded."""
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


def _candidates(images: Sequence[GalleryImage], labels: Int64Array) -> list[list[GalleryImage]]:
    """Images of one label, of labels that two or more have."""
    sizes = np.bincount(labels)
    found: dict[int, list[GalleryImage]] = {}
    for number in np.flatnonzero(sizes[labels] > 1).tolist():
        found.setdefault(int(labels[number]), []).append(images[number])
    return list(found.values())


def _measured(
    candidates: Sequence[Sequence[GalleryImage]],
    root: Path,
    left_out: dict[str, str],
    *,
    progress: bool,
) -> Iterator[list[tuple[DuplicateImage, int]]]:
    """Give the measured images of each candidate with their rows; enter the others as left out."""
    total = sum(map(len, candidates))
    with (
        ThreadPoolExecutor() as pool,
        progress_bar(total=total, title="measuring", unit="images", shown=progress) as bar,
    ):
        for images in candidates:
            once = _files_once(images, root, left_out)
            members = []
            for image, measured in zip(
                once, pool.map(lambda each: _measure(each, root), once), strict=True
            ):
                if isinstance(measured, str):
                    left_out[image.path] = measured
                else:
                    members.append((measured, image.row))
            bar.update(len(images))
            yield members


def _files_once(
    images: Sequence[GalleryImage], root: Path, left_out: dict[str, str]
) -> list[GalleryImage]:
    """Leave out links to files that are there: the file could be moved, and the link be kept."""
    real_root = os.path.realpath(root)

    def is_link(image: GalleryImage) -> bool:
        return os.path.realpath(root / image.path) != os.path.join(real_root, image.path)

    seen: dict[str, str] = {}
    found = []
    for image in sorted(images, key=lambda each: (is_link(each), each.path)):
        real = os.path.realpath(root / image.path)
        if real in seen:
            left_out[image.path] = f"a link that leads to {seen[real]}"
        else:
            seen[real] = image.path
            found.append(image)
    return found


def _measure(image: GalleryImage, root: Path) -> DuplicateImage | str:
    """Look at a file: what to choose by, or what is wrong with it."""
    path = root / image.path
    try:
        status = path.stat()
        pixels = read_image(path, SHARPNESS_SIZE)
        with open_header(path) as header:
            width, height = header.size
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return DuplicateImage(
        path=image.path,
        label=image.label,
        distance=0.0,
        width=width,
        height=height,
        sharpness=sharpness(pixels),
        num_bytes=status.st_size,
        changed=status.st_mtime_ns,
        is_keeper=False,
    )


def sharpness(pixels: npt.NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of an image's gray values; blurred images have little.

    Args:
        pixels: uint8 (height, width, 3), RGB; only images of one size compare.
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())


def _to_keep(members: Sequence[tuple[DuplicateImage, int]]) -> tuple[DuplicateImage, int]:
    """Choose by pixels, then sharpness, then bytes, then path."""
    most = max(image.width * image.height for image, _ in members)
    large = [each for each in members if each[0].width * each[0].height == most]
    sharp_enough = AS_SHARP * max(image.sharpness for image, _ in large)
    sharp = [each for each in large if each[0].sharpness >= sharp_enough]
    return min(sharp, key=lambda each: (-each[0].num_bytes, each[0].path))


def _group(members: Sequence[tuple[DuplicateImage, int]], embeddings: FloatArray) -> DuplicateGroup:
    """Choose the image to keep, and order the others by their distance to it."""
    keeper, keeper_row = _to_keep(members)
    rows = np.array([row for _, row in members], np.int64)
    distances = pair_distances(embeddings, embeddings, rows, np.full_like(rows, keeper_row))
    images = [
        replace(image, distance=distance, is_keeper=image is keeper)
        for (image, _), distance in zip(members, distances.tolist(), strict=True)
    ]
    images.sort(key=lambda image: (not image.is_keeper, image.distance, image.path))
    return DuplicateGroup(tuple(images))


def readable_bytes(number: int) -> str:
    """Write a number of bytes for people: "513 bytes", "24.1 KiB", "4.2 MiB"."""
    if number < 2**10:
        return f"{number} bytes"
    if number < 2**20:
        return f"{number / 2**10:.1f} KiB"
    return f"{number / 2**20:,.1f} MiB"
