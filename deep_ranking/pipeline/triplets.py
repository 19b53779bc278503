"""Triplet file -> `tf.data` batches whose rows 3i, 3i + 1, 3i + 2 are one triplet.

Shuffling moves triplets, never images. What an epoch holds depends on (seed, epoch) alone, so that
a run can go on at any epoch: `TripletSource.dataset(epoch)`.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from deep_ranking.augmentation import Augmentation, draw_views
from deep_ranking.errors import InputError
from deep_ranking.files import make_folder
from deep_ranking.images import read_image
from deep_ranking.pipeline.batches import Array, BatchSource, image_spec
from deep_ranking.triplets import COLUMNS, Triplets, read_triplets, resolve_paths

UInt8Array = npt.NDArray[np.uint8]
Int32Array = npt.NDArray[np.int32]

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
        dataset_dir: folder that the file's paths start from, if not the file's own.
        augmentation: random changes; None for none.
        shuffle: permute all triplets, by (seed, epoch); otherwise the file's order.
        seed: with `epoch`, decides order and augmentation.
        epoch: number of the epoch, from 0.
        skip_broken: leave out a triplet that has a missing or broken image, rather than stop.

    Returns:
        Dataset of (images, roles): float32 (rows, image_size, image_size, 3), RGB in [0, 255], and
        int32 (rows,): 0 query, 1 positive, 2 negative, in turn.

    Raises:
        InputError: the file or an image of it cannot be used, or the batch size is no multiple
            of 3. A broken image shows while iterating, as a `tf.errors.OpError` with its text.
    """
    source = TripletSource(
        read_triplets(path),
        image_size=image_size,
        batch_size=batch_size,
        dataset_dir=dataset_dir,
        augmentation=augmentation,
        shuffle=shuffle,
        seed=seed,
        skip_broken=skip_broken,
    )
    return source.dataset(epoch)


class TripletSource(BatchSource):
    """The batches of each epoch over one triplet file.

    Args:
        triplets: what to read.
        image_size: as for `triplet_dataset`, like all that follow.
        batch_size: images a batch.
        dataset_dir: folder of the paths.
        augmentation: random changes.
        shuffle: whether to permute the triplets of an epoch.
        seed: decides order and augmentation.
        skip_broken: whether to leave broken triplets out.
        steps_per_epoch: batches an epoch; None for one pass over the file. With a number, epochs
            follow each other through one permutation after the other, so that all triplets come up
            equally often.
        save_dir: folder that gets the first 100 triplets an epoch as PNG files, as the network
            sees them.

    Attributes:
        paths: path of each of `triplets.paths`.
        broken: with `skip_broken`, indices of the triplets that were left out so far.

    Raises:
        InputError: as `triplet_dataset`.
    """

    rows_together = len(COLUMNS)

    def __init__(
        self,
        triplets: Triplets,
        *,
        image_size: int,
        batch_size: int,
        dataset_dir: str | os.PathLike[str] | None = None,
        augmentation: Augmentation | None = None,
        shuffle: bool = True,
        seed: int = 0,
        skip_broken: bool = False,
        steps_per_epoch: int | None = None,
        save_dir: Path | None = None,
    ) -> None:
        if batch_size < 3 or batch_size % 3:
            raise InputError(
                "batch_size must be a multiple of 3, as rows are query, positive and negative in "
                f"turn. Received: {batch_size}"
            )
        super().__init__()
        self.image_size = image_size
        self.triplets = triplets
        self.triplets_per_batch = batch_size // 3
        self.augmentation = augmentation
        self.shuffle = shuffle
        self.seed = seed
        self.skip_broken = skip_broken
        self.steps_per_epoch = steps_per_epoch
        self.save_dir = make_folder(save_dir) if save_dir is not None else None
        self.broken: set[int] = set()
        self.paths = resolve_paths(triplets, dataset_dir)
        self._check_images_exist()

    @property
    def num_batches(self) -> int:
        """Batches an epoch, with nothing left out."""
        return self.steps_per_epoch or -(-len(self.triplets) // self.triplets_per_batch)

    @property
    def description(self) -> str:
        """What is trained on, in words."""
        return f"{len(self.triplets):,} triplets of {len(self.triplets.paths):,} images"

    def dataset(self, epoch: int) -> tf.data.Dataset:
        """Give the batches of one epoch, as `triplet_dataset` describes them."""
        order = self._order(epoch)

        def read(batch: int) -> list[Array]:
            begin = batch * self.triplets_per_batch
            end = min(begin + self.triplets_per_batch, len(order))
            images = self._read_batch(order, range(begin, end), epoch)
            return [images, np.arange(len(images), dtype=np.int32) % 3]

        roles = tf.TensorSpec((None,), tf.int32)
        return self._batches(read, self.num_batches, [image_spec(self.image_size), roles])

    def first_rows(self, epoch: int, count: int) -> list[UInt8Array]:
        """Give the images of the first `count` triplets of an epoch, as the network sees them.

        Returns:
            For each triplet uint8 (3, image_size, image_size, 3): query, positive, negative.

        Raises:
            InputError: an image is missing or broken, and its triplet is not to be left out.
        """
        order = self._order(epoch)
        images = self._read_batch(order, range(min(count, len(order))), epoch)
        return np.split(images, len(images) // 3)

    def _order(self, epoch: int) -> Int32Array:
        """Index of each of the epoch's triplets, in order."""
        count = len(self.triplets)
        if self.steps_per_epoch is None:
            return self._permutation(epoch)
        length = self.steps_per_epoch * self.triplets_per_batch
        begin = epoch * length
        passes = range(begin // count, -(-(begin + length) // count))
        pieces = [
            self._permutation(number)[
                max(0, begin - number * count) : min(count, begin + length - number * count)
            ]
            for number in passes
        ]
        return np.concatenate(pieces)

    def _permutation(self, number: int) -> Int32Array:
        order = np.arange(len(self.triplets), dtype=np.int32)
        if self.shuffle:
            np.random.default_rng([self.seed, number]).shuffle(order)
        return order

    def _read_batch(self, order: Int32Array, positions: range, epoch: int) -> UInt8Array:
        """Read the images of one batch: uint8 (3 * triplets, size, size, 3)."""
        images = np.empty((3 * len(positions), self.image_size, self.image_size, 3), np.uint8)
        filled = 0
        for position in positions:
            if self._read_triplet(order, position, epoch, images[filled : filled + 3]):
                filled += 3
        if filled == 0:  # no batch may be empty: it takes the next triplet that is whole
            following = (*range(positions.stop, len(order)), *range(positions.start))
            if not any(self._read_triplet(order, each, epoch, images[:3]) for each in following):
                raise InputError(
                    f"{self.triplets.file}: every triplet has a missing or broken image"
                )
            filled = 3
        return images[:filled]

    def _read_triplet(
        self, order: Int32Array, position: int, epoch: int, images: UInt8Array
    ) -> bool:
        """Read three images into `images`; False if the triplet is to be left out."""
        triplet = int(order[position])
        if triplet in self.broken:
            return False
        rng = np.random.default_rng([self.seed, epoch, position, 1])
        views = draw_views(self.augmentation, rng, 3, self.image_size)
        try:
            for row, view in enumerate(views):
                path = self.paths[self.triplets.rows[triplet, row]]
                images[row] = read_image(path, self.image_size, view)
        except InputError as error:
            if not self.skip_broken:
                raise self._located(triplet, error) from None
            self.broken.add(triplet)
            return False
        if self.save_dir is not None and position < NUM_SAVED_TRIPLETS:
            self._save(self.save_dir, position, images)
        return True

    def _save(self, folder: Path, position: int, images: UInt8Array) -> None:
        for role, image in zip(COLUMNS, images, strict=True):
            path = folder / f"{position + 1:04}_{role}.png"
            Image.fromarray(image).save(path)

    def _check_images_exist(self) -> None:
        """Find missing images before hours of training meet one."""
        missing = np.array([not os.path.exists(path) for path in self.paths])
        if not missing.any():
            return
        triplets = np.flatnonzero(missing[self.triplets.rows].any(axis=1))
        if not self.skip_broken:
            rows = self.triplets.rows[triplets[0]]
            path = self.paths[rows[missing[rows]][0]]
            raise self._located(int(triplets[0]), InputError(f"{path}: no such image"))
        self.broken.update(triplets.tolist())
        if len(self.broken) == len(self.triplets):
            raise InputError(f"{self.triplets.file}: every triplet has a missing image")

    def _located(self, triplet: int, error: InputError) -> InputError:
        return InputError(
            f"{self.triplets.place(triplet)}: {error}; mend the image, or leave such triplets "
            "out with --skip_broken"
        )
