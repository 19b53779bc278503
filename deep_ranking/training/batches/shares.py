"""Which rows of each batch a host reads when several hosts train together.

A batch is the same for any number of hosts. Its devices get equally many units (triplets, or rows)
in turn, so the last ones may get fewer, or none. A host fills up what its devices lack, and what it
left out because an image is broken; the label `REPEATED` keeps these rows out of loss and metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deep_ranking.embedding.batches import Array

REPEATED = -1


@dataclass(frozen=True)
class Share:
    """The part of a batch that a host reads.

    Attributes:
        first: number of its first device among those of all hosts.
        own: number of its devices.
        count: number of devices of all hosts.
    """

    first: int
    own: int
    count: int

    def of(self, num_units: int) -> slice:
        """Return which of a batch's units the host reads: maybe none."""
        each = -(-num_units // self.count)
        return slice(self.first * each, (self.first + self.own) * each)

    def filled(self, arrays: Sequence[Array], num_units: int, unit_rows: int = 1) -> list[Array]:
        """Return a host's rows of a batch, filled up to what its devices take.

        Args:
            arrays: the rows that it read, (rows, ...); the last array are their labels.
            num_units: units of the whole batch, with nothing left out.
            unit_rows: rows of a unit, 3 for triplets.
        """
        if self.count == 1:
            return list(arrays)
        wanted = -(-num_units // self.count) * self.own * unit_rows
        missing = wanted - len(arrays[-1])
        *inputs, labels = arrays
        return [
            *(_repeated(each, wanted) for each in inputs),
            np.concatenate([labels, np.full(missing, REPEATED, labels.dtype)]),
        ]


# A host alone reads all rows.
WHOLE = Share(0, 1, 1)


def _repeated(rows: Array, count: int) -> Array:
    """Return rows, over and over, up to a count; zeros if there is none."""
    if not len(rows):
        return np.zeros((count, *rows.shape[1:]), rows.dtype)
    return rows[np.arange(count) % len(rows)]
