"""CIE L*a*b* as TIFF stores it, to sRGB.

Three encodings (TIFF 6.0, section 23, and its later supplements): CIELab has a* and b* signed,
ICCLab the same shifted by half of the range, ITULab a* from -85 to 85 and b* from -75 to 125. L*
runs from 0 to 100.

The white of ICCLab and ITULab is D50. CIELab has that of the tag WhitePoint. Without it, the white
is D50 in files of Photoshop and in those with a colour profile, and otherwise D65, as OpenCV,
scikit-image and MATLAB convert by default.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.images.readers.sample_range import row_blocks

CIELAB, ICCLAB, ITULAB = 8, 9, 10  # values of PhotometricInterpretation
# For each white, its XYZ, and the matrix from XYZ to linear sRGB; that of D50 adapts (Bradford).
WHITES = {
    "D50": (
        np.array([0.96422, 1.0, 0.82521], np.float32),
        np.array(
            [
                [3.1338561, -1.6168667, -0.4906146],
                [-0.9787684, 1.9161415, 0.0334540],
                [0.0719453, -0.2289914, 1.4052427],
            ],
            np.float32,
        ),
    ),
    "D65": (
        np.array([0.95047, 1.0, 1.08883], np.float32),
        np.array(
            [
                [3.2404542, -1.5371385, -0.4985314],
                [-0.9692660, 1.8760108, 0.0415560],
                [0.0556434, -0.2040259, 1.0572252],
            ],
            np.float32,
        ),
    ),
}
ITULAB_LOW = np.array([0, -85, -75], np.float32)
ITULAB_HIGH = np.array([100, 85, 125], np.float32)


def lab_to_rgb(samples: npt.NDArray[Any], encoding: int, white: str = "D50") -> UInt8Array:
    """Convert L*a*b* samples to sRGB.

    Args:
        samples: uint8 or uint16 (height, width, 3), as stored.
        encoding: `CIELAB`, `ICCLAB` or `ITULAB`.
        white: "D50" or "D65".

    Returns:
        uint8 (height, width, 3), RGB.
    """
    result = np.empty(samples.shape, np.uint8)
    for rows in row_blocks(samples.shape):
        result[rows] = _rgb_of(_decoded(samples[rows], encoding), white)
    return result


def _decoded(samples: npt.NDArray[Any], encoding: int) -> Float32Array:
    """Return L* from 0 to 100, and a* and b* as they are: float32 (height, width, 3)."""
    is_deep = samples.dtype == np.uint16
    largest = 65535 if is_deep else 255
    values = samples.astype(np.float32)
    if encoding == ITULAB:
        return ITULAB_LOW + values / largest * (ITULAB_HIGH - ITULAB_LOW)
    # In 16 bits, ICCLab has L* = 100 at 0xFF00.
    lightness = values[..., :1] * (100 / (0xFF00 if is_deep and encoding == ICCLAB else largest))
    if encoding == CIELAB:
        colors = samples[..., 1:].astype(np.int16 if is_deep else np.int8).astype(np.float32)
    else:
        colors = values[..., 1:] - (32768 if is_deep else 128)
    return np.concatenate([lightness, colors / (256 if is_deep else 1)], axis=-1)


def _rgb_of(lab: Float32Array, white: str) -> UInt8Array:
    white_xyz, to_linear = WHITES[white]
    height = (lab[..., 0] + 16) / 116
    cubes = np.stack([height + lab[..., 1] / 500, height, height - lab[..., 2] / 200], axis=-1)
    # The function of CIE 1976 backwards: a cube above 6/29, a straight line below.
    xyz = np.where(cubes > 6 / 29, cubes**3, (cubes - 4 / 29) * (3 * (6 / 29) ** 2)) * white_xyz
    linear = (xyz @ to_linear.T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(encoded * 255), np.uint8)
