"""The parts of a data set: its splits, classes that training holds back, a validation folder."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deep_ranking.datasets import LabelledImages, hold_back_classes, listed_images
from deep_ranking.datasets.layout import split_folders
from deep_ranking.files import InputError
from deep_ranking.images import ImageListing, find_images

TRAIN = "train"


@dataclass(frozen=True)
class Part:
    """A folder of classes, or some of its classes where training holds the others back.

    Attributes:
        name: name of the split; "" for a data set without splits.
        images: the images of the part, labelled by class.
        listing: all images of the folder, with counts of the files left out.
        prefix: text before the paths of the part where they are shown.
        is_trained: whether training learns from it.
        is_judged: whether training is judged on it.
        must_be_unseen: whether none of its classes may be trained on.
    """

    name: str
    images: LabelledImages
    listing: ImageListing
    prefix: str = ""
    is_trained: bool = False
    is_judged: bool = False
    must_be_unseen: bool = False

    @property
    def classes(self) -> list[str]:
        """Names of the classes that have images here, sorted."""
        items = self.images.items
        return [items.names[code] for code in np.unique(items.codes)]


def find_parts(
    root: Path, *, validation: Path | None = None, validation_share: float | None = None
) -> list[Part]:
    """List the images of each part of a data set.

    Args:
        root: folder with one folder a class, or one a split. Training learns from the split
            `train`, or from the first if there is none of that name.
        validation: another folder of classes, to judge on.
        validation_share: share of the classes that training holds back to judge on. With too few
            classes for that, no part is held back.

    Returns:
        The parts, exactly one of them trained on.

    Raises:
        InputError: a folder is missing, or has no images of classes.
    """
    if splits := split_folders(root) if root.is_dir() else []:
        trained = TRAIN if TRAIN in splits else splits[0]
        parts = [
            _listed_part(
                name,
                root / name,
                f"{name}/",
                is_trained=name == trained,
                must_be_unseen=name == "unseen",
            )
            for name in splits
        ]
    else:
        parts = [_listed_part("", root, is_trained=True)]
    if validation_share is not None:
        parts = [each for part in parts for each in _hold_back(part, validation_share)]
    if validation is not None:
        prefix = f"{validation}/"
        parts.append(
            _listed_part("validation", validation, prefix, is_judged=True, must_be_unseen=True)
        )
    return parts


def _listed_part(name: str, folder: Path, prefix: str = "", **uses: bool) -> Part:
    listing = find_images(folder)
    return Part(name, listed_images(listing), listing, prefix, **uses)


def _hold_back(part: Part, share: float) -> list[Part]:
    """Split the part that is trained on as `--validation_share` does; leave the others whole."""
    if not part.is_trained:
        return [part]
    try:
        held = hold_back_classes(part.images.items.codes, share, seed=0)  # as training does
    except InputError:  # `check_classes` reports it
        return [part]
    return [
        replace(part, images=part.images.select(~held)),
        replace(
            part,
            name=f"{part.name} held back".strip(),
            images=part.images.select(held),
            is_trained=False,
            is_judged=True,
        ),
    ]
