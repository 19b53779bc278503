"""The range of samples of more than 8 bits, and their mapping to 0 ... 255.

Cameras, scanners and microscopes write 10 or 12 bits into 16-bit samples. A file that states its
range is taken at its word. Otherwise the rule is: the range is the smallest of 1, 2, 4, 8, 10, 12,
14 and 16 bits that holds all samples. So an image that uses the upper three quarters of 16 bits is
mapped as it is, and no image comes out nearly black. The rule looks at one image alone: two images
of one camera may be stretched differently where one of them is dark.

Alpha counts with the colours where all samples together use a part of 16 bits; an alpha that uses
more is measured by itself, so one that is opaque does not hide what the colours use.

Signed samples without a negative one are mapped as unsigned samples of one bit less; others from
the smallest signed range of these bits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import UInt8Array

USUAL_BITS = (1, 2, 4, 8, 10, 12, 14, 16)
SAMPLES_AT_ONCE = 1 << 22

Samples = npt.NDArray[Any]


class SampleRange(NamedTuple):
    """The sample values that are shown as 0 and as 255, and whether a rule chose them."""

    low: float
    high: float
    is_guessed: bool = False


def used_range(samples: Samples, bits: int) -> SampleRange:
    """Return the range of samples whose file states none.

    Args:
        samples: integers of any shape, signed or unsigned.
        bits: number of bits that a sample has in the file.

    Example:
        >>> used_range(np.array([240, 3870], np.uint16), 16).high
        4095
    """
    low, high = (int(samples.min()), int(samples.max())) if samples.size else (0, 0)
    is_signed = np.issubdtype(samples.dtype, np.signedinteger)
    if low >= 0:
        whole = bits - is_signed
        used = _usual_bits(high.bit_length(), whole)
        return SampleRange(0, (1 << used) - 1, is_guessed=bits > 8 and used < whole)
    used = _usual_bits(max(high, -low - 1).bit_length() + 1, bits) if bits > 8 else bits
    return SampleRange(-(1 << used - 1), (1 << used - 1) - 1, is_guessed=used < bits)


def used_ranges(samples: Samples, bits: int) -> tuple[SampleRange, SampleRange]:
    """Return the ranges of the colours and of the alpha of samples whose file states none.

    Where all samples together use a part of the whole range, this part is that of both. Otherwise
    alpha has the whole range, and what the colours use is theirs.

    Args:
        samples: integers (height, width, channels); the last channel is alpha.
        bits: number of bits that a sample has in the file.
    """
    both = used_range(samples, bits)
    if both.is_guessed:
        return both, SampleRange(0, both.high)
    return used_range(samples[..., :-1], bits), whole_range(samples, bits)


def alpha_range(alpha: Samples, limits: SampleRange, bits: int) -> SampleRange:
    """Return the range of an alpha beside colours whose range is stated: theirs, if it fits."""
    whole = whole_range(alpha, bits)
    fits = limits.high < whole.high and int(alpha.max(initial=0)) <= limits.high
    return SampleRange(0, limits.high) if fits else whole


def whole_range(samples: Samples, bits: int) -> SampleRange:
    """Return the range of samples of so many bits that cannot be negative, such as alpha."""
    is_signed = np.issubdtype(samples.dtype, np.signedinteger)
    return SampleRange(0, (1 << bits - int(is_signed)) - 1)


def _usual_bits(needed: int, whole: int) -> int:
    if whole <= 8:
        return whole
    return min(next((bits for bits in USUAL_BITS if bits >= needed), whole), whole)


def to_bytes(samples: Samples, limits: SampleRange, *, inverted: bool = False) -> UInt8Array:
    """Map samples to 0 ... 255, rounded; what lies beyond the range is cut off.

    Args:
        samples: integers (height, width, ...).
        limits: what is mapped to 0 and 255.
        inverted: whether to map the low end to 255 instead.
    """
    result = np.empty(samples.shape, np.uint8)
    low, high = (limits.high, limits.low) if inverted else (limits.low, limits.high)
    scale = 255 / (high - low)
    for rows in row_blocks(samples.shape):
        values = (samples[rows].astype(np.float32) - np.float32(low)) * np.float32(scale)
        result[rows] = np.rint(values).clip(0, 255)
    return result


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield slices of rows that hold about four million samples each."""
    step = max(1, SAMPLES_AT_ONCE // max(1, int(np.prod(shape[1:]))))
    for begin in range(0, shape[0], step):
        yield slice(begin, min(begin + step, shape[0]))
