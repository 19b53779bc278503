"""Decode an image file to pixels, or raise one clear error, whatever the file is.

The decoder is chosen by the file's content: OpenCV for plain 8-bit JPEG and PNG, Pillow for every
other kind.
"""

import io
import os
import statistics
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from deep_ranking.files import InputError, open_regular
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.orientation import read_orientation, upright_pixels

# Formats that Pillow may try, whatever the file's name. For others it may run external programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
# Pixels of the image between two sampled points. Bilinear sampling averages 2 pixels, so up to this
# step it skips little; beyond it, the image is shrunk first.
MAX_SAMPLING_STEP = 2.5
NUM_MEASURED = 200  # images that `fitting_size` opens
MAX_FILE_BYTES = 1 << 30
PIXELS_AT_ONCE = 1 << 22
MAX_PIXELS = 178_956_970  # Pillow's own limit, twice its `MAX_IMAGE_PIXELS`
MAX_DECODING_BYTES = 1 << 30
# Peak memory of decoding, a pixel, the file included; measured on images of 40 million pixels.
BYTES_PER_PIXEL = {
    "GIF": 6, "PNG": 9, "TIFF": 9, "AVIF": 11, "BMP": 12, "DIB": 12, "PPM": 12, "WEBP": 17,
    "JPEG2000": 20,
}  # fmt: skip
BYTES_PER_PLAIN_PIXEL = 6  # 8-bit color and gray PNG and JPEG, which OpenCV decodes
BYTES_PER_CMYK_PIXEL = 13  # JPEG
LARGE_BYTES = 1 << 28
REDUCTIONS = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)
_large = threading.Lock()

# An `InputError` reports a broken file; the decoder must not report it too.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")


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
    with (
        _as_input_error(path),
        Image.open(io.BytesIO(data), formats=FORMATS) as header,
        _enough_memory(header, data),
    ):
        pixels = _decode_opencv(data, header, size)
        if pixels is None:
            pixels = _decode_pillow(header)
        orientation = read_orientation(header, data)
    height, width = (
        2 * size if side > MAX_SAMPLING_STEP * size else side for side in pixels.shape[:2]
    )
    if (height, width) != pixels.shape[:2]:
        shape = (width, height)
        pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return upright_pixels(pixels, orientation)


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
        Image.open(handle, formats=FORMATS) as header,
    ):
        yield header


@contextmanager
def _as_input_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn any error that Pillow raises into one `InputError` with the path."""
    try:
        yield
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: image has more than {MAX_PIXELS:,} pixels; make it smaller first"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise InputError(f"{path}: not enough memory to decode this image") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that can be read") from None
    except Exception as error:  # Pillow's format plug-ins raise errors of any type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: broken image ({reason})") from None


@contextmanager
def _enough_memory(header: Image.Image, data: bytes) -> Iterator[None]:
    """Refuse an image that needs too much memory; decode large images one at a time."""
    per_pixel = BYTES_PER_PLAIN_PIXEL
    if header.format == "PNG":
        per_pixel = per_pixel if _is_plain_png(header, data) else BYTES_PER_PIXEL["PNG"]
    elif header.format in ("JPEG", "MPO"):
        per_pixel = BYTES_PER_CMYK_PIXEL if header.mode == "CMYK" else per_pixel
    else:
        per_pixel = BYTES_PER_PIXEL[header.format or ""]
    num_pixels = header.width * header.height
    most = MAX_DECODING_BYTES // per_pixel
    if num_pixels > most:
        raise InputError(
            f"image has {num_pixels:,} pixels, and would take more memory to decode than an image "
            f"should; make it smaller first, to {most:,}"
        )
    with _large if num_pixels * per_pixel > LARGE_BYTES else nullcontext():
        yield


def _decode_opencv(data: bytes, header: Image.Image, size: int) -> UInt8Array | None:
    """Decode plain 8-bit JPEG and PNG; return None if Pillow reads or explains the file better."""
    if header.mode not in ("RGB", "L"):
        return None
    flags = cv2.IMREAD_COLOR
    if header.format in ("JPEG", "MPO"):  # MPO: a phone's JPEG with more pictures after it
        reduction = min(header.size) // (2 * size)
        flags = next((flag for factor, flag in REDUCTIONS if reduction >= factor), flags)
    elif header.format == "PNG":
        if not (_is_plain_png(header, data) and _is_whole_png(data)):
            return None
    else:
        return None
    pixels = None
    with suppress(cv2.error):
        flags = int(flags) | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        return None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, pixels).astype(np.uint8, copy=False)


def _is_whole_png(data: bytes) -> bool:
    """Return whether all checksums are right; if not, OpenCV would print to standard error."""
    view, begin = memoryview(data), 8
    while begin + 12 <= len(data):
        end = begin + 12 + int.from_bytes(view[begin : begin + 4])
        if zlib.crc32(view[begin + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            return False
        if bytes(view[begin + 4 : begin + 8]) == b"IEND":
            return True
        begin = end
    return False


def _is_plain_png(header: Image.Image, data: bytes) -> bool:
    """Return whether a PNG is 8-bit color or gray, without transparency and animation."""
    bit_depth = data[24]
    is_opaque = header.mode in ("RGB", "L") and "transparency" not in header.info
    return is_opaque and bit_depth == 8 and not getattr(header, "is_animated", False)


def _decode_pillow(image: Image.Image) -> UInt8Array:
    image.load()
    # Pillow scales a 16-bit PPM to 0 ... 65,535 in 32 bits; it does not scale others of mode I.
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        kind = "float" if image.mode == "F" else "32-bit"
        raise InputError(f"{kind} pixels have no fixed range; convert the image to 8 or 16 bits")
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, PIXELS_AT_ONCE // image.width)  # a conversion makes several copies
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = _rgb_of(image.crop((0, top, image.width, bottom)))
    return pixels


def _rgb_of(image: Image.Image) -> npt.NDArray[np.integer]:
    """Return (height, width, 3), or (height, width, 1) for 16-bit gray; 0 to 255."""
    if image.mode.startswith("I"):
        return np.asarray(image)[:, :, None] >> 8
    if image.has_transparency_data:
        color = image.convert("RGBA")
        white = Image.new("RGBA", color.size, "white")
        white.alpha_composite(color)
        image = white
    return np.asarray(image.convert("RGB"))


def fitting_size(paths: Sequence[str | os.PathLike[str]], largest: int) -> int:
    """Return the size at which to see images: no larger than most of them.

    Args:
        paths: image files; broken ones do not count.
        largest: the largest size to return.

    Returns:
        A multiple of 32, at least 32: the median of the shorter sides of some of the images, spread
        over all, rounded down.
    """
    sides = []
    for path in paths[:: max(1, len(paths) // NUM_MEASURED)]:
        with suppress(InputError), open_header(path) as header:
            sides.append(min(header.size))
    side = statistics.median(sides) if sides else largest
    return max(32, int(min(side, largest)) // 32 * 32)
