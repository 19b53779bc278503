"""Fewer of the images: no class too large, none too small."""

import numpy as np

from deep_ranking.datasets.labelled import LabelledImages
from deep_ranking.files import InputError


def limit_classes(
    data: LabelledImages, *, fewest: int | None = None, most: int | None = None
) -> LabelledImages:
    """Leave out classes (items) of few images, and images of classes of many.

    Args:
        data: the images.
        fewest: images that a class must have to stay.
        most: images that stay of a class, spread evenly over its list.

    Raises:
        InputError: no class is left.
    """
    codes = data.items.codes
    sizes = data.items.sizes()
    kept = np.ones(len(codes), bool)
    if fewest is not None:
        kept = sizes[codes] >= fewest
        if not kept.any():
            raise InputError(
                f"min_images_per_class {fewest}: no class has so many images; the largest has "
                f"{sizes.max()}"
            )
    if most is not None:
        order = np.argsort(codes, kind="stable")
        rank = np.empty(len(codes), np.int64)
        rank[order] = np.arange(len(codes)) - (np.cumsum(sizes) - sizes)[codes[order]]
        # Of `size` images stay the numbers k * size // most: those where the division steps up.
        size = np.maximum(sizes[codes], most)
        kept &= rank == -(-rank * most // size) * size // most
    return data if kept.all() else data.select(kept)
