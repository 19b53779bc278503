"""Read PNG: OpenCV decodes gray and colour of 8 and 16 bits, Pillow palettes and the rest.

Both get the file without its ancillary chunks, so neither stumbles over damaged text or profiles.
Pillow passes over rows that are missing and a wrong checksum of the pixels, so these are checked.
A colour that the file calls transparent (tRNS) is compared here, before samples lose any bit.
"""

import io
import zlib
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.limits import enough_memory
from deep_ranking.images.readers.colour_profiles import MAX_PROFILE_BYTES
from deep_ranking.images.readers.metadata import Chunk, plain_png, png_chunks
from deep_ranking.images.readers.png_stream import check_stream
from deep_ranking.images.readers.raster import STRETCHED, Raster
from deep_ranking.images.readers.sample_range import (
    SampleRange,
    to_bytes,
    used_range,
    used_ranges,
)
from deep_ranking.images.readers.transparency import on_background
from deep_ranking.images.readers.with_pillow import orientation_in, read_with_pillow

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
COLOR_TYPES = {GRAY: "L", RGB: "RGB", PALETTE: "P", GRAY_ALPHA: "LA", RGBA: "RGBA"}
# Peak memory of decoding, the file included.
BYTES_PER_PLAIN_PIXEL = 6  # 8-bit gray and colour without transparency
BYTES_PER_PIXEL = 9
BYTES_PER_DEEP_PIXEL = 20

Samples = npt.NDArray[Any]


def read_png(data: bytes, header: Image.Image) -> Raster:
    """Decode a PNG; of an animation, its first frame.

    Args:
        data: the file's bytes.
        header: the file, as Pillow opened it.

    Raises:
        InputError: it is broken, or takes too much memory.
    """
    chunks = list(png_chunks(data))
    contents = {
        chunk.kind: data[chunk.begin : chunk.end]
        for chunk in reversed(chunks)
        if chunk.kind != b"IDAT"
    }
    depth, color_type = contents[b"IHDR"][8:10]
    if color_type == PALETTE and b"PLTE" not in contents:
        raise InputError("broken image (no palette)")
    is_deep, with_color = depth == 16, contents.get(b"tRNS") if color_type in (GRAY, RGB) else None
    is_plain = depth == 8 and color_type in (GRAY, RGB)
    per_pixel = BYTES_PER_DEEP_PIXEL if is_deep else BYTES_PER_PIXEL
    if is_plain and with_color is None:
        per_pixel = BYTES_PER_PLAIN_PIXEL
    with enough_memory(header.width, header.height, per_pixel):
        if is_plain or is_deep:
            raster = _read_samples(data, chunks, contents, with_color)
        else:
            check_stream(data, chunks, contents[b"IHDR"])
            if with_color is not None:
                raster = _read_small_gray(data, chunks, depth, with_color)
            else:
                with Image.open(io.BytesIO(plain_png(data, chunks)), formats=("PNG",)) as image:
                    raster = read_with_pillow(image)
    profile = None if color_type in (GRAY, GRAY_ALPHA) else _profile(contents.get(b"iCCP"))
    return Raster(
        pixels=raster.pixels,
        profile=profile,
        orientation=orientation_in(contents.get(b"eXIf")),
        notes=raster.notes,
    )


def _read_samples(
    data: bytes, chunks: list[Chunk], contents: dict[bytes, bytes], with_color: bytes | None
) -> Raster:
    """Decode gray or colour of 8 or 16 bits."""
    plain = np.frombuffer(plain_png(data, chunks, with_transparency=False), np.uint8)
    depth, color_type = contents[b"IHDR"][8:10]
    flags = cv2.IMREAD_UNCHANGED if depth == 16 else cv2.IMREAD_COLOR_RGB
    samples: Samples | None = None
    with suppress(cv2.error):
        flags = int(flags) | (0 if depth == 16 else cv2.IMREAD_IGNORE_ORIENTATION)
        samples = cv2.imdecode(plain, flags)
    if samples is None:
        raise InputError("broken image (its pixels cannot be unpacked)")
    if depth == 8 and with_color is None:
        return Raster(pixels=samples.astype(np.uint8, copy=False))
    if samples.ndim == 2:
        samples = samples[..., None]
    alpha, limits = None, None
    if depth == 16:
        limits, opacity = _ranges_of(samples, contents.get(b"sBIT"), color_type)
        if opacity is not None:
            alpha, samples = to_bytes(samples[..., 3], opacity), samples[..., :3]
    if depth == 16 and color_type in (RGB, RGBA, GRAY_ALPHA):
        samples = samples[..., ::-1]  # OpenCV has blue first
    if with_color is not None:
        alpha = _alpha_of(samples, with_color, depth)
    notes: tuple[str, ...] = ()
    if limits is not None:
        samples = to_bytes(samples, limits)
        notes = (STRETCHED,) if limits.is_guessed else ()
    pixels = np.broadcast_to(samples, (*samples.shape[:2], 3))
    return _opaque(np.asarray(pixels, np.uint8), alpha, notes)


def _read_small_gray(data: bytes, chunks: list[Chunk], depth: int, with_color: bytes) -> Raster:
    """Decode gray of 1, 2 or 4 bits with a transparent value."""
    plain = io.BytesIO(plain_png(data, chunks, with_transparency=False))
    with Image.open(plain, formats=("PNG",)) as image:
        gray = np.asarray(image.convert("L"))[..., None]
    scale = 255 // ((1 << depth) - 1)  # Pillow spreads 1, 2 and 4 bits over 0 to 255
    return _opaque(gray.repeat(3, axis=2), _alpha_of(gray // scale, with_color, depth), ())


def _opaque(pixels: UInt8Array, alpha: UInt8Array | None, notes: tuple[str, ...]) -> Raster:
    if alpha is None:
        return Raster(pixels=np.ascontiguousarray(pixels), notes=notes)
    result, more = on_background(lambda rows: (pixels[rows], alpha[rows]), *pixels.shape[:2])
    return Raster(pixels=result, notes=notes + more)


def _alpha_of(samples: Samples, with_color: bytes, depth: int) -> UInt8Array | None:
    """Return 0 where a pixel has the colour of a tRNS chunk, 255 elsewhere; None if it is damaged.

    Samples are (height, width, channels), of which there may be more than the file has.
    """
    if len(with_color) not in (2, 6):
        return None
    color = np.frombuffer(with_color, ">u2") & ((1 << depth) - 1)
    return np.where((samples == color).all(axis=2), 0, 255).astype(np.uint8)


def _ranges_of(
    samples: Samples, significant: bytes | None, color_type: int
) -> tuple[SampleRange, SampleRange | None]:
    """Return the ranges of 16-bit samples: of the colours, and of alpha, None without one.

    `significant` is the content of the sBIT chunk: a byte for each channel that the file has.
    """
    has_alpha = color_type in (GRAY_ALPHA, RGBA)
    num_colors = 3 if color_type in (RGB, RGBA) else 1
    colors = samples[..., :3] if has_alpha else samples
    stated = _stated_range(colors, (significant or b"")[:num_colors])
    if not has_alpha:
        return stated or used_range(colors, 16), None
    if stated is None:
        return used_ranges(samples, 16)
    alpha = samples[..., 3]
    of_alpha = _stated_range(alpha, (significant or b"")[num_colors : num_colors + 1])
    return stated, of_alpha or SampleRange(0, 65535)


def _stated_range(samples: Samples, significant: bytes) -> SampleRange | None:
    """Return the range of 16-bit samples that sBIT states; None if it states none below 16 bits.

    By the standard, a file whose sBIT chunk says 12 bits has spread them over 16. Some have not:
    then no sample is above 4095, and not all are multiples of 16.
    """
    if not 0 < (bits := max(significant, default=0)) < 16:
        return None
    is_spread = samples.max() >= 1 << bits or not (samples & ((1 << 16 - bits) - 1)).any()
    return SampleRange(0, 65535 if is_spread else (1 << bits) - 1)


def _profile(content: bytes | None) -> bytes | None:
    """Return the profile in an iCCP chunk; None if there is none, or it is damaged or huge."""
    if content is None or b"\0" not in content[:80]:
        return None
    begin = content.index(b"\0") + 2
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(content[begin:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return None if unpacker.unconsumed_tail else profile
