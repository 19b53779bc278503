"""How relevant images are to each other, whatever says so."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float64Array, Int64Array

# Images that each is compared with for its total, at most: so the time is in proportion to the
# images, and not to their square.
MAX_REFERENCES = 1024
QUERIES_AT_ONCE = 1024


class Relevance(ABC):
    """Pairwise relevance r_ij of numbered images."""

    @abstractmethod
    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Give r_ij.

        Args:
            queries: int (queries,), numbers of images.
            candidates: int (candidates,).

        Returns:
            Float (queries, candidates), 0 or more; symmetric; of an image with itself, anything.
        """

    def totals(self, categories: npt.NDArray[np.integer], seed: int = 0) -> Float64Array:
        """Give r_i, the sum of r_ij over the other images j of i's category.

        In categories of more than `MAX_REFERENCES` images it is estimated from as many of them.

        Args:
            categories: integers (images,).
            seed: decides which images stand for a large category.

        Returns:
            Float (images,).
        """
        totals = np.zeros(len(categories))
        rng = np.random.default_rng([seed, 6])
        order = np.argsort(categories, kind="stable")
        starts = np.flatnonzero(np.diff(categories[order])) + 1
        for images in np.split(order, starts):
            references = images
            if len(images) > MAX_REFERENCES:
                references = np.sort(rng.choice(images, MAX_REFERENCES, replace=False))
            for begin in range(0, len(images), QUERIES_AT_ONCE):
                queries = images[begin : begin + QUERIES_AT_ONCE]
                scores = self.scores(queries, references)
                itself = queries[:, None] == references
                others = len(references) - itself.sum(axis=1)
                sums = np.where(itself, 0, scores).sum(axis=1)
                totals[queries] = sums * (len(images) - 1) / np.maximum(others, 1)
        return totals
