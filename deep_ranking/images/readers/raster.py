"""What a reader of a format returns: pixels as stored, and what is needed to show them right."""

from dataclasses import dataclass

from deep_ranking.files.array_types import UInt8Array

# Notes: what was decided about an image that does not say how it is to be shown. `doctor` counts
# the images of each.
STRETCHED = "16-bit stretched from its used range"
FIRST_BANDS = "read as RGB from its first three bands"
FIRST_BAND = "read as gray from its first band"
ON_BLACK = "nearly white on a transparent background, shown on black"


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
