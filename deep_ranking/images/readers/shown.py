"""Samples of more than 8 bits to the pixels that are shown: their range, and their background."""

from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.readers.raster import STRETCHED, Raster
from deep_ranking.images.readers.sample_range import (
    SampleRange,
    alpha_range,
    to_bytes,
    used_range,
    used_ranges,
)
from deep_ranking.images.readers.transparency import on_background

Samples = npt.NDArray[Any]


def shown_samples(samples: Samples, stated: SampleRange | None, bits: int) -> Raster:
    """Return the pixels of unsigned samples.

    Args:
        samples: (height, width, channels): gray or RGB; with two or four, the last is alpha.
        stated: the range that the file states for the colours; None if a rule is to find it.
        bits: number of bits that a sample has in the file.
    """
    has_alpha = samples.shape[2] in (2, 4)
    colors = samples[..., :-1] if has_alpha else samples
    limits, opacity = stated, None
    if has_alpha and stated is not None:
        opacity = alpha_range(samples[..., -1], stated, bits)
    elif has_alpha:
        limits, opacity = used_ranges(samples, bits)
    if limits is None:
        limits = used_range(samples, bits)
    notes = (STRETCHED,) if limits.is_guessed else ()
    is_done = samples.dtype == np.uint8 and limits == SampleRange(0, 255)
    values: UInt8Array = colors if is_done else to_bytes(colors, limits)
    pixels = np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
    if opacity is None:
        return Raster(pixels=pixels, notes=notes)
    alpha = to_bytes(samples[..., -1], opacity)
    result, more = on_background(lambda rows: (pixels[rows], alpha[rows]), *alpha.shape)
    return Raster(pixels=result, notes=notes + more)
