"""Folders -> labelled images: one folder a class, or folders of categories and items."""

import os

from deep_ranking.errors import InputError
from deep_ranking.images import ImageListing, find_images
from deep_ranking.listing.labelled import LabelledImages, Labels


def class_folders(root: str | os.PathLike[str]) -> LabelledImages:
    """List images whose class is their first folder.

    Raises:
        InputError: as `find_images`.
    """
    listing = find_images(root)
    items = Labels(listing.labels, listing.classes)
    return LabelledImages(listing.root, listing.paths, items, notes=_notes(listing))


def nested_folders(root: str | os.PathLike[str], level: int = 1) -> LabelledImages:
    """List images of `category/.../item/image`: the item is the folder that an image lies in.

    Args:
        root: the folder of all.
        level: leading folders that make the category.

    Raises:
        InputError: as `find_images`, or the level is below 1.
    """
    if level < 1:
        raise InputError(f"level must be 1 or more. Received: {level}")
    listing = find_images(root)
    folders = [path.rsplit("/", 1)[0] for path in listing.paths]
    return LabelledImages(
        listing.root,
        listing.paths,
        Labels.of(folders),
        Labels.of([leading_folders(folder, level) for folder in folders]),
        notes=_notes(listing),
    )


def leading_folders(folder: str, level: int) -> str:
    """Give the first folders of a path of folders; all, if there are no more."""
    return "/".join(folder.split("/")[:level])


def _notes(listing: ImageListing) -> tuple[str, ...]:
    left_out = (
        (listing.num_unlistable, "a line break in the name"),
        (listing.num_outside, "in no folder of a class"),
    )
    return tuple(
        f"{count:,} image{'s' * (count != 1)} left out: {reason}."
        for count, reason in left_out
        if count
    )
