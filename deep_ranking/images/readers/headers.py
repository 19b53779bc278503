"""Open an image to learn what it is: format, mode and size. No pixel is decoded.

Pillow opens all formats but JPEG XL, HEIF by way of pi-heif, and TIFF of many bands. It may refuse
a file for its metadata; then it gets the file without them.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image, UnidentifiedImageError

from deep_ranking.files import InputError
from deep_ranking.images.formats import SIGNATURE_BYTES, format_of_bytes, missing_extra
from deep_ranking.images.limits import check_pixels, most_pixels, too_many_pixels
from deep_ranking.images.readers.jpeg import unusual_kind
from deep_ranking.images.readers.jpeg_xl import JpegXlHeader
from deep_ranking.images.readers.metadata import WITHOUT_METADATA

# Formats that Pillow may try, whatever the file's name. For others it may run external programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")

PAM = b"P7\n"
NAMING_BYTES = 1 << 20


@contextmanager
def opened(handle: IO[bytes]) -> Iterator[Image.Image]:
    """Open an image, the reader of its format chosen by its first bytes.

    Args:
        handle: the file, at its beginning.

    Yields:
        Pillow's image, or one with the same format, mode and size.

    Raises:
        InputError: its format needs an extra that is not installed, or it cannot be read though its
            first bytes are those of an image.
        UnidentifiedImageError: it is no image.
    """
    most_pixels()  # tells Pillow
    kind = format_of_bytes(handle.read(SIGNATURE_BYTES))
    handle.seek(0)
    if kind is not None and (extra := missing_extra(kind)) is not None:
        raise InputError(f"{kind} image; install {extra} to read it")
    try:
        image = _open(handle, kind)
    except UnidentifiedImageError:
        handle.seek(0)
        _name_kind(handle.read(NAMING_BYTES), kind)
        raise
    with image as header:
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
            return _open_tiff(handle)
        raise


def _open_tiff(handle: IO[bytes]) -> Image.Image:
    from deep_ranking.images.readers.tiff import TiffHeader  # late: few images are TIFF

    try:
        return TiffHeader(handle)
    except (InputError, MemoryError):
        raise
    except Exception:  # tifffile raises errors of any type
        raise InputError("broken image (no table of tags that can be read)") from None


def _name_kind(data: bytes, kind: str | None) -> None:
    """Say what a file is that cannot be read, if its first bytes say so.

    Raises:
        InputError: they do.
    """
    name = "PAM" if data.startswith(PAM) else unusual_kind(data) if kind == "JPEG" else None
    if name is not None:
        raise InputError(f"{name} image; this kind cannot be read, save it as PNG or plain JPEG")
    if kind is not None:
        raise InputError(f"broken image, or an unusual one (it begins as {kind})")


def _open_heif(handle: IO[bytes]) -> Image.Image:
    import pi_heif

    if "HEIF" not in Image.OPEN:
        pi_heif.register_heif_opener(thumbnails=False)
    return Image.open(handle, formats=("HEIF",))
