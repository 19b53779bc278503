"""What batches of triplets and batches of classes share: images read in a random view each time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deep_ranking.embedding.batches import BatchSource
from deep_ranking.files import InputError, make_folder
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images import read_image
from deep_ranking.images.augmentation import Augmentation, draw_views
from deep_ranking.training.batches.shares import WHOLE, Share


@dataclass(kw_only=True, eq=False)
class AugmentedImages(BatchSource):
    """Batches of images to train on.

    Attributes:
        image_size: side of the images in pixels.
        augmentation: random changes; None for none.
        seed: with the epoch, decides order and augmentation.
        skip_broken: leave out missing and broken images instead of raising an error.
        steps_per_epoch: batches an epoch; None for all images or triplets once, on average.
        save_dir: folder for the first 300 images an epoch as PNG files, as the network sees them.
        paths: the images.
        broken_images: with `skip_broken`, numbers of the images that were left out so far.
        description: the training data in words.
        share: which rows of each batch this host reads.
    """

    image_size: int
    augmentation: Augmentation | None = None
    seed: int = 0
    skip_broken: bool = False
    steps_per_epoch: int | None = None
    save_dir: Path | None = None
    paths: Sequence[str | os.PathLike[str]] = field(init=False)
    broken_images: set[int] = field(default_factory=set, init=False)
    description: str = field(init=False)
    share: Share = field(default=WHOLE, init=False)

    def __post_init__(self) -> None:
        """Make the folder of saved images."""
        if self.save_dir is not None:
            make_folder(self.save_dir)

    @property
    def broken(self) -> set[int]:
        """With `skip_broken`, the numbers of the images (or triplets) that were left out so far."""
        return self.broken_images

    def _read_views(self, numbers: Sequence[int], images: UInt8Array, draw: list[int]) -> bool:
        """Read images by number into `images`, each in a view that the seeds `draw` decide.

        Returns:
            Whether all could be read; with `skip_broken`, False for a missing or broken image.
        """
        views = draw_views(
            self.augmentation, np.random.default_rng(draw), len(numbers), self.image_size
        )
        for row, (number, view) in enumerate(zip(numbers, views, strict=True)):
            try:
                images[row] = read_image(self.paths[number], self.image_size, view)
            except InputError:
                if not self.skip_broken:
                    raise
                self.broken_images.add(number)
                return False
        return True
