"""Image file -> its pixels, or one clear error, whatever the file is.

The decoder is chosen by the file's content: OpenCV for plain 8-bit JPEG and PNG, Pillow for every
other kind.
"""

import io
import os
import stat
import statistics
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from deep_ranking.errors import InputError

UInt8Array = npt.NDArray[np.uint8]

# What Pillow may take a file for, whatever its name: no format that another program would run.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
# Pixels of the image between two points that are sampled: bilinear sampling averages 2, so up to
# here it leaves out little, and beyond it the image is shrunk first.
MAX_SAMPLING_STEP = 2.5
NUM_MEASURED = 200  # images that `fitting_size` looks at
MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 178_956_970  # Pillow's own limit, twice its `MAX_IMAGE_PIXELS`
ORIENTATION_TAG = 0x0112

# A broken file is reported once, by an `InputError`, and not by the decoder as well.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(path: str | os.PathLike[str], size: int) -> UInt8Array:
    """Decode an image file to no more pixels than sampling it at `size` needs.

    Args:
        path: an image file.
        size: side in pixels at which `resample` is going to sample it.

    Returns:
        uint8 (height, width, 3), RGB; each side is the image's own or, if that is above 2.5 * size,
        2 * size: antialiased by then, and bilinear sampling does the rest.

    Raises:
        InputError: as `read_image`.
    """
    return decode_bytes(read_file(path), size, path)


def decode_bytes(data: bytes, size: int, path: str | os.PathLike[str]) -> UInt8Array:
    """Decode what an image file holds, as `decode_image` does.

    Args:
        data: the file's bytes.
        size: as for `decode_image`.
        path: the file, for errors.

    Raises:
        InputError: it is no whole image of a reasonable size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            pixels = _decode_opencv(data, header, size)
            if pixels is None:
                pixels = _decode_pillow(header)
            # Pillow decodes a whole PNG in search of EXIF data: ask only if there is any.
            has_exif = header.format != "PNG" or b"eXIf" in data
            orientation = header.getexif().get(ORIENTATION_TAG, 1) if has_exif else 1
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
    except Exception as error:  # Pillow's format plug-ins raise whatever a broken file led them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: broken image ({reason})") from None
    height, width = (
        2 * size if side > MAX_SAMPLING_STEP * size else side for side in pixels.shape[:2]
    )
    if (height, width) != pixels.shape[:2]:
        shape = (width, height)
        pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return _orient(pixels, orientation)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read an image file, and nothing that would wait for ever or fill the memory.

    Raises:
        InputError: there is no such file, it is no regular file, or is too large for an image.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
            raise InputError(f"{path}: not a regular file; expected an image")
        if status.st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: {status.st_size:,} bytes are more than an image should have")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: cannot be read ({reason})") from None


def _decode_opencv(data: bytes, header: Image.Image, size: int) -> UInt8Array | None:
    """Decode plain 8-bit JPEG and PNG; None for what Pillow reads better, or explains better."""
    if header.mode not in ("RGB", "L"):
        return None
    flags = cv2.IMREAD_COLOR
    if header.format in ("JPEG", "MPO"):  # MPO: a phone's JPEG with further pictures behind it
        reduction = min(header.size) // (2 * size)
        for factor, reduced in (
            (8, cv2.IMREAD_REDUCED_COLOR_8),
            (4, cv2.IMREAD_REDUCED_COLOR_4),
            (2, cv2.IMREAD_REDUCED_COLOR_2),
        ):
            if reduction >= factor:
                flags = reduced
                break
    elif header.format == "PNG":
        bit_depth = data[24]
        plain = "transparency" not in header.info and not _is_animated(header)
        if bit_depth != 8 or not plain or not _is_whole_png(data):
            return None
    else:
        return None
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), int(flags) | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        return None
    if pixels is None:
        return None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _is_whole_png(data: bytes) -> bool:
    """Whether all checksums are right; OpenCV's PNG library would complain on standard error."""
    view, begin = memoryview(data), 8
    while begin + 12 <= len(data):
        end = begin + 12 + int.from_bytes(view[begin : begin + 4])
        if zlib.crc32(view[begin + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            return False
        if bytes(view[begin + 4 : begin + 8]) == b"IEND":
            return True
        begin = end
    return False


def _is_animated(header: Image.Image) -> bool:
    return bool(getattr(header, "is_animated", False))


def _decode_pillow(image: Image.Image) -> UInt8Array:
    image.load()
    if image.mode.startswith("I"):
        # Pillow scales a 16-bit PPM to 0 ... 65,535 in 32 bits; others of mode I are as they are.
        if image.mode == "I" and image.format != "PPM":
            raise InputError("32-bit pixels have no fixed range; convert the image to 8 or 16 bits")
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise InputError("float pixels have no fixed range; convert the image to 8 or 16 bits")
    if image.has_transparency_data:
        color = image.convert("RGBA")
        white = Image.new("RGBA", color.size, "white")
        white.alpha_composite(color)
        return np.array(white.convert("RGB"))
    return np.array(image.convert("RGB"))


def _orient(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """Turn and mirror pixels upright; `orientation` is the EXIF value, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def fitting_size(paths: Sequence[str | os.PathLike[str]], largest: int) -> int:
    """Choose the size at which to look at images: no larger than most of them are.

    Args:
        paths: image files; broken ones do not count.
        largest: the result is no larger.

    Returns:
        A multiple of 32, 32 at least: the median of the shorter sides of some of the images,
        spread over all, rounded down.
    """
    sides = []
    for path in paths[:: max(1, len(paths) // NUM_MEASURED)]:
        try:
            with Image.open(path, formats=FORMATS) as header:
                sides.append(min(header.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    side = statistics.median(sides) if sides else largest
    return max(32, int(min(side, largest)) // 32 * 32)
