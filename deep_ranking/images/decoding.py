"""Decode an image file to pixels, or raise one clear error, whatever the file is.

The reader is chosen by the file's content: TurboJPEG for JPEG, OpenCV for plain PNG, tifffile for
TIFF of more than 8 bits and other kinds that Pillow reads wrongly, Pillow for all others.
"""

import io
import os
import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from deep_ranking.files import InputError, open_regular
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.limits import enough_memory, too_many_pixels
from deep_ranking.images.orientation import upright_pixels
from deep_ranking.images.readers.colour_profiles import to_srgb
from deep_ranking.images.readers.headers import opened
from deep_ranking.images.readers.jpeg import read_jpeg
from deep_ranking.images.readers.jpeg_2000 import (
    jpeg_2000_bits,
    read_deep_jpeg_2000,
    reduce_jpeg_2000,
)
from deep_ranking.images.readers.jpeg_xl import read_jpeg_xl
from deep_ranking.images.readers.metadata import WITHOUT_METADATA
from deep_ranking.images.readers.png import read_png
from deep_ranking.images.readers.ppm import largest_of, read_deep_ppm
from deep_ranking.images.readers.raster import Raster
from deep_ranking.images.readers.with_pillow import read_with_pillow

# Pixels of the image between two sampled points. Bilinear sampling averages 2 pixels, so up to this
# step it skips little; beyond it, the image is shrunk first.
MAX_SAMPLING_STEP = 2.5
NUM_MEASURED = 200  # images that `fitting_size` opens
MAX_FILE_BYTES = 1 << 30
# Peak memory of decoding with Pillow, a pixel, the file included; measured on images of 40 million
# pixels. The other readers have their own.
BYTES_PER_PIXEL = {
    "JPEG": 13, "MPO": 13, "GIF": 6, "TIFF": 9, "AVIF": 11, "BMP": 12, "DIB": 12, "PPM": 12,
    "WEBP": 17, "JPEG2000": 20, "HEIF": 17,
}  # fmt: skip

# An `InputError` reports a broken file; the decoder must not report it too.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")


class Decoded(NamedTuple):
    """Pixels, uint8 (height, width, 3), RGB; and notes of what was decided about the image."""

    pixels: UInt8Array
    notes: tuple[str, ...]


def decode_image(path: str | os.PathLike[str], size: int) -> UInt8Array:
    """Decode an image file to no more pixels than sampling it at `size` needs.

    Args:
        path: an image file.
        size: side in pixels at which `resample` will sample it.

    Returns:
        uint8 (height, width, 3), RGB. Each side is the image's own or, if that is above 2.5 * size,
        2 * size, antialiased; bilinear sampling does the rest.

    Raises:
        InputError: as `read_image`.
    """
    return decode_bytes(read_file(path), size, path)


def decode_bytes(data: bytes, size: int, path: str | os.PathLike[str]) -> UInt8Array:
    """Decode the bytes of an image file, as `decode_image` does.

    Args:
        data: the file's bytes.
        size: as for `decode_image`.
        path: the file, for errors.

    Raises:
        InputError: it is not a complete image of a reasonable size.
    """
    return decode_with_notes(data, size, path).pixels


def decode_with_notes(data: bytes, size: int, path: str | os.PathLike[str]) -> Decoded:
    """Decode the bytes of an image file, and say what was decided where the file does not.

    Args:
        data: as for `decode_bytes`.
        size: as for `decode_bytes`.
        path: as for `decode_bytes`.

    Returns:
        The pixels, and notes as in `deep_ranking.images.readers.raster`.

    Raises:
        InputError: as `decode_bytes`.
    """
    with _as_input_error(path):
        with opened(io.BytesIO(data)) as header:
            raster = _read(data, header, size)
        pixels = raster.pixels
        height, width = (
            2 * size if side > MAX_SAMPLING_STEP * size else side for side in pixels.shape[:2]
        )
        if (height, width) != pixels.shape[:2]:
            shape = (width, height)
            pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA).astype(np.uint8)
        pixels = to_srgb(pixels, raster.profile)
        return Decoded(upright_pixels(pixels, raster.orientation), raster.notes)


def _read(data: bytes, header: Image.Image, size: int) -> Raster:
    """Decode an image with the reader of its format."""
    kind = header.format or ""
    raster = None
    if kind in ("JPEG", "MPO"):  # MPO: a phone's JPEG with more pictures after it
        raster = read_jpeg(data, header, size)
    elif kind == "PNG":
        raster = read_png(data, header)
    elif kind == "JPEG XL":
        raster = read_jpeg_xl(data)
    elif kind == "JPEG2000":
        raster = read_deep_jpeg_2000(data, header)
    elif kind == "PPM":
        raster = read_deep_ppm(data, header)
    elif kind == "TIFF":
        from deep_ranking.images.readers.tiff import is_plain, read_tiff  # late: few images are

        raster = None if is_plain(header) else read_tiff(data)
    return _read_with_pillow(data, header, size) if raster is None else raster


def _read_with_pillow(data: bytes, header: Image.Image, size: int) -> Raster:
    """Decode an image with Pillow; once more without its metadata, if Pillow stumbles over it."""
    kind = header.format or ""
    per_pixel, reduction, is_scaled = BYTES_PER_PIXEL[kind], 1, False
    if kind == "JPEG2000":
        reduction = reduce_jpeg_2000(data, header, size, per_pixel)
        is_scaled = jpeg_2000_bits(data) != 16
    elif kind == "PPM":
        is_scaled = largest_of(data) != 65535
    with enough_memory(header.width, header.height, per_pixel, reduction):
        try:
            return read_with_pillow(header, is_scaled=is_scaled)
        except InputError:
            raise
        except Exception:  # Pillow's format plug-ins raise errors of any type
            if kind not in WITHOUT_METADATA:
                raise
            plain = io.BytesIO(WITHOUT_METADATA[kind](data))
            with Image.open(plain, formats=(kind,)) as image:
                return read_with_pillow(image)


def open_image(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open an image file to read its bytes, without checking that it is an image.

    Raises:
        InputError: it cannot be opened, is not a regular file, or is too large for an image.
    """
    try:
        return open_regular(path, max_bytes=MAX_FILE_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, not a regular file; expected an image") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason})") from None


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file; one that would block or fill the memory is refused.

    Raises:
        InputError: as `open_image`; or the file changed while it was read.
    """
    with open_image(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        try:
            data = handle.read(size + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
        except MemoryError:
            raise InputError(f"{path}: not enough memory to read this image") from None
    if data is None or len(data) != size:
        raise InputError(f"{path}: changed while it was read; try again when it is complete")
    return data


@contextmanager
def open_header(path: str | os.PathLike[str], data: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image to read its header: format, mode, size, EXIF. No pixel is decoded.

    Args:
        path: an image file.
        data: its bytes, if they are read already.

    Yields:
        Pillow's image.

    Raises:
        InputError: the file cannot be opened, or is not an image.
    """
    with (
        open_image(path) if data is None else io.BytesIO(data) as handle,
        _as_input_error(path),
        opened(handle) as header,
    ):
        yield header


@contextmanager
def _as_input_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn any error of a reader into one `InputError` with the path."""
    try:
        yield
    except Image.DecompressionBombError:
        raise InputError(f"{path}: {too_many_pixels()}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise InputError(f"{path}: not enough memory to decode this image") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that can be read") from None
    except Exception as error:  # format plug-ins raise errors of any type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: broken image ({reason})") from None


def fitting_size(paths: Sequence[str | os.PathLike[str]], largest: int) -> int:
    """Return the size at which to see images: no larger than most of them.

    Args:
        paths: image files; broken ones do not count.
        largest: the largest size to return.

    Returns:
        The median of the shorter sides of some of the images, spread over all: from 32 on rounded
        down to a multiple of 32, and at least 8.
    """
    sides = []
    for path in paths[:: max(1, len(paths) // NUM_MEASURED)]:
        with suppress(InputError), open_header(path) as header:
            sides.append(min(header.size))
    side = statistics.median(sides) if sides else largest
    side = int(min(side, largest))
    return side // 32 * 32 if side >= 32 else max(8, side)
