"""Batches of some images of each of some classes, for training without sampled triplets."""

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Int64Array, IntArray


class ClassBatches:
    """Batches of P classes with K images of each; all triplets in a batch can be learned from.

    Args:
        labels: integers (images,).
        batch_size: images in a batch, P times K. With fewer than P classes, a batch has all
            classes; from a class with fewer than K images, it has all images.
        images_per_class: K.
        seed: with epoch and step, decides the draw.
        gallery: bool (images,), which images are of the gallery's domain. Half of the images of a
            class come from each domain, or more from one where the other has too few. None for one
            domain.
        categories: integers (images,), the category of each image's class. Classes of one category
            share a batch, as far as they fill half of it. None to draw classes from all alike.

    Attributes:
        gallery: bool (images,), which images are of the gallery's domain; none of one domain.

    Raises:
        InputError: there are fewer than two classes, or no class has two images.
    """

    def __init__(
        self,
        labels: IntArray,
        *,
        batch_size: int,
        images_per_class: int,
        seed: int,
        gallery: BoolArray | None = None,
        categories: IntArray | None = None,
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
        self.gallery = np.zeros(len(labels), bool) if gallery is None else gallery
        self._category_of_class = None
        if categories is not None:
            self._category_of_class = np.array([categories[each[0]] for each in self._images])
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
        return np.concatenate(
            [self._draw_images(rng, self._images[number]) for number in self._draw_classes(rng)]
        )

    def _draw_classes(self, rng: np.random.Generator) -> Int64Array:
        if self._category_of_class is None:
            return rng.choice(len(self._images), self.num_classes, replace=False)
        order = rng.permutation(len(self._images))
        order = order[np.argsort(self._category_of_class[order], kind="stable")]
        starts = np.flatnonzero(np.diff(self._category_of_class[order])) + 1
        most = max(2, self.num_classes // 2)
        groups = [
            group[begin : begin + most]
            for group in np.split(order, starts)
            for begin in range(0, len(group), most)
        ]
        shuffled = [groups[number] for number in rng.permutation(len(groups))]
        drawn: Int64Array = np.concatenate(shuffled)[: self.num_classes]
        return drawn

    def _draw_images(self, rng: np.random.Generator, images: Int64Array) -> Int64Array:
        """Draw images of a class, of both domains alike as far as it has them."""
        count = min(self.images_per_class, len(images))
        in_gallery = self.gallery[images]
        domains = [images[~in_gallery], images[in_gallery]]
        from_gallery = min(count // 2, len(domains[1]))
        from_gallery = max(from_gallery, count - len(domains[0]))
        counts = (count - from_gallery, from_gallery)
        return np.concatenate(
            [
                rng.choice(each, number, replace=False)
                for each, number in zip(domains, counts, strict=True)
                if number
            ]
        )
