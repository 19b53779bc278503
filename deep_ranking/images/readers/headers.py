"""Open an image to learn what it is: format, mode and size. No pixel is decoded.

Pillow opens all formats but JPEG XL, HEIF by way of pi-heif, and TIFF of many bands. It may refuse
a file for its metadata; then it gets the file without them.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.images.formats import SIGNATURE_BYTES, format_of_bytes, missing_extra
from deep_ranking.images.limits import check_pixels, most_pixels, too_many_pixels
from deep_ranking.images.readers.jpeg_xl import JpegXlHeader
from deep_ranking.images.readers.metadata import WITHOUT_METADATA
from deep_ranking.images.readers.tiff import TiffHeader

# Formats that Pillow may try, whatever the file's name. For others it may run external programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")


@contextmanager
def opened(handle: IO[bytes]) -> Iterator[Image.Image]:
    """Open an image, the reader of its format chosen by its first bytes.

    Args:
        handle: the file, at its beginning.

    Yields:
        Pillow's image, or one with the same format, mode and size.

    Raises:
        InputError: its format needs an extra that is not installed.
        UnidentifiedImageError: it is no image.
    """
    most_pixels()  # tells Pillow
    kind = format_of_bytes(handle.read(SIGNATURE_BYTES))
    handle.seek(0)
    if kind is not None and (extra := missing_extra(kind)) is not None:
        raise InputError(f"{kind} image; install {extra} to read it")
    with _open(handle, kind) as header:
        check_pixels(*header.size)
        yield header


def _open(handle: IO[bytes], kind: str | None) -> Image.Image:
    if kind == "JPEG XL":
        return JpegXlHeader(handle)
    if kind == "HEIF":
        return _open_heif(handle)
    try:
        return Image.open(handle, formats=FORMATS)
    except Image.DecompressionBombError:
        raise InputError(too_many_pixels()) from None
    except Exception:  # Pillow's format plug-ins raise errors of any type
        handle.seek(0)
        if kind in WITHOUT_METADATA:
            plain = WITHOUT_METADATA[kind](handle.read())
            return Image.open(io.BytesIO(plain), formats=FORMATS)
        if kind == "TIFF":
            return TiffHeader(handle)
        raise


def _open_heif(handle: IO[bytes]) -> Image.Image:
    import pi_heif

    if "HEIF" not in Image.OPEN:
        pi_heif.register_heif_opener(thumbnails=False)
    return Image.open(handle, formats=("HEIF",))
