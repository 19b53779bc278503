"""JPEG 2000: more than 8 bits with colour or alpha, and reducing an image while it is decoded.

Pillow lets the lightest values of more than 8 bits wrap to 0 in all but plain gray, so OpenCV
decodes these; gray with alpha, which OpenCV refuses, is left to imagecodecs. What states 16 bits
may use fewer: then the rule of `sample_range` counts. A large image is reduced by the resolutions
that its file holds.
"""

from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.images.limits import LARGE_BYTES, enough_memory
from deep_ranking.images.readers.raster import Raster
from deep_ranking.images.readers.sample_range import SampleRange
from deep_ranking.images.readers.shown import shown_samples

CODING_STYLE = b"\xff\x52"  # the marker; the number of halvings is 9 bytes behind its begin
NUM_HALVINGS = 9
START = b"\xff\x4f\xff\x51"
MOST_HALVINGS = 5
PRECISION, IS_SIGNED = 42, 0x80  # bits of the first channel less one, behind the start
BYTES_PER_DEEP_PIXEL = 40

Samples = npt.NDArray[Any]


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


def jpeg_2000_bits(data: bytes) -> int | None:
    """Return the bits of a sample, as the file states them; None if it does not, or is signed."""
    place = data.find(START) + PRECISION
    if not PRECISION <= place < len(data) or data[place] & IS_SIGNED:
        return None
    return data[place] + 1


def read_deep_jpeg_2000(data: bytes, header: Image.Image) -> Raster | None:
    """Decode a JPEG 2000 of more than 8 bits with colour or alpha; return None for any other.

    Args:
        data: the file's bytes.
        header: the file, as Pillow opened it.

    Raises:
        InputError: it takes too much memory, or a package that is not installed.
    """
    bits = jpeg_2000_bits(data)
    if header.mode not in ("LA", "RGB", "RGBA") or bits is None or not 8 < bits <= 16:
        return None
    with enough_memory(*header.size, BYTES_PER_DEEP_PIXEL):
        samples = _gray_and_alpha(data) if header.mode == "LA" else _colors(data)
        if samples is None or samples.ndim != 3 or samples.dtype != np.uint16:
            return None
        stated = None if bits == 16 else SampleRange(0, (1 << bits) - 1)
        return shown_samples(samples, stated, bits)


def _colors(data: bytes) -> Samples | None:
    """Return the samples, red first; None if OpenCV cannot decode them."""
    with suppress(cv2.error):
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is not None and samples.ndim == 3:  # OpenCV has blue first
            return samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    return None


def _gray_and_alpha(data: bytes) -> Samples:
    if find_spec("imagecodecs") is None:
        raise InputError(
            "JPEG 2000 of gray with alpha above 8 bits; install deep-ranking[jxl] to read it"
        )
    import imagecodecs

    return np.asarray(imagecodecs.jpeg2k_decode(data))
