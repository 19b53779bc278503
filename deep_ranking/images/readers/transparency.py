"""Transparent images on an opaque background: white, or black for what is nearly white itself.

A white drawing on a transparent background would vanish on white. So if no pixel of the image on
white is darker than 224 in any channel, though some of it is not transparent, it is put on black
instead, and noted.
"""

from collections.abc import Callable

import numpy as np

from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.readers.raster import ON_BLACK
from deep_ranking.images.readers.sample_range import row_blocks

VANISHING = 224  # a value as light as this does not stand out from white

Part = Callable[[slice], tuple[UInt8Array, UInt8Array]]


def on_background(part: Part, height: int, width: int) -> tuple[UInt8Array, tuple[str, ...]]:
    """Put an image on its background.

    Args:
        part: returns the colours, uint8 (rows, width, 3), and the alpha, uint8 (rows, width), of
            a slice of rows; so the whole image need not be in memory at once.
        height: rows of the image.
        width: columns of the image.

    Returns:
        uint8 (height, width, 3), and the notes about it.
    """
    result = np.empty((height, width, 3), np.uint8)
    darkest, most_opaque, least_opaque = 255, 0, 255
    for rows in row_blocks(result.shape):
        colors, alpha = part(rows)
        result[rows] = _blend(colors, alpha, 255)
        darkest = min(darkest, int(result[rows].min()))
        most_opaque = max(most_opaque, int(alpha.max()))
        least_opaque = min(least_opaque, int(alpha.min()))
    if darkest < VANISHING or most_opaque == 0 or least_opaque >= 255 - VANISHING // 2:
        return result, ()
    for rows in row_blocks(result.shape):
        result[rows] = _blend(*part(rows), 0)
    return result, (ON_BLACK,)


def _blend(colors: UInt8Array, alpha: UInt8Array, background: int) -> UInt8Array:
    weight = alpha[..., None].astype(np.uint16)
    mixed = colors * weight + (255 - weight) * background + 127
    return (mixed // 255).astype(np.uint8)
