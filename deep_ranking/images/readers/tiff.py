"""Read the kinds of TIFF that Pillow reads wrongly, or not at all.

These are samples of more than 8 bits or signed, planar samples, L*a*b*, and more bands than a
picture has. What the samples mean is decided here:

- Black and white, by the first of these that the file states: SMinSampleValue and SMaxSampleValue;
  the bits of a sample, where they are not 8 or 16; black and white level; the significant bits of
  OME; the display range of ImageJ; MinSampleValue and MaxSampleValue, if the samples are within
  and they are a part of 16 bits. Otherwise by the rule of `sample_range`, and noted.
- Bands: of gray or unnamed bands, three or more are read as RGB from the first three, two as gray
  from the first, and noted. Samples beyond the colours are left out, unless the file calls the
  first of them alpha, or it is the fourth of RGB and not explained.
- Float, complex and 32-bit samples have no fixed range and are refused, as are sensor data.
"""

import io
import logging
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from tifffile import TiffFile, TiffPage

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.limits import enough_memory
from deep_ranking.images.orientation import ORIENTATION_TAG, SWAPS_SIDES
from deep_ranking.images.readers.lab import CIELAB, ICCLAB, ITULAB, lab_to_rgb
from deep_ranking.images.readers.raster import FIRST_BAND, FIRST_BANDS, STRETCHED, Raster
from deep_ranking.images.readers.sample_range import (
    SampleRange,
    alpha_range,
    to_bytes,
    used_range,
    used_ranges,
    whole_range,
)
from deep_ranking.images.readers.tiff_segments import bits_per_sample, read_samples
from deep_ranking.images.readers.transparency import on_background

BITS, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT, SAMPLES = 258, 262, 284, 339, 277
EXTRA_SAMPLES, COLOR_MAP, PROFILE, DESCRIPTION = 338, 320, 34675, 270
WHITE_POINT, PHOTOSHOP = 318, 34377
MIN, MAX = 280, 281
SMIN, SMAX, BLACK_LEVEL, WHITE_LEVEL = 340, 341, 50714, 50717
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, SENSOR = 0, 1, 2, 3, 5, 6, 32803
LINEAR_RAW = 34892
LAB = (CIELAB, ICCLAB, ITULAB)
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
PREMULTIPLIED, ALPHA = 1, 2  # values of ExtraSamples
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# tifffile reports what it stumbles over; an `InputError` says what matters.
logging.getLogger("tifffile").propagate = False
logging.getLogger("tifffile").addHandler(logging.NullHandler())

Samples = npt.NDArray[Any]


class TiffHeader(ImageFile.ImageFile):
    """The header of a TIFF that Pillow cannot open: its size, and about what its mode is."""

    format = "TIFF"
    format_description = "TIFF of many bands"

    def _open(self) -> None:
        assert self.fp is not None
        with TiffFile(io.BytesIO(self.fp.read())) as file:
            page = _first_page(file)
            self._size = int(page.imagewidth), int(page.imagelength)
            if _orientation(page) in SWAPS_SIDES:  # as Pillow does
                self._size = self._size[::-1]
            self._mode = "RGB" if page.samplesperpixel > 2 else "L"


def is_plain(header: Image.Image) -> bool:
    """Return whether Pillow reads a TIFF right.

    It has at most 8 bits, is unsigned and chunky, has no L*a*b*, and no palette of 8 bits.
    """
    if isinstance(header, TiffHeader):
        return False
    tags = header.tag_v2  # type: ignore[attr-defined]
    bits, formats = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (UNSIGNED,))
    return (
        max(bits) <= 8
        and all(each in (UNSIGNED, UNDEFINED) for each in formats)
        and (tags.get(PLANAR, 1) != 2 or tags.get(SAMPLES, 1) == 1)
        and tags.get(PHOTOMETRIC) not in LAB
        and not (tags.get(PHOTOMETRIC) == PALETTE and max(tags.get(COLOR_MAP, (256,))) <= 255)
    )


def read_tiff(data: bytes) -> Raster:
    """Decode the first page of a TIFF.

    Args:
        data: the file's bytes.

    Raises:
        InputError: it is broken, of a kind without a fixed range, or takes too much memory.
    """
    with TiffFile(io.BytesIO(data)) as file:
        page = _first_page(file)
        photometric = page.tags.valueof(PHOTOMETRIC, None)
        photometric = None if photometric is None else int(photometric)
        bits = _checked_bits(page, photometric)
        num_kept, has_alpha, notes = _meaning(page, photometric)
        item, stored = (1 if bits <= 8 else 2), int(page.samplesperpixel)
        in_segment = 1 if page.planarconfig == 2 else stored
        per_pixel = item * (stored + num_kept + 2 * in_segment) + 6
        width, height = int(page.imagewidth), int(page.imagelength)
        with enough_memory(width, height, per_pixel):
            samples = read_samples(page, data, num_kept)
            pixels, more = _shown(page, samples, photometric, bits, has_alpha)
        profile = page.tags.valueof(PROFILE, None)
        is_colored = photometric in (RGB, CMYK) and FIRST_BANDS not in notes
        return Raster(
            pixels=pixels,
            profile=profile if is_colored and isinstance(profile, bytes) else None,
            orientation=_orientation(page),
            notes=notes + more,
        )


def _first_page(file: TiffFile) -> TiffPage:
    page = file.pages[0]
    if not isinstance(page, TiffPage) or page.imagewidth < 1 or page.imagelength < 1:
        raise InputError("broken image (no page with pixels)")
    return page


def _checked_bits(page: TiffPage, photometric: int | None) -> int:
    """Return the bits of a sample, if samples of the page have a fixed range."""
    bits, kinds = bits_per_sample(page), _formats(page)
    if photometric == SENSOR:
        raise InputError("raw sensor data; develop the image and save it as TIFF or JPEG")
    if not kinds <= {UNSIGNED, SIGNED, UNDEFINED} or bits > 16 or len(kinds) > 1:
        kind = f"{bits}-bit"
        if SIGNED in kinds:
            kind = f"signed {kind}"
        elif not kinds <= {UNSIGNED, UNDEFINED}:
            kind = "float" if kinds == {FLOAT} else "complex"
        raise InputError(f"{kind} pixels have no fixed range; convert the image to 8 or 16 bits")
    return bits


def _formats(page: TiffPage) -> set[int]:
    """Return the formats that the samples have, each once."""
    value = page.tags.valueof(SAMPLE_FORMAT, UNSIGNED)
    return set(value) if isinstance(value, tuple) else {value}


def _meaning(page: TiffPage, photometric: int | None) -> tuple[int, bool, tuple[str, ...]]:
    """Return how many samples to read, whether the last is alpha, and notes."""
    stored = int(page.samplesperpixel)
    extra = _extra_samples(page)
    has_alpha = bool(extra) and extra[0] in (PREMULTIPLIED, ALPHA)
    if photometric == PALETTE:
        colors = 1
    elif photometric in (RGB, *LAB):
        colors = 3
    elif photometric == CMYK:
        colors = 4
    elif photometric == YCBCR:
        raise InputError("TIFF with YCbCr pixels that are planar or of 16 bits; save it as RGB")
    elif has_alpha and stored - len(extra) == 1:
        colors = 1
    else:  # gray, or unnamed bands
        colors = 3 if stored - has_alpha >= 3 else 1
    if stored < colors:
        raise InputError(f"broken image ({stored} samples for {colors} colors)")
    has_alpha = has_alpha and stored > colors and photometric not in (CMYK, PALETTE)
    notes: tuple[str, ...] = ()
    if photometric not in (RGB, CMYK, PALETTE, LINEAR_RAW, *LAB) and not has_alpha:
        if colors == 3:
            notes = (FIRST_BANDS,)
        elif stored > 1:
            notes = (FIRST_BAND,)
    return colors + has_alpha, has_alpha, notes


def _shown(
    page: TiffPage, samples: Samples, photometric: int | None, bits: int, has_alpha: bool
) -> tuple[UInt8Array, tuple[str, ...]]:
    """Return the pixels, RGB or CMYK, and notes."""
    alpha = samples[..., -1] if has_alpha else None
    colors = samples[..., :-1] if has_alpha else samples
    notes: tuple[str, ...] = ()
    opacity_range = whole_range(samples, bits)
    if photometric in LAB:
        pixels = lab_to_rgb(_unsigned(colors), int(photometric or 0), _white_of(page))
    elif photometric == PALETTE:
        pixels = _from_palette(colors[..., 0], page)
    elif photometric == CMYK:
        return to_bytes(colors, SampleRange(0, (1 << bits) - 1)), ()
    else:
        limits, opacity_range = _ranges_of(page, samples, bits, has_alpha)
        gray = to_bytes(colors, limits, inverted=photometric == WHITE_IS_ZERO)
        pixels = gray if gray.shape[2] == 3 else gray.repeat(3, axis=2)
        notes = (STRETCHED,) if limits.is_guessed else ()
    if alpha is None:
        return pixels, notes
    opacity = to_bytes(alpha, opacity_range)
    if _is_premultiplied(page):
        weight = np.maximum(opacity, 1)[..., None]
        pixels = (pixels * np.float32(255) / weight).clip(0, 255).astype(np.uint8)
    result, more = on_background(lambda rows: (pixels[rows], opacity[rows]), *pixels.shape[:2])
    return result, notes + more


def _is_premultiplied(page: TiffPage) -> bool:
    return _extra_samples(page)[:1] == (PREMULTIPLIED,)


def _extra_samples(page: TiffPage) -> tuple[int, ...]:
    """Return the meanings of the samples beyond the colours.

    A fourth sample of RGB that the file does not explain is alpha, as Pillow has it.
    """
    is_rgba = page.tags.valueof(PHOTOMETRIC, None) == RGB and int(page.samplesperpixel) == 4
    extra = page.tags.valueof(EXTRA_SAMPLES, (ALPHA,) if is_rgba else ())
    return extra if isinstance(extra, tuple) else (extra,)


def _unsigned(samples: Samples) -> Samples:
    return np.ascontiguousarray(samples).view(f"u{samples.itemsize}")


def _white_of(page: TiffPage) -> str:
    """Return the white of L*a*b*, as the module `lab` describes: "D50" or "D65"."""
    if page.tags.valueof(PHOTOMETRIC) != CIELAB:
        return "D50"
    tags = page.tags
    point = _numbers(page, WHITE_POINT)
    if len(point) == 4 and point[1]:  # fractions
        point = [point[0] / point[1], 0]
    if len(point) == 2:  # x and y
        return "D50" if point[0] > (0.3457 + 0.3127) / 2 else "D65"
    is_adapted = any(tags.valueof(tag, None) is not None for tag in (PHOTOSHOP, PROFILE))
    return "D50" if is_adapted else "D65"


def _from_palette(indices: Samples, page: TiffPage) -> UInt8Array:
    table = np.asarray(page.tags.valueof(COLOR_MAP, ()), np.uint16)
    if not len(table) or len(table) % 3:
        raise InputError("broken image (no palette)")
    colors = table.reshape(3, -1).T  # (colors, 3)
    if indices.size and int(indices.max()) >= len(colors):
        raise InputError("broken image (a color that the palette lacks)")
    shift = 8 if colors.max() > 255 else 0  # some programs write 8 bits
    return np.asarray((colors >> shift).astype(np.uint8)[indices])


def _ranges_of(
    page: TiffPage, samples: Samples, bits: int, has_alpha: bool
) -> tuple[SampleRange, SampleRange]:
    """Return the range of the colours, and that of the last sample as alpha."""
    num_colors = samples.shape[2] - has_alpha
    stated = _stated_range(page, bits, num_colors) or _range_within(
        page, samples[..., :num_colors], bits
    )
    if not has_alpha:
        return stated or used_range(samples, bits), whole_range(samples, bits)
    if stated is None:
        colors, opacity = used_ranges(samples, bits)
        if _is_premultiplied(page) and np.ptp(samples[..., -1]):  # alpha made the colours darker
            colors = used_range(samples, bits)
        return colors, opacity
    of_alpha = _numbers(page, SMAX)[num_colors : num_colors + 1]
    if of_alpha and of_alpha[0] > 0:
        return stated, SampleRange(0, of_alpha[0])
    return stated, alpha_range(samples[..., -1], stated, bits)


def _stated_range(page: TiffPage, bits: int, num_colors: int) -> SampleRange | None:
    """Return the range of the colours that the file states; None if it states none."""
    is_signed = SIGNED in _formats(page)
    if bits <= 8 and not is_signed:
        return SampleRange(0, (1 << bits) - 1)
    description = page.tags.valueof(DESCRIPTION, "")
    description = description if isinstance(description, str) else ""
    significant = re.search(r'SignificantBits="(\d{1,2})"', description)
    display = re.search(r"(?s)^ImageJ=.*\nmin=([-\d.e+]+)\nmax=([-\d.e+]+)", description)
    candidates = [
        (_lowest(page, SMIN, num_colors), _highest(page, SMAX, num_colors)),
        (0, (1 << bits) - 1) if bits != 16 and not is_signed else None,
        (_lowest(page, BLACK_LEVEL, num_colors) or 0, _highest(page, WHITE_LEVEL, num_colors)),
        (0, (1 << int(significant[1])) - 1) if significant and not is_signed else None,
        (_number(display[1]), _number(display[2])) if display else None,
    ]
    for candidate in filter(None, candidates):
        low, high = candidate
        if high is not None and high > (low or 0):
            return SampleRange(low or 0, high)
    return None


def _range_within(page: TiffPage, colors: Samples, bits: int) -> SampleRange | None:
    """Return MinSampleValue and MaxSampleValue of 16 bits, if they are a part and hold all samples.

    Many programs write them without regard to the samples, so they count last.
    """
    if bits != 16 or SIGNED in _formats(page) or not colors.size:
        return None
    count = colors.shape[2]
    low, high = _lowest(page, MIN, count) or 0, _highest(page, MAX, count)
    if high is None or not low < high < 65535:
        return None
    is_held = low <= int(colors.min()) and int(colors.max()) <= high
    return SampleRange(low, high) if is_held else None


def _lowest(page: TiffPage, tag: int, count: int) -> float | None:
    return min(_numbers(page, tag)[:count], default=None)


def _highest(page: TiffPage, tag: int, count: int) -> float | None:
    return max(_numbers(page, tag)[:count], default=None)


def _numbers(page: TiffPage, tag: int) -> list[float]:
    value = page.tags.valueof(tag, ())
    numbers = [_number(each) for each in (value if isinstance(value, tuple) else (value,))]
    return [each for each in numbers if each is not None]


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 1 << 32 else None


def _orientation(page: TiffPage) -> int:
    orientation = page.tags.valueof(ORIENTATION_TAG, 1)
    return int(orientation) if isinstance(orientation, int) else 1
