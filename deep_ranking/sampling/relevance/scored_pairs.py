"""Relevance that somebody gave: a CSV file of two paths and a score a line."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deep_ranking.datasets.tables import read_table
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, Int64Array
from deep_ranking.sampling.relevance.base import Relevance

COLUMNS = ("path1", "path2", "score")


class ScoredPairs(Relevance):
    """Given scores; two images that nobody compared have none, 0.

    Args:
        pairs: integers (pairs, 2), numbers of two images, in either order; each pair once.
        scores: float (pairs,), 0 or more.
        num_images: how many images there are.
    """

    def __init__(
        self, pairs: npt.NDArray[np.integer], scores: Float64Array, num_images: int
    ) -> None:
        self._num_images = num_images
        both = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64)
        self._keys = both[:, 0] * num_images + both[:, 1]
        order = np.argsort(self._keys, kind="stable")
        self._keys = self._keys[order]
        self._scores = np.concatenate([scores, scores])[order]

    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Give scores."""
        keys = queries[:, None] * self._num_images + candidates
        if not len(self._keys):
            return np.zeros(keys.shape)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._scores[place], 0)

    def totals(self, categories: npt.NDArray[np.integer], seed: int = 0) -> Float64Array:
        """Give sums over the pairs of a category: exact, in proportion to their number."""
        query, other = np.divmod(self._keys, self._num_images)
        inside = (categories[query] == categories[other]) & (query != other)
        sums = np.bincount(query[inside], self._scores[inside], self._num_images)
        return np.asarray(sums, float)


def read_scored_pairs(file: Path, paths: Sequence[str]) -> ScoredPairs:
    """Read a file of lines `path,path,score`; a pair counts in both orders.

    Args:
        file: the file; its paths are written as those of the images are. Pairs with an image that
            is not among them are left out.
        paths: of the images, as they are numbered.

    Raises:
        InputError: with path and line: a score is no number of 0 or more, a pair has two scores;
            or no pair is of these images.
    """
    numbers = {path: number for number, path in enumerate(paths)}
    found: dict[tuple[int, int], float] = {}
    for line, row in read_table(file, COLUMNS, num_required=3):
        try:
            score = float(row["score"])
        except ValueError:
            if line == 1:  # names of the columns, whatever they are
                continue
            score = math.nan
        if not 0 <= score < math.inf:
            raise InputError(
                f"{file}:{line}: expected a score of 0 or more, received {row['score']}"
            )
        first, second = numbers.get(row["path1"], -1), numbers.get(row["path2"], -1)
        if first < 0 or second < 0 or first == second:
            continue
        pair = (min(first, second), max(first, second))
        if found.setdefault(pair, score) != score:
            raise InputError(f"{file}:{line}: {row['path1']} and {row['path2']} have two scores")
    if not found:
        raise InputError(
            f"{file}: no pair in it is of two of these images; expected path,path,score with paths "
            f"like {paths[0]}"
        )
    return ScoredPairs(np.array(list(found)), np.array(list(found.values())), len(paths))
