"""Measure duplicate images, and choose the one to keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images import open_header, read_image
from deep_ranking.search.collection import GalleryImage

SHARPNESS_SIZE = 256
"""Side in pixels to which all images are resized to compare their sharpness."""

SHARP_ENOUGH = 0.5
"""Share of the highest sharpness above which an image counts as sharp.

On Caltech-101, saving again at quality 50 multiplies sharpness by 0.9 to 2.1, because its blocks
have edges; a blur of one pixel multiplies it by 0.3 at most.
"""


@dataclass(frozen=True)
class DuplicateImage:
    """An image of a group of duplicates.

    Attributes:
        path: relative to the collection's root.
        label: its class, the first folder of the path; "" for none.
        row: row of its embedding.
        width: pixels, as stored.
        height: pixels, as stored.
        sharpness: variance of the Laplacian of the gray image, 0 to 255, at one common size.
        num_bytes: size of the file.
        changed: time when the file changed (ns).
        distance: Euclidean, to the image to keep.
        is_keeper: whether it is the image to keep.
    """

    path: str
    label: str
    row: int
    width: int
    height: int
    sharpness: float
    num_bytes: int
    changed: int
    distance: float = 0.0
    is_keeper: bool = False


def measure_image(image: GalleryImage, root: Path) -> DuplicateImage | str:
    """Return the size and sharpness of an image file, or the reason why it cannot be read."""
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
        row=image.row,
        width=width,
        height=height,
        sharpness=sharpness(pixels),
        num_bytes=status.st_size,
        changed=status.st_mtime_ns,
    )


def sharpness(pixels: UInt8Array) -> float:
    """Return the variance of the Laplacian of an image's gray values; low for blurred images.

    Args:
        pixels: uint8 (height, width, 3), RGB; compare only images of one size.
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())


def choose_keeper(images: Sequence[DuplicateImage]) -> DuplicateImage:
    """Return the image to keep: by pixels, then sharpness, then bytes, then path."""
    most = max(image.width * image.height for image in images)
    large = [image for image in images if image.width * image.height == most]
    sharp_enough = SHARP_ENOUGH * max(image.sharpness for image in large)
    sharp = [image for image in large if image.sharpness >= sharp_enough]
    return min(sharp, key=lambda image: (-image.num_bytes, image.path))
