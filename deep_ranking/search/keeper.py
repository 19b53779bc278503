"""Measure duplicate images, and choose the one to keep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deep_ranking.files import InputError, without_path
from deep_ranking.images import decode_image, open_header
from deep_ranking.search.collection import GalleryImage
from deep_ranking.search.detail import measured_sharpness

MEASURED_SIZE = 2048
"""Images with a side above 2.5 times this are measured after a reduction to twice this."""

EQUAL_DETAIL = 0.7
"""Share of the largest effective side above which images count as equally detailed.

On photographs, it takes in copies that were compressed (0.78 and more) or enlarged, and leaves out
those reduced to half (0.66 and less) or blurred (0.54 and less).
"""

ENLARGED = 0.56
"""Share of the highest sharpness, among equally detailed images, below which one is enlarged.

An enlargement to twice the size has 0.47 to 0.55 of it. Of a photograph and its copy of half the
size, the photograph has more, unless it is so soft that the copy has all of its detail.
"""

LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")


@dataclass(frozen=True)
class DuplicateImage:
    """An image of a group of duplicates.

    Attributes:
        path: relative to the collection's root.
        label: its class, as the collection stores it; "" for none.
        row: row of its embedding.
        content: SHA-256 of the file that was embedded.
        width: pixels, as stored.
        height: pixels, as stored.
        sharpness: share of the frequencies that its pixels can hold which the image uses, 0 to 1.
        effective_side: root of the number of pixels that the image's detail needs.
        file_format: as Pillow names it.
        num_bytes: size of the file.
        file_id: device and inode; hard links share them.
        num_links: names of the file, hard links included.
        why_it_stays: why it must not be moved; "" if it may be.
        distance: Euclidean, to the image to keep.
        is_keeper: whether it is the image to keep.
    """

    path: str
    label: str
    row: int
    content: bytes
    width: int
    height: int
    sharpness: float
    effective_side: float
    file_format: str
    num_bytes: int
    file_id: tuple[int, int]
    num_links: int
    why_it_stays: str = ""
    distance: float = 0.0
    is_keeper: bool = False


def measure_image(
    image: GalleryImage, content: bytes, root: Path, why_it_stays: str = ""
) -> DuplicateImage | str:
    """Return the size and sharpness of an image file, or the reason why it cannot be read.

    Args:
        image: the image.
        content: SHA-256 of the file that was embedded.
        root: folder of the images.
        why_it_stays: why it must not be moved.
    """
    path = root / image.path
    try:
        status = path.stat()
        pixels = decode_image(path, MEASURED_SIZE)
        with open_header(path) as header:
            (width, height), file_format = header.size, header.format or ""
    except InputError as error:
        return without_path(error, path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    sharpness = measured_sharpness(pixels)
    return DuplicateImage(
        path=image.path,
        label=image.label,
        row=image.row,
        content=content,
        width=width,
        height=height,
        sharpness=sharpness,
        effective_side=sharpness * math.sqrt(pixels.shape[0] * pixels.shape[1]),
        file_format=file_format,
        num_bytes=status.st_size,
        file_id=(status.st_dev, status.st_ino),
        num_links=status.st_nlink,
        why_it_stays=why_it_stays,
    )


def choose_keeper(images: Sequence[DuplicateImage]) -> DuplicateImage:
    """Return the image to keep.

    It has the most detail, by its effective side. Among about equally detailed images, one that is
    merely enlarged loses; then count, in this order: more pixels, a format without loss, more
    bytes, the first path.
    """
    most = max(image.effective_side for image in images)
    detailed = [image for image in images if image.effective_side >= EQUAL_DETAIL * most]
    sharpest = max(image.sharpness for image in detailed)
    return min(
        (image for image in detailed if image.sharpness >= ENLARGED * sharpest),
        key=lambda image: (
            -image.width * image.height,
            image.file_format not in LOSSLESS,
            -image.num_bytes,
            image.path,
        ),
    )
