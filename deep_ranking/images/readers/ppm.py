"""Colour of 16 bits in PPM, which Pillow reduces to 8 before its range can be seen."""

import re

import numpy as np
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.images.limits import enough_memory
from deep_ranking.images.readers.raster import Raster
from deep_ranking.images.readers.shown import shown_samples

BLANK = rb"(?:\s|#[^\n\r]*[\n\r])"
HEADER = re.compile(rb"P(\d)" + (BLANK + rb"+(\d{1,10})") * 3 + rb"\s")
HEADER_BYTES = 1 << 12
BYTES_PER_DEEP_PIXEL, BYTES_OF_TEXT = 24, 100  # peak memory of decoding, the file included
AS_TEXT, BINARY = b"3", b"6"


def largest_of(data: bytes) -> int | None:
    """Return the sample value that the header of a PGM or PPM calls white; None if it has none."""
    found = HEADER.match(data[:HEADER_BYTES])
    return int(found[4]) if found else None


def read_deep_ppm(data: bytes, header: Image.Image) -> Raster | None:
    """Decode a PPM whose samples may use all 16 bits; return None for any other.

    Args:
        data: the file's bytes.
        header: the file, as Pillow opened it.

    Raises:
        InputError: it is cut off, or takes too much memory.
    """
    found = HEADER.match(data[:HEADER_BYTES])
    if found is None or found[1] not in (AS_TEXT, BINARY) or int(found[4]) != 65535:
        return None
    width, height = header.size
    count = width * height * 3
    with enough_memory(
        width, height, BYTES_OF_TEXT if found[1] == AS_TEXT else BYTES_PER_DEEP_PIXEL
    ):
        if found[1] == AS_TEXT:
            body = data[found.end() :]
            if not re.fullmatch(rb"[\d\s]*", body):
                return None  # Pillow knows about comments, and what is wrong
            samples = np.fromstring(body.decode("ascii"), np.float64, sep=" ")[:count]
        else:
            num_bytes = min(count * 2, len(data) - found.end()) // 2 * 2
            samples = np.frombuffer(data, ">u2", num_bytes // 2, found.end())
        if len(samples) < count:
            raise InputError("broken image (image file is truncated)")
        if samples.max() > 65535:
            raise InputError("broken image (a sample above 65535)")
        return shown_samples(samples.astype(np.uint16).reshape(height, width, 3), None, 16)
