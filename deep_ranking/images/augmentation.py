"""Random changes of an image: one affine map, and sometimes the loss of its colours.

The defaults are the blog's: both flips, rotation by up to 30 degrees, zoom 0.2 and shear of 0.2
degrees. The pixel shift is the paper's (section 4). As in the blog, all of them apply to the image
stretched to a square, as the network sees it: angles and ratios are those of the square.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array
from deep_ranking.files.typed_fields import convert_fields
from deep_ranking.images.reading import PLAIN, View

# Random numbers for a view. New augmentations use a second block of draws, after the first block of
# all images of a call, so that old seeds keep their results.
NUM_FIRST_DRAWS = 10
NUM_LATER_DRAWS = 3


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far an image may be changed; each image gets its own draw.

    Example:
        >>> Augmentation(horizontal_flip=False).horizontal_flip
        False

    Raises:
        InputError: a value is out of its range.
    """

    horizontal_flip: bool = field(
        default=True, metadata={"help": "mirror left and right, half of the time"}
    )
    vertical_flip: bool = field(
        default=True, metadata={"help": "mirror top and bottom, half of the time"}
    )
    rotation: float = field(
        default=30.0,
        metadata={"help": "rotate by up to so many degrees either way", "metavar": "DEGREES"},
    )
    zoom: float = field(
        default=0.2,
        metadata={
            "help": "scale each axis by its own factor, 1 - ZOOM to 1 + ZOOM",
            "metavar": "ZOOM",
        },
    )
    shear: float = field(
        default=0.2,
        metadata={"help": "shear by up to so many degrees either way", "metavar": "DEGREES"},
    )
    shift: float = field(
        default=0.0,
        metadata={
            "help": "shift each axis by up to so many pixels of the input (the paper's)",
            "metavar": "PIXELS",
        },
    )
    random_crop: float = field(
        default=1.0,
        metadata={
            "help": "cut out a square at a random place, its side this share of the image's",
            "metavar": "SHARE",
        },
    )
    resized_crop: float = field(
        default=1.0,
        metadata={
            "help": "cut out a rectangle of at least this share of the area, with sides as 3 to 4 "
            "up to 4 to 3, at a random place, and scale it to the input; 1 for none",
            "metavar": "SHARE",
        },
    )
    grayscale: float = field(
        default=0.0,
        metadata={"help": "share of the images that lose their colours", "metavar": "SHARE"},
    )

    def __post_init__(self) -> None:
        """Check types and ranges."""
        convert_fields(self)
        for name, low, high in (
            ("rotation", 0, 180),
            ("zoom", 0, 0.99),
            ("shear", 0, 89),
            ("shift", 0, 1024),
            ("random_crop", 0.01, 1),
            ("resized_crop", 0.01, 1),
            ("grayscale", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must lie between {low} and {high}. Received: {value}")

    def draw(self, rng: np.random.Generator, count: int, size: int) -> list[View]:
        """Draw a view for each of `count` images; each uses the same number of random numbers.

        Args:
            rng: source of randomness.
            count: number of images.
            size: side of the resulting images in pixels; `shift` is in these pixels.
        """
        first = rng.uniform(-1, 1, (count, NUM_FIRST_DRAWS)).tolist()
        later = rng.uniform(0, 1, (count, NUM_LATER_DRAWS)).tolist()
        views = []
        for numbers, (area, ratio, color) in zip(first, later, strict=True):
            affine = self._affine(numbers, self._sides(area, ratio), size)
            views.append(View(affine, color < self.grayscale))
        return views

    def _sides(self, area: float, ratio: float) -> tuple[float, float]:
        """Return width and height of the crop, as shares of the image's, from numbers in [0, 1].

        The area is uniform, the ratio of the sides log-uniform. If the ratio makes a side longer
        than the image's, the ratio is reduced until they are equal; the area stays.
        """
        share = 1 - (1 - self.resized_crop) * area
        most = min(math.log(4 / 3), -math.log(share))
        log_ratio = max(-most, min(most, (2 * ratio - 1) * math.log(4 / 3)))
        width, height = (math.sqrt(share * math.exp(each)) for each in (log_ratio, -log_ratio))
        return self.random_crop * width, self.random_crop * height

    def _affine(self, numbers: list[float], sides: tuple[float, float], size: int) -> Float64Array:
        """Return the affine map for some numbers in [-1, 1]: (2, 3), as `resample` takes it."""
        mirror_x, mirror_y, turn, zoom_x, zoom_y, slant, shift_x, shift_y, crop_x, crop_y = numbers
        angle, shear = math.radians(turn * self.rotation), math.radians(slant * self.shear)
        width, height = sides
        scale_x = (1 + zoom_x * self.zoom) * width
        scale_y = (1 + zoom_y * self.zoom) * height
        if self.horizontal_flip and mirror_x < 0:
            scale_x = -scale_x
        if self.vertical_flip and mirror_y < 0:
            scale_y = -scale_y
        shift = self.shift / size
        move_x = shift_x * shift + crop_x * (1 - width) / 2
        move_y = shift_y * shift + crop_y * (1 - height) / 2
        # Rotation times shear times scale, written out: NumPy is slow for 2 x 2 matrices.
        return np.array(
            [
                [math.cos(angle) * scale_x, -math.sin(angle + shear) * scale_y, move_x],
                [math.sin(angle) * scale_x, math.cos(angle + shear) * scale_y, move_y],
            ]
        )


def draw_views(
    augmentation: Augmentation | None, rng: np.random.Generator, count: int, size: int
) -> list[View]:
    """Draw a view for each of `count` images; without augmentation, all are plain."""
    return [PLAIN] * count if augmentation is None else augmentation.draw(rng, count, size)
