"""The recipe by which an image file becomes the input of an export, for programs without this one.

It is a text of Python, `image_to_pixels.py`, and how far its pixels are from those of `read_image`.
An export carries it in its notes, and NAME.pixels.json lies beside an export of the name NAME.
`tests/test_pixel_recipe.py` runs that text on files of each kind and measures the differences;
`benchmarks/pixel_recipe.py` measures them on photographs, and what they do to embeddings.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deep_ranking.embedding.export import image_to_pixels

CODE = inspect.getsource(image_to_pixels)
MODULES = ("numpy", "pillow", "opencv-python-headless>=5")
# The largest difference to `read_image` of a sample, of 0 to 255, by the kind of file.
LARGEST_DIFFERENCES = {
    "JPEG in RGB or gray, and 8-bit PNG, GIF, BMP, WebP, AVIF": 0,
    "the same, turned by EXIF, or JPEG in CMYK without a profile": 2,
}
NOT_COVERED = (
    "OpenCV 4 samples at steps of 1/32 pixel: some samples are up to 6 off. More than 8 bits a "
    "sample: gray is refused; 16-bit colour of PNG may come out darker. CMYK with a profile, "
    "JPEG 2000, JPEG XL, HEIF, and TIFF other than plain gray or RGB may differ or fail. A damaged "
    "file may be read all the same, as Pillow reads it."
)
STEPS = (
    "decode to 8 bits; of a JPEG whose shorter side is at least 4, 8 or 16 times the image size, "
    "only a half, a fourth or an eighth of the pixels (libjpeg's scaling)",
    "put what is transparent on white; on black if nothing on white would be darker than 224",
    "shrink each side that is longer than 2.5 times the image size to 2 times, by area",
    "convert an embedded RGB profile to sRGB, unless it is sRGB by its name",
    "turn upright by the EXIF orientation",
    "stretch to a square by bilinear sampling of 2 x 2 pixels, without antialiasing: the centre of "
    "pixel i lies at (i + 1/2) / size of the side, and beyond the border is the nearest pixel",
)


def pixel_recipe(size: int) -> dict[str, Any]:
    """Return the recipe for a model of images of a size, as JSON can hold it.

    Args:
        size: side in pixels of the images that the model takes.

    Returns:
        `image_size`; `steps`, in words; `python`, the text of a module; `modules`, the packages
        that it needs; `use`, a line that makes a batch of it; `largest_difference` of a sample to
        `read_image`, of 0 to 255, by kind of file; and `not_covered`, in words.
    """
    return {
        "image_size": size,
        "steps": list(STEPS),
        "python": CODE,
        "modules": list(MODULES),
        "use": (
            f"pixels = np.stack([image_to_pixels(path, {size}) for path in paths])"
            ".astype(np.float32)"
        ),
        "largest_difference": dict(LARGEST_DIFFERENCES),
        "not_covered": NOT_COVERED,
    }


def recipe_in_words(recipe: Mapping[str, Any], file: Path) -> str:
    """Return the recipe as `export` prints it: what it is, its code, and how exact it is.

    Args:
        recipe: as `pixel_recipe` returns it.
        file: where it is kept.
    """
    exactness = "; ".join(
        f"{levels} ({kind})" for kind, levels in recipe["largest_difference"].items()
    )
    return (
        f"pixels of image files, with {', '.join(recipe['modules'])}; this recipe is kept in "
        f"{file}:\n\n{recipe['python']}\n\n{recipe['use']}\n\n"
        f"largest difference to the pixels of this project, of 255: {exactness}. "
        f"{recipe['not_covered']}"
    )


def recipe_path(path: Path) -> Path:
    """Return the file beside an export that holds its recipe: no two exports share one."""
    return path.parent / f"{path.name}.pixels.json"
