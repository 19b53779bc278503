"""Read an image file as a square of pixels; every part of the project reads images with it.

Training, comparing, embedding and searching all get their pixels from here, so that the same file
gives the same pixels everywhere.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from deep_ranking.files.array_types import Float64Array, UInt8Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images.decoding import decode_bytes, decode_image

T = TypeVar("T")

IMAGES_AT_ONCE = 1024
MAX_THREADS = 8  # each holds one image in memory
# Output point -> source point, both in (x, y) with the image spanning [-1/2, 1/2] on each axis.
IDENTITY: Float64Array = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True, eq=False)
class View:
    """How to see an image: with or without augmentation.

    Attributes:
        affine: float (2, 3), where it is sampled; see `resample`.
        grayscale: whether it loses its colours.
    """

    affine: Float64Array = field(default_factory=lambda: IDENTITY)
    grayscale: bool = False


PLAIN = View()


def read_image(image: str | os.PathLike[str] | bytes, size: int, view: View = PLAIN) -> UInt8Array:
    """Read an image file as a square of RGB pixels, the way every part of the project does.

    The EXIF orientation is applied. Transparency becomes white, and black behind a drawing that is
    nearly white itself. Colour profiles, CMYK, L*a*b* and palettes are converted to sRGB. Samples
    of more than 8 bits are mapped from the range that the file states, or from the smallest of 8,
    10, 12, 14 and 16 bits that holds them. Of more bands than three, the first three are RGB. An
    animation gives its first frame. The image is stretched to a square, antialiased.

    Args:
        image: an image file, of any format in `images/formats.py`, whatever its extension; or the
            bytes of one.
        size: side of the square in pixels, 1 or more.
        view: how to see it; augmentation draws other views than the plain one.

    Returns:
        uint8 (size, size, 3), RGB, 0 to 255.

    Example:
        >>> read_image("photos/cat/0.png", size=32).shape
        (32, 32, 3)

    Raises:
        InputError: there is no such file, it is not a complete image of a reasonable size, its
            pixels have no fixed range (float, 32 bits), or its format needs an extra.
    """
    if isinstance(image, bytes):
        decoded = decode_bytes(image, size, "the bytes of an image")
    else:
        decoded = decode_image(image, size)
    pixels = resample(decoded, size, view.affine)
    return _without_color(pixels) if view.grayscale else pixels


def read_with_threads(
    read: Callable[[Path], T], files: Iterable[Path], total: int, *, progress: bool = False
) -> Iterator[T]:
    """Read image files on several threads, and yield what `read` returns of each, in order.

    Args:
        read: reads one file; an error that it raises stops the work.
        files: the files; at most 1024 are taken ahead of what is yielded.
        total: how many there are.
        progress: whether to show a progress bar on standard error, if that is a terminal.
    """
    cv2.setNumThreads(1)  # OpenCV's own threads would compete with these
    bar = progress_bar(total=total, title="reading", unit="images", shown=progress)
    files = iter(files)
    with bar, ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as threads:
        try:
            while part := list(islice(files, IMAGES_AT_ONCE)):
                for result in threads.map(read, part):
                    bar.update()
                    yield result
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # an interrupt ends it soon
            raise


def _without_color(image: UInt8Array) -> UInt8Array:
    """Return the brightness by ITU-R 601 in all channels: 0.299 red, 0.587 green, 0.114 blue."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)


def resample(image: UInt8Array, size: int, transform: Float64Array = IDENTITY) -> UInt8Array:
    """Sample an image at a square of points: bilinear, and the nearest pixel beyond the border.

    Args:
        image: uint8 (height, width, 3).
        size: side of the result in pixels.
        transform: float (2, 3), affine map from points of the result to points of the image. Both
            are (x, y) in [-1/2, 1/2] on each axis. The identity is a plain resize.

    Returns:
        uint8 (size, size, 3).
    """
    # Pixel i of the result lies at (i + 1/2) / size - 1/2; point v of the image at pixel
    # (v + 1/2) * side - 1/2. Written out: NumPy is slow for 2 x 2 matrices.
    matrix = np.array(
        [
            [x * step, y * step, (move + 0.5) * side - 0.5 + (x + y) * step * (1 - size) / 2]
            for (x, y, move), side in zip(transform.tolist(), image.shape[1::-1], strict=True)
            for step in (side / size,)
        ]
    )
    # OpenCV samples four channels twice as fast as three, with the same values.
    sampled = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.cvtColor(sampled, cv2.COLOR_RGBA2RGB).astype(np.uint8, copy=False)
