"""Write scikit-learn's handwritten digits as folders of PNG files."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from deep_ranking.files import make_folder

UNSEEN_DIGITS = (7, 8, 9)


@dataclass(frozen=True)
class Splits:
    """The folders of one data set; each has one folder a class.

    Attributes:
        train: images to train on.
        held_back: other images of the same classes.
        unseen: images of classes that `train` does not have.
    """

    train: Path
    held_back: Path
    unseen: Path


def write_digits(root: str | os.PathLike[str], *, seed: int = 0) -> Splits:
    """Write scikit-learn's 1,797 handwritten digits, 8 x 8 pixels, as PNG files.

    Args:
        root: folder to write to; it is made if missing.
        seed: decides which quarter of the digits 0 to 6 is held back.

    Returns:
        The `Splits`: three quarters of the digits 0 to 6, the other quarter, and the digits 7 to 9.

    Example:
        >>> write_digits("digits").train.name
        'train'

    Raises:
        InputError: the folder cannot be written to.
    """
    from sklearn.datasets import load_digits

    splits = Splits(*(Path(root) / name for name in ("train", "held_back", "unseen")))
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (images, 8, 8)
    held_back = np.random.default_rng(seed).random(len(pixels)) < 0.25
    for number, (image, digit) in enumerate(zip(pixels, digits.target.tolist(), strict=True)):
        if digit in UNSEEN_DIGITS:
            folder = splits.unseen
        else:
            folder = splits.held_back if held_back[number] else splits.train
        path = make_folder(folder / str(digit)) / f"{number:04}.png"
        Image.fromarray(image).save(path)
    return splits
