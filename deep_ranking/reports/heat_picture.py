"""Heat over pictures, drawn without matplotlib: for the server, and for light installations."""

from collections.abc import Sequence

import cv2
import numpy as np

from deep_ranking.files.array_types import Float64Array, FloatArray, UInt8Array

HEIGHT, MOST_WIDTH, GAP = 480, 960, 16  # pixels
DIMMED = 0.66  # brightness of what has no heat: light colours stand out on white, too
OPACITY, CURVE = 0.8, 1.0  # of the hottest place, and how fast the others fade
STOPS = (0.0, 0.35, 0.7, 1.0)
WARM = ((150, 20, 90), (214, 40, 70), (255, 145, 40), (255, 236, 130))
"""Colour in RGB at each heat of `STOPS`; `serving/static/heat.js` has the same."""


def heat_over(picture: UInt8Array, heat: FloatArray) -> UInt8Array:
    """Return a picture in grey, with its heat in warm colours over it.

    Args:
        picture: uint8 (height, width, 3), RGB.
        heat: float (rows, columns), 0 to 1, of the cells of a grid over the picture.

    Returns:
        uint8 (height, width, 3), RGB.

    Example:
        >>> heat_over(np.full((20, 30, 3), 200, np.uint8), np.zeros((7, 7)))[0, 0].tolist()
        [132, 132, 132]
    """
    height, width = picture.shape[:2]
    wide = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    smooth = np.clip(wide, 0, 1)  # (height, width)
    warm = np.stack([np.interp(smooth, STOPS, band) for band in np.transpose(WARM)], axis=-1)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] * DIMMED
    opacity: Float64Array = OPACITY * smooth[..., None].astype(np.float64) ** CURVE
    return np.rint(grey * (1 - opacity) + warm * opacity).astype(np.uint8)


def heat_pictures(pictures: Sequence[UInt8Array], heat: FloatArray) -> UInt8Array:
    """Return pictures side by side, each with its heat over it.

    Args:
        pictures: each uint8 (height, width, 3), RGB.
        heat: float (pictures, rows, columns), 0 to 1.

    Returns:
        uint8 (480, width, 3), RGB, with white between the pictures.
    """
    parts: list[UInt8Array] = []
    for picture, of_picture in zip(pictures, heat, strict=True):
        height, width = picture.shape[:2]
        scale = min(HEIGHT / height, MOST_WIDTH / width)
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        fitted = np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), np.uint8)
        page = np.full((HEIGHT, shape[0], 3), 255, np.uint8)
        top = (HEIGHT - shape[1]) // 2
        page[top : top + shape[1]] = heat_over(fitted, of_picture)
        parts += [page, np.full((HEIGHT, GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)
