"""JPEG 2000: colour of more than 8 bits, and reducing a large image while it is decoded.

Pillow lets the lightest values of more than 8 bits wrap to 0 in colour images, so OpenCV decodes
these. A large image of 8 bits is reduced by the resolutions that its file holds.
"""

from contextlib import suppress

import cv2
import numpy as np
from PIL import Image

from deep_ranking.images.limits import LARGE_BYTES, enough_memory
from deep_ranking.images.readers.raster import Raster
from deep_ranking.images.readers.sample_range import SampleRange, to_bytes
from deep_ranking.images.readers.transparency import on_background

CODING_STYLE = b"\xff\x52"  # the marker; the number of halvings is 9 bytes behind its begin
NUM_HALVINGS = 9
START = b"\xff\x4f\xff\x51"
MOST_HALVINGS = 5
PRECISION, IS_SIGNED = 42, 0x80  # bits of the first channel less one, behind the start
BYTES_PER_DEEP_PIXEL = 40


def reduce_jpeg_2000(data: bytes, header: Image.Image, size: int, bytes_per_pixel: float) -> int:
    """Let a JPEG 2000 be reduced when it is loaded, if it takes much memory.

    Args:
        data: the file's bytes.
        header: the file, as Pillow opened it; not yet loaded.
        size: side at which the image will be sampled; no side is reduced below twice that.
        bytes_per_pixel: memory that decoding takes.

    Returns:
        The factor by which each side is reduced, a power of two.
    """
    width, height = header.size
    if width * height * bytes_per_pixel <= LARGE_BYTES:
        return 1
    halvings = 0
    most = min(_halvings_in(data), MOST_HALVINGS)
    while halvings < most and min(width, height) >> halvings + 1 >= 2 * size:
        halvings += 1
    header.reduce = halvings  # type: ignore[method-assign,assignment]
    return 1 << halvings


def _halvings_in(data: bytes) -> int:
    """Return how often the file's own resolutions halve the image; 0 if it does not say."""
    start = data.find(START)
    place = data.find(CODING_STYLE, start) if start >= 0 else -1
    return data[place + NUM_HALVINGS] if 0 <= place < len(data) - NUM_HALVINGS else 0


def read_deep_jpeg_2000(data: bytes, header: Image.Image) -> Raster | None:
    """Decode a JPEG 2000 with colours of more than 8 bits; return None for any other.

    Args:
        data: the file's bytes.
        header: the file, as Pillow opened it.

    Raises:
        InputError: it takes too much memory.
    """
    place = data.find(START) + PRECISION
    if header.mode not in ("RGB", "RGBA") or not PRECISION <= place < len(data):
        return None
    bits = (data[place] & ~IS_SIGNED) + 1
    if bits <= 8 or bits > 16 or data[place] & IS_SIGNED:
        return None
    with enough_memory(*header.size, BYTES_PER_DEEP_PIXEL):
        samples = None
        with suppress(cv2.error):
            samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.ndim != 3 or samples.dtype != np.uint16:
            return None
        values = to_bytes(samples, SampleRange(0, (1 << bits) - 1))
        pixels = np.ascontiguousarray(values[..., 2::-1])  # OpenCV has blue first
        if values.shape[2] < 4:
            return Raster(pixels=pixels)
        alpha = values[..., 3]
        result, notes = on_background(lambda rows: (pixels[rows], alpha[rows]), *alpha.shape)
        return Raster(pixels=result, notes=notes)
