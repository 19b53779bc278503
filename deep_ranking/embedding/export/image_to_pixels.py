"""An image file to the pixels that the model takes, with Pillow, OpenCV and NumPy alone."""

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps


def image_to_pixels(path: str, size: int) -> Any:
    """Return an image file of 8 bits a sample as RGB pixels, uint8 (size, size, 3)."""
    with Image.open(path) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"{path}: more than 8 bits a sample")
        image.draft("RGB", (2 * size, 2 * size))  # of a large JPEG, a half, a fourth or an eighth
        upright = ImageOps.exif_transpose(image)
        is_colored = image.mode in ("RGB", "RGBA", "P")
        profile = image.info.get("icc_profile", b"") if is_colored else b""
        samples = np.asarray(upright.convert("RGBA"), np.uint16)
    colors, alpha = samples[..., :3], samples[..., 3:]
    for background in (255, 0):  # white; black behind a drawing that is nearly white itself
        pixels = ((colors * alpha + (255 - alpha) * background + 127) // 255).astype(np.uint8)
        if pixels.min() < 224 or alpha.max() == 0 or alpha.min() >= 143:
            break
    height, width = (2 * size if side > 2.5 * size else side for side in pixels.shape[:2])
    shrunk = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if profile[16:20] == b"RGB ":
        source, srgb = ImageCms.getOpenProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        if "srgb" not in ImageCms.getProfileDescription(source).lower():
            shrunk = np.asarray(ImageCms.profileToProfile(Image.fromarray(shrunk), source, srgb))
    x, y = width / size, height / size  # steps from one sampled point to the next
    points = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    return cv2.warpAffine(shrunk, points, (size, size), flags=flags, borderMode=border)
