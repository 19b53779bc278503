"""Random changes of an image, all of them one affine map that `images.resample` applies.

The defaults are the blog's: both flips, rotation by up to 30 degrees, zoom 0.2 and shear of 0.2
degrees. The pixel shift is the paper's (section 4).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deep_ranking.errors import InputError
from deep_ranking.images import IDENTITY

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far an image may be changed; each image has its own draw.

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
        default=30.0, metadata={"help": "rotate by up to so many degrees either way"}
    )
    zoom: float = field(
        default=0.2, metadata={"help": "scale each axis by its own factor, 1 - ZOOM to 1 + ZOOM"}
    )
    shear: float = field(
        default=0.2, metadata={"help": "shear by up to so many degrees either way"}
    )
    shift: float = field(
        default=0.0,
        metadata={"help": "shift each axis by up to so many pixels of the input (the paper's)"},
    )
    random_crop: float = field(
        default=1.0,
        metadata={"help": "cut out a square at a random place, its side this share of the image's"},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, low, high in (
            ("rotation", 0, 180),
            ("zoom", 0, 0.99),
            ("shear", 0, 89),
            ("shift", 0, 1024),
            ("random_crop", 0.01, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must lie between {low} and {high}. Received: {value}")

    def draw(self, rng: np.random.Generator, size: int) -> Float64Array:
        """Draw one affine map.

        Args:
            rng: source of randomness; every map takes the same number of draws from it, whatever
                is switched on.
            size: side of the resulting image in pixels, the unit of `shift`.

        Returns:
            float (2, 3): points (x, y) of the result -> points of the image, both spanning
            [-1/2, 1/2], to give to `images.resample`.
        """
        mirror_x, mirror_y, turn, zoom_x, zoom_y, slant, shift_x, shift_y, crop_x, crop_y = (
            rng.uniform(-1, 1, 10).tolist()
        )
        angle, shear = math.radians(turn * self.rotation), math.radians(slant * self.shear)
        scale_x = (1 + zoom_x * self.zoom) * self.random_crop
        scale_y = (1 + zoom_y * self.zoom) * self.random_crop
        if self.horizontal_flip and mirror_x < 0:
            scale_x = -scale_x
        if self.vertical_flip and mirror_y < 0:
            scale_y = -scale_y
        shift, crop = self.shift / size, (1 - self.random_crop) / 2
        # Rotation times shear times scale, written out: NumPy takes its time over 2 x 2 matrices.
        sine, cosine = math.sin(angle), math.cos(angle)
        return np.array(
            [
                [
                    cosine * scale_x,
                    -math.sin(angle + shear) * scale_y,
                    shift_x * shift + crop_x * crop,
                ],
                [
                    sine * scale_x,
                    math.cos(angle + shear) * scale_y,
                    shift_y * shift + crop_y * crop,
                ],
            ]
        )


def draw_transforms(
    augmentation: Augmentation | None, rng: np.random.Generator, count: int, size: int
) -> list[Float64Array]:
    """Draw a map for each of `count` images, or the identity for all without augmentation."""
    if augmentation is None:
        return [IDENTITY] * count
    return [augmentation.draw(rng, size) for _ in range(count)]
