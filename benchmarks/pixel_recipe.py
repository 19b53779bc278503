"""How far the pixels of other programs are from `read_image`, and what that does to embeddings.

The recipe that `export` prints is run on photographs as they are, and saved again in other kinds
of files; beside it, usual ways of other programs to resize a photograph. Of each, the script prints
the largest and the mean difference of a sample, 0 to 255, and the mean and the largest Euclidean
distance between the embedding of an image's pixels and that of `read_image`'s.

    python benchmarks/pixel_recipe.py --model m.h5 --images photos
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from deep_ranking.embedding.export.image_to_pixels import image_to_pixels
from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.images import find_images, read_image
from deep_ranking.model.file import load_model

Read = Callable[[Path, int], UInt8Array]
BATCH = 8


def upright(path: Path) -> Image.Image:
    """Return an image as Pillow reads it, upright and in RGB."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def by_pillow(filter: Image.Resampling) -> Read:
    """Return a reader that resizes with a filter of Pillow's."""
    return lambda path, size: np.asarray(upright(path).resize((size, size), filter))


def by_opencv(interpolation: int) -> Read:
    """Return a reader that resizes with OpenCV."""
    return lambda path, size: np.asarray(
        cv2.resize(np.asarray(upright(path)), (size, size), interpolation=interpolation), np.uint8
    )


READERS: dict[str, Read] = {
    "the recipe": image_to_pixels,
    "Pillow, bilinear": by_pillow(Image.Resampling.BILINEAR),
    "Pillow, bicubic": by_pillow(Image.Resampling.BICUBIC),
    "OpenCV, area": by_opencv(cv2.INTER_AREA),
    "OpenCV, bilinear": by_opencv(cv2.INTER_LINEAR),
}


def with_alpha(image: Image.Image) -> Image.Image:
    """Return an image that fades from left to right."""
    result = image.convert("RGBA")
    result.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return result


KINDS: dict[str, tuple[str, Callable[[Image.Image], Image.Image], int]] = {
    "JPEG in grey": (".jpg", lambda image: image.convert("L"), 1),
    "JPEG turned by EXIF": (".jpg", lambda image: image, 6),
    "JPEG in CMYK": (".jpg", lambda image: image.convert("CMYK"), 1),
    "PNG": (".png", lambda image: image, 1),
    "PNG, half transparent": (".png", with_alpha, 1),
    "PNG with a palette": (".png", lambda image: image.quantize(256), 1),
    "WebP": (".webp", lambda image: image, 1),
}


def main() -> None:
    """Print a line for each reader on the photographs, and for the recipe on each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model file")
    parser.add_argument("--images", required=True, help="folder of photographs")
    parser.add_argument("--most", type=int, default=64, help="photographs to take")
    args = parser.parse_args()
    model = load_model(args.model)
    size = model.input_shape[1]
    found = [Path(each) for each in find_images(args.images).files()]
    paths = found[:: max(1, len(found) // args.most)][: args.most]
    sides = sorted(min(upright(path).size) for path in paths)
    print(f"{len(paths)} images, shorter side {sides[0]} to {sides[-1]}, seen at {size}")
    print(f"{'':>24} {'largest':>8} {'mean':>8} {'distance':>9} {'largest':>8}")

    def embed(pixels: Sequence[UInt8Array]) -> Float32Array:
        batches = [pixels[begin : begin + BATCH] for begin in range(0, len(pixels), BATCH)]
        return np.concatenate(
            [model.predict_on_batch(np.stack(each).astype(np.float32)) for each in batches]
        )

    def show(name: str, read: Read, files: Sequence[Path]) -> None:
        expected = [read_image(path, size) for path in files]
        pixels = [read(path, size) for path in files]
        off = [np.abs(a.astype(int) - b) for a, b in zip(pixels, expected, strict=True)]
        apart = np.linalg.norm(embed(pixels) - embed(expected), axis=1)
        largest, mean = max(each.max() for each in off), np.mean([each.mean() for each in off])
        print(f"{name:>24} {largest:8d} {mean:8.3f} {apart.mean():9.4f} {apart.max():8.4f}")

    for name, read in READERS.items():
        show(name, read, paths)
    print("the recipe, on the same photographs as other files:")
    for name, (suffix, change, orientation) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for number, path in enumerate(paths):
                exif = Image.Exif()
                exif[0x0112] = orientation
                files.append(Path(folder) / f"{number}{suffix}")
                change(upright(path)).save(files[-1], exif=exif)
            show(name, image_to_pixels, files)


if __name__ == "__main__":
    main()
