"""How much real detail an image has, whatever its number of pixels.

A blurred or enlarged image has more pixels than detail. Its spectrum tells: photographs have about
as much energy in each octave of frequencies, so the squared amplitude times the squared frequency
is about level up to the finest detail, and falls off beyond. The frequency below which 90 % of that
sum lies is the spectral roll-off. As a share of the highest frequency that the pixels can hold
(Nyquist's), it is the image's `sharpness`; the sides times the sharpness are its effective size.

On 40 photographs of the Grocery Store data set, the effective side of copies, as a share of the
original's: 0.84 to 0.96 saved again at quality 50, 0.50 to 0.66 reduced to half, 0.95 to 1.04
enlarged to twice the size, 0.42 to 0.54 enlarged and blurred, 0.39 to 0.50 blurred by one pixel.
"""

import cv2
import numpy as np

from deep_ranking.files.array_types import Float64Array, UInt8Array

TILE = 256  # pixels; up to 9 tiles of an image are looked at
NUM_RINGS = 32
ROLL_OFF = 0.9


def measured_sharpness(pixels: UInt8Array) -> float:
    """Return the share of the frequencies that pixels can hold which an image uses.

    Args:
        pixels: uint8 (height, width, 3), RGB, at their own size: not enlarged or reduced.

    Returns:
        Above 0, at most 1; 1 for an image of one colour. It depends little on contrast.
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float64)
    height, width = (min(side, TILE) for side in gray.shape)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    rings = np.minimum(frequencies * 2 * NUM_RINGS, NUM_RINGS).astype(np.int64).ravel()
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    power = np.zeros(NUM_RINGS + 1)
    for top in _begins(gray.shape[0], height):
        for left in _begins(gray.shape[1], width):
            tile = gray[top : top + height, left : left + width]
            spectrum = np.abs(np.fft.rfft2((tile - tile.mean()) * window)) ** 2
            power += np.bincount(rings, spectrum.ravel(), minlength=NUM_RINGS + 1)
    counts = np.bincount(rings, minlength=NUM_RINGS + 1)
    return _roll_off(power[:-1] / np.maximum(counts[:-1], 1))


def _roll_off(power: Float64Array) -> float:
    """Return the roll-off of the mean power of each ring, as a share of the highest frequency."""
    middles = (np.arange(NUM_RINGS) + 0.5) / NUM_RINGS
    energy = power * middles**2
    energy[0] = 0  # what is left of the mean
    total = np.cumsum(energy)
    if total[-1] <= 0:
        return 1.0
    ends = np.arange(NUM_RINGS + 1) / NUM_RINGS
    return float(np.interp(ROLL_OFF, np.concatenate([[0.0], total / total[-1]]), ends))


def _begins(side: int, tile: int) -> list[int]:
    return sorted({0, (side - tile) // 2, side - tile})
