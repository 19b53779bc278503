"""Embedded colour profiles (ICC): colours of CMYK, Display P3, Adobe RGB and others to sRGB.

A profile that is sRGB by its name is left alone, so most files cost nothing. Profiles of gray
images are left alone too: they change the contrast a little, never the colour. A profile that is
damaged, or of another colour space than the pixels, counts as none. Without a profile, RGB is taken
for sRGB, and CMYK is converted by the ink that each colour leaves: red = (255 - cyan) * (255 -
black) / 255.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from deep_ranking.files.array_types import UInt8Array

MAX_PROFILE_BYTES = 1 << 24
SPACES = {3: (b"RGB ", "RGB"), 4: (b"CMYK", "CMYK")}  # in the profile's header, Pillow's mode
SRGB_NAMES = ("srgb", "s-rgb", "iec61966-2.1", "iec 61966-2-1", "c2")  # c2: a tiny sRGB profile


def to_srgb(pixels: UInt8Array, profile: bytes | None) -> UInt8Array:
    """Convert pixels to sRGB.

    Args:
        pixels: uint8 (height, width, 3), RGB, or (height, width, 4), CMYK: 255 is full ink.
        profile: the embedded profile, if there is one.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    space, mode = SPACES[pixels.shape[2]]
    transform = None
    if profile and len(profile) <= MAX_PROFILE_BYTES and profile[16:20] == space:
        transform = _transform(profile, mode)
    if transform is not None:
        image = Image.fromarray(pixels) if mode == "RGB" else _cmyk_image(pixels)
        return np.asarray(ImageCms.applyTransform(image, transform))
    return pixels if mode == "RGB" else np.asarray(_cmyk_image(pixels).convert("RGB"))


def _cmyk_image(pixels: UInt8Array) -> Image.Image:
    height, width = pixels.shape[:2]
    return Image.frombuffer("CMYK", (width, height), np.ascontiguousarray(pixels).tobytes())


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of a profile to sRGB; None if the profile is sRGB, or damaged."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = (source.profile.profile_description or "").strip().lower()
        if mode == "RGB" and (name == "c2" or any(each in name for each in SRGB_NAMES[:-1])):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
