"""Which images share a batch where no triplets are sampled beforehand."""

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError


class ClassBatches:
    """Batches of P classes with K images of each, all of whose triplets can be learned from.

    Args:
        labels: integers (images,).
        batch_size: images a batch, P times K. With fewer than P classes, a batch has all of them;
            a class with fewer than K images gives all that it has.
        images_per_class: K.
        seed: with epoch and step, decides what is drawn.

    Raises:
        InputError: there are fewer than two classes, or no class has two images.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.integer],
        *,
        batch_size: int,
        images_per_class: int,
        seed: int,
    ) -> None:
        order = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[order])) + 1
        self._images = np.split(order, starts)
        if len(self._images) < 2:
            raise InputError(
                f"batches need images of two classes or more. Received: {len(self._images)}"
            )
        if max(map(len, self._images)) < 2:
            raise InputError("no class has two images, so there is no positive for any query")
        self.num_classes = min(batch_size // images_per_class, len(self._images))
        self.images_per_class = images_per_class
        self._seed = seed

    @property
    def num_images(self) -> int:
        """Images of a batch, if none of its classes has too few."""
        return self.num_classes * self.images_per_class

    def draw(self, epoch: int, step: int) -> npt.NDArray[np.int64]:
        """Draw one batch.

        Returns:
            int64 (rows,): indices of images, none twice, those of a class one after the other.
        """
        rng = np.random.default_rng([self._seed, epoch, step, 2])
        classes = rng.choice(len(self._images), self.num_classes, replace=False)
        drawn = []
        for number in classes:
            images = self._images[number]
            count = min(self.images_per_class, len(images))
            drawn.append(rng.choice(images, count, replace=False))
        return np.concatenate(drawn)
