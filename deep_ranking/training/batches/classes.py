"""Labelled images -> `tf.data` batches of P classes with K images of each, and their labels.

The batches of an epoch depend on (seed, epoch) alone.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from deep_ranking.embedding.batches import Array, BatchSource, image_spec
from deep_ranking.embedding.cached_features import Features
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array, UInt8Array
from deep_ranking.sampling import ClassBatches
from deep_ranking.training.batches.augmented import AugmentedImages

NUM_SAVED_IMAGES = 300
LABELS = tf.TensorSpec((None,), tf.int32)


@dataclass(eq=False)
class ClassSource(AugmentedImages):
    """The batches of each epoch over images of labelled classes.

    Attributes:
        paths: image files.
        labels: integers (images,).
        batches: which images share a batch.
    """

    paths: Sequence[str | os.PathLike[str]]
    labels: npt.NDArray[np.integer]
    _: KW_ONLY
    batches: ClassBatches

    def __post_init__(self) -> None:
        """Count the batches."""
        super().__post_init__()
        self.labels = np.asarray(self.labels, np.int32)
        self.num_batches = self.steps_per_epoch or -(-len(self.paths) // self.batches.num_images)
        self.description = _description(self.labels, self.batches)

    def dataset(self, epoch: int) -> tf.data.Dataset:
        """Return the batches of one epoch.

        Returns:
            Dataset of (images, labels): float32 (rows, image_size, image_size, 3), RGB in
            [0, 255], and int32 (rows,).
        """

        def read(step: int) -> list[Array]:
            drawn = self.batches.draw(epoch, step)
            own = self.share.of(len(drawn))
            rows = self._read_rows(drawn[own], step, epoch, first=own.start)
            return self.share.filled(rows, len(drawn))

        return self._batches(read, self.num_batches, [image_spec(self.image_size), LABELS])

    def digest(self, epoch: int) -> str:
        """Return a digest of which images the first batch of an epoch has, in hex digits."""
        return hashlib.sha256(
            self.batches.draw(epoch, 0).tobytes() + self.labels.tobytes()
        ).hexdigest()

    def first_rows(self, epoch: int, count: int) -> list[UInt8Array]:
        """Return the images of the first `count` classes of an epoch, as the network sees them.

        Returns:
            For each class uint8 (images, image_size, image_size, 3).

        Raises:
            InputError: an image is missing or broken, without `skip_broken`.
        """
        drawn = self.batches.draw(epoch, 0)[: count * self.batches.images_per_class]
        images, labels = self._read_rows(drawn, 0, epoch)
        return split_by_class(images, labels)[:count]

    def _read_rows(
        self, drawn: Int64Array, step: int, epoch: int, *, first: int = 0
    ) -> list[Array]:
        """Read images and labels of rows of a batch, `first` and on, without the broken ones."""
        images = np.empty((len(drawn), self.image_size, self.image_size, 3), np.uint8)
        whole = [
            self._read(int(number), first + row, step, epoch, images[row])
            for row, number in enumerate(drawn)
        ]
        return [images[whole], self.labels[drawn[whole]]]

    def _read(self, number: int, row: int, step: int, epoch: int, image: UInt8Array) -> bool:
        """Read an image into `image`; return False if it is broken and left out."""
        try:
            if not self._read_views([number], image[None], [self.seed, epoch, step, row, 3]):
                return False
        except InputError as error:
            raise InputError(
                f"{error}; repair the image, or leave such images out with --skip_broken"
            ) from None
        position = step * self.batches.num_images + row
        if self.save_dir is not None and position < NUM_SAVED_IMAGES:
            name = f"{position + 1:04}_class_{self.labels[number]}.png"
            Image.fromarray(image).save(self.save_dir / name)
        return True


@dataclass(eq=False)
class FeatureSource(BatchSource):
    """The batches of each epoch over cached features, with a random cached view of each image.

    Attributes:
        features: the cached features of the images.
        labels: integers (images,).
        batches: which images share a batch; images without features are left out.
        steps_per_epoch: as for `ClassSource`.
        seed: with the epoch, decides which views.
    """

    features: Features
    labels: npt.NDArray[np.integer]
    _: KW_ONLY
    batches: ClassBatches
    steps_per_epoch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Count the batches, and find the images without features."""
        self.labels = np.asarray(self.labels, np.int32)
        self.num_batches = self.steps_per_epoch or -(-len(self.labels) // self.batches.num_images)
        self.broken = set(np.flatnonzero((self.features.rows < 0).all(axis=1)).tolist())
        self.description = (
            f"{_description(self.labels, self.batches)}, cached features of "
            f"{self.features.rows.shape[1]} views each"
        )

    def dataset(self, epoch: int) -> tf.data.Dataset:
        """Return the batches of one epoch.

        Returns:
            Dataset of (features, labels): a tuple of float32 (rows, ...), one for each input of
            the model that takes the features, and int32 (rows,).
        """

        def read(step: int) -> list[Array]:
            drawn, views = self.draw(epoch, step)
            return [*self.features.read(drawn, views), self.labels[drawn]]

        specs = [tf.TensorSpec((None, *shape), tf.float16) for shape in self.features.shapes]
        batches = self._batches(read, self.num_batches, [*specs, LABELS])
        return batches.map(lambda *arrays: (arrays[:-1], arrays[-1]))

    def draw(self, epoch: int, step: int) -> tuple[Int64Array, Int64Array]:
        """Draw one batch: int64 (rows,) indices of images, and the view of each."""
        drawn = self.batches.draw(epoch, step)
        rng = np.random.default_rng([self.seed, epoch, step, 4])
        views = rng.integers(self.features.rows.shape[1], size=len(drawn))
        whole = self.features.rows[drawn, views] >= 0
        return drawn[whole], views[whole]


def split_by_class(images: UInt8Array, labels: npt.NDArray[np.integer]) -> list[UInt8Array]:
    """Split the images of a batch, in which those of a class are adjacent, by class."""
    return np.split(images, np.flatnonzero(np.diff(labels)) + 1)


def _description(labels: npt.NDArray[np.integer], batches: ClassBatches) -> str:
    return (
        f"{len(labels):,} images of {len(np.unique(labels)):,} classes, in batches of "
        f"{batches.num_classes} classes with {batches.images_per_class} images"
    )
