"""Read JPEG XL with imagecodecs, which the extra `deep-ranking[jxl]` installs.

The size is parsed here from the first bytes of the codestream (ISO/IEC 18181-1, D.2), so that an
image that is too large is refused before a pixel is decoded.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageFile

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.limits import enough_memory
from deep_ranking.images.readers.raster import Raster
from deep_ranking.images.readers.sample_range import SampleRange, to_bytes
from deep_ranking.images.readers.transparency import on_background

CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
CODESTREAM = b"\xff\x0a"
CODESTREAM_BOXES = {b"jxlc": 0, b"jxlp": 4}  # where the codestream begins in the box
BYTES_PER_PIXEL = 20  # peak memory of decoding; where libjxl keeps the whole image, it is in floats
HEADER_BYTES = 1 << 16
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height
SIDE_BITS = (9, 13, 18, 30)

Samples = npt.NDArray[Any]


class JpegXlHeader(ImageFile.ImageFile):
    """The header of a JPEG XL: its size."""

    format = "JPEG XL"
    format_description = "JPEG XL (ISO/IEC 18181)"

    def _open(self) -> None:
        assert self.fp is not None
        self._size = size_of(self.fp.read(HEADER_BYTES))
        self._mode = "RGB"


class _Bits:
    """Numbers of a codestream, the lowest bits first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:16], "little")

    def take(self, count: int) -> int:
        number = self._value & ((1 << count) - 1)
        self._value >>= count
        return number


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG XL from the first bytes of its file.

    Raises:
        InputError: there is no codestream in them.
    """
    bits = _Bits(_codestream(data)[2:])
    is_small = bits.take(1)

    def side() -> int:
        if is_small:
            return 8 * (bits.take(5) + 1)
        return bits.take(SIDE_BITS[bits.take(2)]) + 1

    height = side()
    ratio = bits.take(3)
    if ratio == 0:
        return side(), height
    numerator, denominator = RATIOS[ratio - 1]
    return height * numerator // denominator, height


def _codestream(data: bytes) -> bytes:
    if data.startswith(CODESTREAM):
        return data
    begin = 0
    while data.startswith(CONTAINER) and begin + 8 <= len(data):
        size, kind = int.from_bytes(data[begin : begin + 4]), data[begin + 4 : begin + 8]
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[begin + 8 : begin + 16]), 16
        if kind in CODESTREAM_BOXES:
            found = data[begin + head + CODESTREAM_BOXES[kind] :]
            if found.startswith(CODESTREAM):
                return found
            break
        if size < head:
            break
        begin += size
    raise InputError("broken image (no JPEG XL codestream)")


def read_jpeg_xl(data: bytes) -> Raster:
    """Decode a JPEG XL; of an animation, its first frame. The decoder turns it upright.

    Args:
        data: the file's bytes.

    Raises:
        InputError: it is broken, float, or takes too much memory.
    """
    import imagecodecs

    width, height = size_of(data)
    with enough_memory(width, height, BYTES_PER_PIXEL):
        samples = np.asarray(imagecodecs.jpegxl_decode(data, index=0, numthreads=1))
        if samples.ndim == 4:
            samples = samples[0]
        if samples.ndim == 2:
            samples = samples[..., None]
        if samples.ndim != 3 or samples.dtype.kind != "u":
            raise InputError("float pixels have no fixed range; convert the image to 8 or 16 bits")
        return _shown(samples)


def _shown(samples: Samples) -> Raster:
    channels = samples.shape[2]
    values: UInt8Array = (
        samples
        if samples.dtype == np.uint8
        else to_bytes(samples, SampleRange(0, np.iinfo(samples.dtype).max))
    )
    colors = values[..., : 3 if channels >= 3 else 1]
    pixels = np.ascontiguousarray(np.broadcast_to(colors, (*colors.shape[:2], 3)))
    if channels not in (2, 4):
        return Raster(pixels=pixels)
    alpha = values[..., -1]
    result, notes = on_background(lambda rows: (pixels[rows], alpha[rows]), *pixels.shape[:2])
    return Raster(pixels=result, notes=notes)
