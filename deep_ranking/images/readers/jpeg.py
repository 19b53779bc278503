"""Read JPEG with libjpeg-turbo, strictly: a file whose pixels are damaged is refused.

libjpeg goes on after damage with a warning that most programs drop; the rest of the picture is then
grey or shifted. TurboJPEG, by way of simplejpeg, stops at the first warning. Not every warning is
about the pixels: damaged metadata is cut out and the file read again, and filler before the end
marker, which some cameras write, is no damage.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import simplejpeg
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.limits import enough_memory
from deep_ranking.images.orientation import read_orientation
from deep_ranking.images.readers.metadata import without_jpeg_metadata
from deep_ranking.images.readers.raster import Raster

BYTES_PER_PIXEL = 6  # peak memory of decoding, the file included
BYTES_PER_CMYK_PIXEL = 13
BYTES_PER_PROGRESSIVE_PIXEL = 6  # coefficients of the whole image, however far it is reduced
REDUCTIONS = (8, 4, 2)
MODES = {"RGB": "RGB", "L": "RGB", "CMYK": "CMYK"}
# What libjpeg says of damaged pixels; all else that it warns of is metadata or an unusual encoder.
DAMAGE = re.compile(
    r"premature end|bad huffman|bad arithmetic|extraneous bytes|instead of RST|progression"
    r"|coefficient|bogus|empty input|unexpected end",
    re.IGNORECASE,
)
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
END_MARKER = b"\xff\xd9"
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers that begin a frame
LOSSLESS, JPEG_LS = (0xC3, 0xC7, 0xCB, 0xCF), 0xF7


def reduction_for(header: Image.Image, size: int) -> int:
    """Return the factor by which a JPEG is reduced while it is decoded: 1, 2, 4 or 8."""
    most = min(header.size) // (2 * size)
    return next((factor for factor in REDUCTIONS if most >= factor), 1)


def unusual_kind(data: bytes) -> str | None:
    """Return the name of a kind of JPEG that few programs read; None for others."""
    begin = 2
    while begin + 5 <= len(data) and data[begin] == 0xFF:
        marker, precision = data[begin + 1], data[begin + 4]
        if marker == JPEG_LS:
            return "JPEG-LS"
        if marker in LOSSLESS:
            return "lossless JPEG"
        if marker in FRAMES:
            return None if precision == 8 else f"{precision}-bit JPEG"
        begin += 1 if marker == 0xFF else 2 + int.from_bytes(data[begin + 2 : begin + 4])
    return None


def read_jpeg(data: bytes, header: Image.Image, size: int) -> Raster | None:
    """Decode a JPEG; each side may be reduced to no less than 2 * size.

    Args:
        data: the file's bytes.
        header: the file, as Pillow opened it.
        size: side at which the image will be sampled.

    Returns:
        The image; None for a kind that TurboJPEG does not decode, such as one of 12 bits.

    Raises:
        InputError: its pixels are damaged, or it takes too much memory.
    """
    if header.mode not in MODES:
        return None
    reduction = reduction_for(header, size)
    is_cmyk = header.mode == "CMYK"
    per_pixel = float(BYTES_PER_CMYK_PIXEL if is_cmyk else BYTES_PER_PIXEL)
    if header.info.get("progressive") and reduction > 1:
        per_pixel += BYTES_PER_PROGRESSIVE_PIXEL * reduction**2
    with enough_memory(header.width, header.height, per_pixel, reduction):
        pixels = _decode_strictly(data, header, reduction)
    if pixels is None:
        return None
    if is_cmyk:  # as by Adobe, the ink that is missing is stored
        np.subtract(255, pixels, out=pixels)
    profile = header.info.get("icc_profile")
    return Raster(
        pixels=pixels,
        profile=None if header.mode == "L" else profile,
        orientation=read_orientation(header),
    )


def _decode_strictly(data: bytes, header: Image.Image, reduction: int) -> UInt8Array | None:
    """Return the pixels; None for a kind that TurboJPEG does not decode."""
    for content in _with_and_without_metadata(data):
        try:
            return _decode(content, header, reduction, strict=True)
        except ValueError as error:
            reason = " ".join(str(error).split())
        if DAMAGE.search(reason):
            if not _is_filler(reason, content):
                raise InputError(f"broken image ({reason})")
            with suppress(ValueError):
                return _decode(content, header, reduction, strict=False)
    return None


def _with_and_without_metadata(data: bytes) -> Iterator[bytes]:
    yield data
    yield without_jpeg_metadata(data)


def _decode(data: bytes, header: Image.Image, reduction: int, *, strict: bool) -> UInt8Array:
    width, height = (-(-side // reduction) for side in header.size)
    decode: Callable[..., UInt8Array] = simplejpeg.decode_jpeg
    return decode(data, MODES[header.mode], min_height=height, min_width=width, strict=strict)


def _is_filler(reason: str, data: bytes) -> bool:
    """Return whether the bytes that libjpeg finds too many are filler before the end marker."""
    found = EXTRANEOUS.search(reason)
    if found is None:
        return False
    count, end = int(found[1]), data.rfind(END_MARKER)
    while end >= count:
        if not data[end - count : end].strip(b"\0\xff"):
            return True
        end = data.rfind(END_MARKER, 0, end)
    return False
