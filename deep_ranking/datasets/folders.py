"""Read labelled images from folders: one folder a class, or folders of categories and items."""

import os
from dataclasses import replace

import numpy as np

from deep_ranking.datasets.labelled import LabelledImages, Labels
from deep_ranking.files import InputError
from deep_ranking.files.words import counted
from deep_ranking.images import ImageListing, find_images


def class_folders(root: str | os.PathLike[str]) -> LabelledImages:
    """Return the images below a folder; the class of each is its first folder.

    Raises:
        InputError: as `find_images`.
    """
    return listed_images(find_images(root))


def listed_images(listing: ImageListing) -> LabelledImages:
    """Return the images of a listing, labelled by class."""
    items = Labels(listing.labels, listing.classes)
    return LabelledImages(listing.root, listing.paths, items, notes=_notes(listing))


def nested_folders(root: str | os.PathLike[str], level: int = 1) -> LabelledImages:
    """Return images of `category/.../item/image`; the item is the folder that holds the image.

    Args:
        root: the outermost folder.
        level: number of leading folders that make the category.

    Raises:
        InputError: as `find_images`, or the level is below 1.
    """
    if level < 1:
        raise InputError(f"level must be 1 or more. Received: {level}")
    return with_folder_items(class_folders(root), level)


def with_folder_items(data: LabelledImages, level: int) -> LabelledImages:
    """Return the images labelled by the folder that holds each, and by category.

    Args:
        data: the images.
        level: number of leading folders of a path that make the category.
    """
    folders = [path.rpartition("/")[0] for path in data.paths]
    categories = [leading_folders(folder, level) for folder in folders]
    return replace(data, items=Labels.of(folders), categories=Labels.of(categories))


def with_folder_categories(data: LabelledImages, level: int) -> LabelledImages:
    """Return the images with categories from their folders.

    An item's category is that of its first image or, if there are pairs, of its first positive.

    Args:
        data: the images.
        level: number of leading folders of a path that make the category.
    """
    first = np.full(len(data.items.names), len(data))
    numbers = np.arange(len(data)) if data.pairs is None else data.pairs[:, 1]
    np.minimum.at(first, data.items.codes[numbers], numbers)
    folders = [data.paths[number].rpartition("/")[0] for number in first[data.items.codes]]
    return replace(data, categories=Labels.of([leading_folders(each, level) for each in folders]))


def leading_folders(folder: str, level: int) -> str:
    """Return the first `level` folders of a path of folders, or all if there are fewer."""
    return "/".join(folder.split("/")[:level])


def _notes(listing: ImageListing) -> tuple[str, ...]:
    left_out = (
        (listing.num_unlistable, "image", "a line break in the name"),
        (listing.num_outside, "image", "in no folder of a class"),
        (listing.num_seen_again, "link", "leads to a folder that is listed already"),
    )
    return tuple(
        f"{counted(count, noun)} left out: {reason}." for count, noun, reason in left_out if count
    )
