"""Batches of some images of each of some classes, for training without sampled triplets."""

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array, IntArray


class ClassBatches:
    """Batches of P classes with K images of each; all triplets in a batch can be learned from.

    Args:
        labels: integers (images,).
        batch_size: images in a batch, P times K. With fewer than P classes, a batch has all
            classes; from a class with fewer than K images, it has all images.
        images_per_class: K.
        seed: with epoch and step, decides the draw.

    Raises:
        InputError: there are fewer than two classes, or no class has two images.
    """

    def __init__(
        self, labels: IntArray, *, batch_size: int, images_per_class: int, seed: int
    ) -> None:
        order = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[order])) + 1
        self._images = np.split(order, starts)
        if len(self._images) < 2:
            raise InputError(
                f"batches need images of two classes or more. Received: {len(self._images)}"
            )
        if max(map(len, self._images)) < 2:
            raise InputError("no class has two images, so no query has a positive")
        self.num_classes = min(batch_size // images_per_class, len(self._images))
        self.images_per_class = images_per_class
        self._seed = seed

    @property
    def num_images(self) -> int:
        """Number of images in a batch, if each of its classes has enough."""
        return self.num_classes * self.images_per_class

    def draw(self, epoch: int, step: int) -> Int64Array:
        """Draw one batch.

        Returns:
            int64 (rows,): indices of images, each once, those of a class together.
        """
        rng = np.random.default_rng([self._seed, epoch, step, 2])
        classes = rng.choice(len(self._images), self.num_classes, replace=False)
        drawn = []
        for number in classes:
            images = self._images[number]
            count = min(self.images_per_class, len(images))
            drawn.append(rng.choice(images, count, replace=False))
        return np.concatenate(drawn)
