"""The rows of all shards under their numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.search.index.base import read_rows
from deep_ranking.search.shards.shard import STRIDE, Shard


class ShardedRows:
    """The rows of all shards: those of shard i have the numbers from i * STRIDE on.

    It is indexed as an array is, by a slice or an array of numbers that exist.

    Args:
        shards: the shards.
        dimension: floats in a row.

    Attributes:
        shape: (the number after the last one, dimension).
    """

    def __init__(self, shards: Sequence[Shard], dimension: int) -> None:
        self._shards = {shard.place.number: shard for shard in shards}
        last = shards[-1]
        self.shape: tuple[int, int] = (last.first_row + len(last.embeddings), dimension)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Float32Array:
        """Read rows.

        Raises:
            ShardError: some are damaged.
        """
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        numbers: Int64Array = np.asarray(index, np.int64)
        found = np.empty((len(numbers), self.shape[1]), np.float32)
        owners = numbers // STRIDE
        for number in np.unique(owners).tolist():
            shard, own = self._shards[number], owners == number
            with shard.place.named_in_errors():
                found[own] = read_rows(shard.embeddings, numbers[own] - shard.first_row)
        return found
