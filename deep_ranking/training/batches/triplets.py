"""Triplets -> `tf.data` batches whose rows 3i, 3i + 1, 3i + 2 are one triplet.

Shuffling moves triplets, never images. The batches of an epoch depend on (seed, epoch) alone, so
that a run can go on at any epoch. `epoch_triplets` says which triplets an epoch has.
"""

import hashlib
import os
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from deep_ranking.embedding.batches import Array, image_spec
from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images.augmentation import Augmentation
from deep_ranking.sampling.triplet_file import COLUMNS, read_triplets
from deep_ranking.training.batches.augmented import AugmentedImages
from deep_ranking.training.batches.epoch_triplets import (
    EpochTriplets,
    FileTriplets,
    OrderedTriplets,
)

NUM_SAVED_TRIPLETS = 100


def triplet_dataset(
    path: str | os.PathLike[str],
    *,
    image_size: int = 224,
    batch_size: int = 24,
    dataset_dir: str | os.PathLike[str] | None = None,
    augmentation: Augmentation | None = None,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    skip_broken: bool = False,
) -> tf.data.Dataset:
    """Read the images of a triplet file, batch after batch, for one epoch.

    Args:
        path: triplet file.
        image_size: side of the images in pixels.
        batch_size: images a batch, a multiple of 3; the last batch may be short.
        dataset_dir: folder that the paths are relative to; None for the file's own folder.
        augmentation: random changes; None for none.
        shuffle: permute all triplets, by (seed, epoch); otherwise keep the file's order.
        seed: with `epoch`, decides order and augmentation.
        epoch: number of the epoch, from 0.
        skip_broken: leave out triplets with a missing or broken image instead of raising an error.

    Returns:
        Dataset of (images, roles): float32 (rows, image_size, image_size, 3), RGB in [0, 255], and
        int32 (rows, 3), whose columns query, positive and negative are 1 where a row is that, in
        turn. `RankingLoss` ignores them; losses of classes refuse them by their shape.

    Example:
        >>> images, roles = next(iter(triplet_dataset("triplets.txt", image_size=32, batch_size=6)))
        >>> images.shape, roles.numpy()[:3].tolist()
        (TensorShape([6, 32, 32, 3]), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])

    Raises:
        InputError: the file or an image of it cannot be used, or the batch size is not a multiple
            of 3. A broken image is found while iterating: a `tf.errors.OpError` with that text.
    """
    source = TripletSource(
        FileTriplets(read_triplets(path), dataset_dir),
        image_size=image_size,
        batch_size=batch_size,
        augmentation=augmentation,
        shuffle=shuffle,
        seed=seed,
        skip_broken=skip_broken,
    )
    # As numbers, roles could be taken for classes.
    return source.dataset(epoch).map(
        lambda images, roles: (images, tf.one_hot(roles, len(COLUMNS), dtype=tf.int32))
    )


@dataclass(eq=False)
class TripletSource(AugmentedImages):
    """The batches of each epoch over triplets.

    With `steps_per_epoch`, an epoch continues the pass of the epoch before, so that all triplets
    come equally often.

    Attributes:
        triplets: the triplets of each epoch.
        batch_size: images a batch, a multiple of 3.
        shuffle: whether to permute the triplets of an epoch.

    Raises:
        InputError: as `triplet_dataset`.
    """

    rows_together = len(COLUMNS)

    triplets: EpochTriplets
    _: KW_ONLY
    batch_size: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        """Check the size of a batch, and that the images exist."""
        if self.batch_size < 3 or self.batch_size % 3:
            raise InputError(
                "batch_size must be a multiple of 3, as rows are query, positive and negative in "
                f"turn. Received: {self.batch_size}"
            )
        super().__post_init__()
        self.triplets_per_batch = self.batch_size // 3
        self.paths = self.triplets.paths
        self.description = self.triplets.description
        self.broken_images = self.triplets.find_missing(skip_broken=self.skip_broken)

    @property
    def num_batches(self) -> int:
        """Batches an epoch, with nothing left out."""
        return self.steps_per_epoch or -(-len(self.triplets) // self.triplets_per_batch)

    @property
    def broken(self) -> set[int]:
        """With `skip_broken`, the numbers of the images (or triplets) that were left out so far."""
        return self.triplets.left_out(self.broken_images)

    def prepare(self, epoch: int, model: Any) -> None:
        """Choose the triplets of an epoch; see `EpochTriplets.prepare`."""
        self.triplets.prepare(epoch, model)

    def dataset(self, epoch: int) -> tf.data.Dataset:
        """Return the batches of one epoch.

        Returns:
            Dataset of (images, roles) as of `triplet_dataset`, but roles are int32 (rows,): 0
            query, 1 positive, 2 negative.
        """
        triplets = self._of_epoch(epoch)

        def read(batch: int) -> list[Array]:
            begin = batch * self.triplets_per_batch
            end = min(begin + self.triplets_per_batch, len(triplets))
            images = self._read_batch(triplets, range(begin, end), epoch)
            roles = np.arange(len(images), dtype=np.int32) % 3
            return self.share.filled([images, roles], end - begin, 3)

        num_batches = -(-len(triplets) // self.triplets_per_batch)
        roles = tf.TensorSpec((None,), tf.int32)
        return self._batches(read, num_batches, [image_spec(self.image_size), roles])

    def digest(self, epoch: int) -> str:
        """Return a digest of the triplets of an epoch, in order, in hex digits."""
        triplets = self._of_epoch(epoch)
        return hashlib.sha256(triplets.rows[triplets.order].tobytes()).hexdigest()

    def first_rows(self, epoch: int, count: int) -> list[UInt8Array]:
        """Return the images of the first `count` triplets of an epoch, as the network sees them.

        Returns:
            For each triplet uint8 (3, image_size, image_size, 3): query, positive, negative.

        Raises:
            InputError: an image is missing or broken, without `skip_broken`.
        """
        triplets = self._of_epoch(epoch)
        images = self._read_whole(triplets, range(min(count, len(triplets))), epoch)
        if not len(images):
            images = self._read_next_whole(triplets, count, epoch)
        return np.split(images, len(images) // 3)

    def _of_epoch(self, epoch: int) -> OrderedTriplets:
        count = None
        if self.steps_per_epoch is not None:
            count = self.steps_per_epoch * self.triplets_per_batch
        return self.triplets.of_epoch(epoch, count=count, seed=self.seed, shuffle=self.shuffle)

    def _read_batch(self, triplets: OrderedTriplets, positions: range, epoch: int) -> UInt8Array:
        """Read this host's images of one batch: uint8 (3 * triplets, size, size, 3).

        No batch may be empty. If all its triplets are broken, the first host reads the next whole
        one in their place.
        """
        images = self._read_whole(triplets, positions[self.share.of(len(positions))], epoch)
        if len(images) or len(self._read_whole(triplets, positions, epoch)) or self.share.first:
            return images
        return self._read_next_whole(triplets, positions.stop, epoch)

    def _read_next_whole(self, triplets: OrderedTriplets, begin: int, epoch: int) -> UInt8Array:
        """Read the next triplet whose images are whole, at a position or later: 3 images."""
        images = np.empty((3, self.image_size, self.image_size, 3), np.uint8)
        following = (*range(begin, len(triplets)), *range(min(begin, len(triplets))))
        if not any(self._read_triplet(triplets, each, epoch, images) for each in following):
            raise InputError(f"{self.triplets.name}: every triplet has a missing or broken image")
        return images

    def _read_whole(self, triplets: OrderedTriplets, positions: range, epoch: int) -> UInt8Array:
        """Read the triplets at positions whose images are whole."""
        images = np.empty((3 * len(positions), self.image_size, self.image_size, 3), np.uint8)
        filled = 0
        for position in positions:
            if self._read_triplet(triplets, position, epoch, images[filled : filled + 3]):
                filled += 3
        return images[:filled]

    def _read_triplet(
        self, triplets: OrderedTriplets, position: int, epoch: int, images: UInt8Array
    ) -> bool:
        """Read three images into `images`; return False if one is broken and left out."""
        numbers = triplets.images(position)
        if not self.broken_images.isdisjoint(numbers):
            return False
        try:
            if not self._read_views(numbers, images, [self.seed, epoch, position, 1]):
                return False
        except InputError as error:
            raise self.triplets.error_at(int(triplets.order[position]), error) from None
        if self.save_dir is not None and position < NUM_SAVED_TRIPLETS:
            for role, image in zip(COLUMNS, images, strict=True):
                Image.fromarray(image).save(self.save_dir / f"{position + 1:04}_{role}.png")
        return True
