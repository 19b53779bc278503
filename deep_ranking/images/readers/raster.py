"""What a reader of a format returns: pixels as stored, and what is needed to show them right."""

from dataclasses import dataclass

from deep_ranking.files.array_types import UInt8Array

# Notes: what was decided about an image that does not say how it is to be shown. `doctor` counts
# the images of each.
STRETCHED = "of 16 bits stretched from the range in use"
FIRST_BANDS = "of many bands read as RGB from the first three"
FIRST_BAND = "of two bands read as gray from the first"
ON_BLACK = "nearly white on a transparent background put on black"


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A decoded image.

    Attributes:
        pixels: uint8 (height, width, 3), RGB, or (height, width, 4), CMYK: 255 is full ink.
        profile: its embedded colour profile (ICC), if it is to be used.
        orientation: EXIF orientation that is still to be applied.
        notes: what was decided about it.
    """

    pixels: UInt8Array
    profile: bytes | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()
