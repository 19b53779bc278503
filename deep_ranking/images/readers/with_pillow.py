"""Read with Pillow: palettes, animations, BMP, WebP, AVIF, JPEG 2000, plain TIFF and more."""

from contextlib import suppress

import numpy as np
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.orientation import ORIENTATION_TAG, read_orientation
from deep_ranking.images.readers.raster import STRETCHED, Raster
from deep_ranking.images.readers.sample_range import (
    SampleRange,
    row_blocks,
    to_bytes,
    used_range,
)
from deep_ranking.images.readers.transparency import on_background

# Formats in which an alpha of 0 everywhere means that there is none: programs leave the byte empty.
EMPTY_ALPHA_FORMATS = ("BMP", "DIB")
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")


def read_with_pillow(image: Image.Image, *, is_scaled: bool = False) -> Raster:
    """Decode an image that Pillow opened.

    Args:
        image: the image.
        is_scaled: whether the file states fewer than 16 bits, to which Pillow scales deep gray.

    Raises:
        InputError: its pixels have no fixed range.
    """
    image.load()
    if image.mode in DEEP_MODES or (image.mode == "I" and image.format == "PPM"):
        return _read_deep(image, is_scaled=is_scaled)
    if image.mode in ("F", "I"):
        kind = "float" if image.mode == "F" else "32-bit"
        raise InputError(f"{kind} pixels have no fixed range; convert the image to 8 or 16 bits")
    profile = image.info.get("icc_profile")
    notes: tuple[str, ...] = ()
    if image.mode == "CMYK":
        pixels = np.asarray(image)
    elif image.has_transparency_data and not _is_alpha_empty(image):
        pixels, notes = on_background(lambda rows: _with_alpha(image, rows), *image.size[::-1])
    else:
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        for rows in row_blocks(pixels.shape):
            pixels[rows] = np.asarray(_part(image, rows).convert("RGB"))
    is_colored = image.mode in ("RGB", "RGBA", "RGBX", "CMYK", "P")
    return Raster(
        pixels=pixels,
        profile=profile if is_colored and isinstance(profile, bytes) else None,
        orientation=read_orientation(image),
        notes=notes,
    )


def orientation_in(exif: bytes | None) -> int:
    """Return the orientation in EXIF data; 1 if they have none, or are damaged."""
    if not exif:
        return 1
    with suppress(Exception):  # Pillow raises errors of any type
        parsed = Image.Exif()
        parsed.load(exif)
        orientation = parsed.get(ORIENTATION_TAG, 1)
        return orientation if isinstance(orientation, int) else 1
    return 1


def _read_deep(image: Image.Image, *, is_scaled: bool) -> Raster:
    """Decode gray of 16 bits."""
    samples = np.asarray(image).astype(np.uint16)
    limits = SampleRange(0, 65535) if is_scaled else used_range(samples, 16)
    pixels = np.repeat(to_bytes(samples, limits)[..., None], 3, axis=2)
    notes = (STRETCHED,) if limits.is_guessed else ()
    return Raster(pixels=pixels, orientation=read_orientation(image), notes=notes)


def _is_alpha_empty(image: Image.Image) -> bool:
    if image.format not in EMPTY_ALPHA_FORMATS or image.mode != "RGBA":
        return False
    return image.getchannel("A").getextrema() == (0, 0)


def _with_alpha(image: Image.Image, rows: slice) -> tuple[UInt8Array, UInt8Array]:
    pixels = np.asarray(_part(image, rows).convert("RGBA"))
    return pixels[..., :3], pixels[..., 3]


def _part(image: Image.Image, rows: slice) -> Image.Image:
    return image.crop((0, rows.start, image.width, rows.stop))
