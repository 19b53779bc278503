"""Relevance as nearness in a tree of folders."""

from collections.abc import Sequence

import numpy as np

from deep_ranking.files.array_types import Float64Array, Int64Array
from deep_ranking.sampling.relevance.base import Relevance


class FolderTree(Relevance):
    """Share of the folders that two images have in common, from the root on.

    r_ij is the number of leading folders that both lie in, divided by the depth of the deeper one:
    1 in the same folder, 2/3 for a/b/c and a/b/d, 0 where the first folders differ.

    Args:
        paths: image paths relative to the root, with "/" between folders.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        folders = [path.split("/")[:-1] for path in paths]
        depth = max(map(len, folders), default=0)
        self._depths = np.array([max(1, len(each)) for each in folders])
        # The folder of each depth that an image lies in, by number; -1 below its own.
        self._folders = np.full((len(folders), depth), -1, np.int32)
        numbers: dict[tuple[int, str], int] = {}
        for row, names in enumerate(folders):
            inside = -1
            for column, name in enumerate(names):
                inside = numbers.setdefault((inside, name), len(numbers))
                self._folders[row, column] = inside

    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Give shares of common folders."""
        shared = np.zeros((len(queries), len(candidates)))
        for column in self._folders.T:
            left = column[queries][:, None]
            shared += (left == column[candidates]) & (left >= 0)
        deeper = np.maximum(self._depths[queries][:, None], self._depths[candidates])
        return np.asarray(shared / deeper)
