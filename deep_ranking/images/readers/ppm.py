"""Colour of 16 bits in PPM, which Pillow reduces to 8 before its range can be seen."""

import re

import numpy as np
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.images.limits import enough_memory
from deep_ranking.images.readers.raster import Raster
from deep_ranking.images.readers.shown import shown

BLANK = rb"(?:\s|#[^\n\r]*[\n\r])"
HEADER = re.compile(rb"P(\d)" + (BLANK + rb"+(\d{1,10})") * 3 + rb"\s")
HEADER_BYTES = 1 << 12
BYTES_PER_DEEP_PIXEL = 24
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
    with enough_memory(width, height, BYTES_PER_DEEP_PIXEL):
        if found[1] == AS_TEXT:
            body = data[found.end() :]
            if not re.fullmatch(rb"[\d\s]*", body):
                return None  # Pillow knows about comments, and what is wrong
            samples = np.fromstring(body.decode("ascii"), np.uint16, sep=" ")[:count]
        else:
            samples = np.frombuffer(data[found.end() :][: count * 2], ">u2")
        if len(samples) < count:
            raise InputError("broken image (image file is truncated)")
        return shown(samples.astype(np.uint16).reshape(height, width, 3), None, 16)
