"""Groups of duplicates: which images stand for which."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deep_ranking.datasets.not_duplicates import Pair
from deep_ranking.files.stored_rows import Rows
from deep_ranking.metrics import pair_distances
from deep_ranking.search.keeper import DuplicateImage, choose_keeper
from deep_ranking.search.links import THROUGH_A_LINK


@dataclass(frozen=True)
class DuplicateGroup:
    """An image to keep, and its duplicates: one or more images that are near it.

    Attributes:
        images: the one to keep, then the others, by their distance to it and by path.
    """

    images: tuple[DuplicateImage, ...]

    @property
    def keeper(self) -> DuplicateImage:
        """The image to keep."""
        return self.images[0]

    @property
    def others(self) -> tuple[DuplicateImage, ...]:
        """The other images."""
        return self.images[1:]

    @property
    def movable(self) -> tuple[DuplicateImage, ...]:
        """The images that could go: the others, except those that a link leads to or through."""
        return tuple(image for image in self.others if not image.why_it_stays)

    @property
    def labels(self) -> list[str]:
        """The classes of the images, sorted; not that of images without one."""
        return sorted({image.label for image in self.images if image.label})


def split_chain(
    members: Sequence[DuplicateImage],
    embeddings: Rows,
    threshold: float,
    not_duplicates: Container[Pair],
    told_apart: set[Pair],
) -> Iterator[DuplicateGroup]:
    """Split images that a chain connects into groups, each of images near its own keeper.

    Those that are near and were told apart from the keeper are left for the next group; the pairs
    are added to `told_apart`.
    """
    left = list(members)
    while len(left) > 1:
        # What a link leads to cannot be vouched for: better to keep a file of the collection.
        files = [image for image in left if image.why_it_stays != THROUGH_A_LINK]
        keeper = choose_keeper(files or left)
        rows = np.array([image.row for image in left], np.int64)
        distances = pair_distances(embeddings, embeddings, rows, np.full_like(rows, keeper.row))
        is_equal = rows == keeper.row  # equal files share a row
        near = (distances < threshold) | is_equal
        for place in np.flatnonzero(near & ~is_equal).tolist():
            pair = frozenset((keeper.path, left[place].path))
            if pair in not_duplicates:
                near[place] = False
                told_apart.add(pair)
        images = [
            replace(image, distance=distance, is_keeper=image is keeper)
            for image, distance, is_near in zip(left, distances.tolist(), near, strict=True)
            if is_near
        ]
        images.sort(key=lambda image: (not image.is_keeper, image.distance, image.path))
        if len(images) > 1:
            yield DuplicateGroup(tuple(images))
        left = [image for image, is_near in zip(left, near, strict=True) if not is_near]
