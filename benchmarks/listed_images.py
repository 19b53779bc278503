"""The images of a folder of classes or of a class file, for `quality_pytorch.py`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from deep_ranking.files import InputError
from deep_ranking.files.csv_lines import read_lines

EXTENSIONS = {".jpg", ".jpeg", ".bmp", ".png", ".ppm", ".gif", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Listing:
    """The images of a folder with one folder for each class, in sorted order, or of a CSV file.

    Attributes:
        root: the folder, or that which the paths of the file start from.
        paths: relative to it, with "/" between folders.
        labels: class name of each image.
    """

    root: Path
    paths: list[str]
    labels: np.ndarray


def list_images(root: Path, start: Path | None) -> Listing:
    """Return the images of two or more class folders, or of a CSV file with paths from `start`."""
    if root.is_file():
        return list_rows(root, root.parent if start is None else start)
    if not root.is_dir():
        sys.exit(f"{root}: no such folder; expected a folder with one folder for each class")
    paths = sorted(
        path.relative_to(root).as_posix()
        for folder in root.iterdir()
        if folder.is_dir()
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
    )
    paths = [path for path in paths if not any(part.startswith(".") for part in path.split("/"))]
    labels = np.array([path.split("/")[0] for path in paths])
    if len(set(labels)) < 2:
        sys.exit(f"{root}: expected images in two class folders or more, got {len(set(labels))}")
    return Listing(root, paths, labels)


def list_rows(file: Path, start: Path) -> Listing:
    """Return the images of a CSV file with lines of path and class; paths start from `start`."""
    paths, labels = [], []
    try:
        for line, fields in read_lines(file, kind="table", hint="expected lines of path,class"):
            if len(fields) != 2:
                sys.exit(f"{file}:{line}: expected path,class, got {len(fields)} fields")
            if not (start / fields[0]).is_file():
                sys.exit(
                    f"{file}:{line}: no file {start / fields[0]}; --root says where paths start"
                )
            paths.append(fields[0])
            labels.append(fields[1])
    except InputError as error:
        sys.exit(str(error))
    if len(set(labels)) < 2:
        sys.exit(f"{file}: expected images of two classes or more, got {len(set(labels))}")
    return Listing(start, paths, np.array(labels))


def read_images(listing: Listing, size: int) -> torch.Tensor:
    """Return all images, resized: uint8 (images, 3, size, size), RGB, channels last in memory."""
    pixels = np.empty((len(listing.paths), size, size, 3), np.uint8)
    for row, path in enumerate(listing.paths):
        try:
            with Image.open(listing.root / path) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")
        except OSError as error:
            sys.exit(f"{listing.root / path}: cannot be read as an image: {error}")
        # Pillow's bilinear filter widens when it shrinks: it does not alias.
        pixels[row] = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
