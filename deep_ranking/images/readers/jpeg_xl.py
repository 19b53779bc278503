"""Read JPEG XL with imagecodecs, which the extra `deep-ranking[jxl]` installs.

The size is parsed here from the first bytes of the codestream (ISO/IEC 18181-1, D.2), so that an
image that is too large is refused before a pixel is decoded.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageFile

from deep_ranking.files import InputError
from deep_ranking.images.limits import enough_memory
from deep_ranking.images.readers.raster import Raster
from deep_ranking.images.readers.sample_range import SampleRange
from deep_ranking.images.readers.shown import shown_samples

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
        self._value = int.from_bytes(data[:64], "little")

    def take(self, count: int) -> int:
        number = self._value & ((1 << count) - 1)
        self._value >>= count
        return number


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG XL from the first bytes of its file.

    Raises:
        InputError: there is no codestream in them.
    """
    return _size(_Bits(_codestream(data)[2:]))


def jpeg_xl_bits(data: bytes) -> int | None:
    """Return the bits of a sample, as the file states them; None where they are not found."""
    bits = _Bits(_codestream(data)[2:])
    _size(bits)
    if bits.take(1):  # all is as usual
        return 8
    if bits.take(1):  # further fields
        bits.take(3)  # orientation
        if bits.take(1):
            _size(bits)  # of the picture on a page
        if bits.take(1):  # a preview
            return None
        if bits.take(1):
            _skip_animation(bits)
    if bits.take(1):  # floats
        return None
    usual = (8, 10, 12)
    selector = bits.take(2)
    return usual[selector] if selector < len(usual) else bits.take(6) + 1


def _skip_animation(bits: _Bits) -> None:
    for widths in ((0, 0, 10, 30), (0, 0, 8, 10), (0, 3, 16, 32)):  # ticks, and loops
        bits.take(widths[bits.take(2)])
    bits.take(1)


def _size(bits: _Bits) -> tuple[int, int]:
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
        if samples.shape[2] > 4:
            samples = samples[..., :3]
        whole = 8 * samples.itemsize
        bits = (jpeg_xl_bits(data) or whole) if whole > 8 else 8
        stated = None if bits == 16 else SampleRange(0, (1 << bits) - 1)
        return shown_samples(samples, stated, bits)
