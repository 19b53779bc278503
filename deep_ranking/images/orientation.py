"""EXIF orientation: cameras store pixels as the sensor lay, with a tag that says how to turn them.

The tag is 1 to 8. At 1 the image is upright, 2 to 4 mirror or turn it by half, and 5 to 8 swap its
sides. Any other value counts as 1.
"""

import numpy as np
from PIL import Image

from deep_ranking.files.array_types import UInt8Array

ORIENTATION_TAG = 0x0112
SWAPS_SIDES = (5, 6, 7, 8)
MIRRORS_COLUMNS = (2, 3, 6, 7)  # after the sides are swapped
MIRRORS_ROWS = (3, 4, 7, 8)


def read_orientation(header: Image.Image) -> int:
    """Return the EXIF orientation of an image; 1 if it has none, or damaged EXIF data.

    Args:
        header: the image, as Pillow opened it. Of a PNG, Pillow reads all pixels.
    """
    try:
        orientation = header.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises errors of any type
        return 1
    return orientation if isinstance(orientation, int) else 1


def upright_pixels(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """Return pixels turned and mirrored upright.

    Args:
        pixels: uint8 (height, width, 3), as stored.
        orientation: as `read_orientation` returns it.
    """
    if orientation in SWAPS_SIDES:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in MIRRORS_COLUMNS:
        pixels = pixels[:, ::-1]
    if orientation in MIRRORS_ROWS:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def upright_size(header: Image.Image) -> tuple[int, int]:
    """Return width and height of an image in pixels once it is upright."""
    width, height = header.size
    # Pillow has swapped those of a TIFF already.
    is_swapped = header.format != "TIFF" and read_orientation(header) in SWAPS_SIDES
    return (height, width) if is_swapped else (width, height)
