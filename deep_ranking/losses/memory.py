"""Cross-batch memory: embeddings of earlier batches as more references (Wang et al. 2020)."""

from typing import Any

import keras
from keras import ops

from deep_ranking.files import InputError

EMPTY = -1


class CrossBatchMemory:
    """The latest embeddings and labels, first in, first out (Wang et al. 2020, algorithm 1).

    Embeddings drift slowly, so those of earlier batches stand in for what the network would return
    now, at no cost but memory. Kept rows have no gradient. They live in variables, so that a
    compiled training step can change them, and are not saved with a model.

    Args:
        size: how many embeddings to keep, 1 or more.
        dim: length of an embedding, 1 or more.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(self, size: int, dim: int) -> None:
        if size < 1:
            raise InputError(f"size of a memory must be 1 or more. Received: size={size}")
        if dim < 1:
            raise InputError(f"dim of a memory must be 1 or more. Received: dim={dim}")
        self.size = size
        self.dim = dim
        # Oldest first.
        self.embeddings = keras.Variable(
            ops.zeros((size, dim)),
            trainable=False,
            aggregation="only_first_replica",  # all devices remember the same rows
            name="memory_embeddings",
        )
        self.labels = keras.Variable(
            ops.full((size,), EMPTY, dtype="int32"),
            dtype="int",  # the integer type that the backend can keep on an accelerator
            trainable=False,
            aggregation="only_first_replica",
            name="memory_labels",
        )

    def references_for(self, embeddings: Any, labels: Any) -> tuple[Any, Any]:
        """Return the rows of a batch, followed by those in memory.

        Args:
            embeddings: float tensor (batch, dim).
            labels: int tensor (batch,), 0 or more.

        Returns:
            Float tensor (batch + size, dim) and int tensor (batch + size,); the label is `EMPTY`
            where nothing is kept yet.
        """
        kept = ops.stop_gradient(ops.cast(self.embeddings, embeddings.dtype))
        kept_labels = ops.cast(self.labels, labels.dtype)
        return ops.concatenate([embeddings, kept]), ops.concatenate([labels, kept_labels])

    def remember(self, embeddings: Any, labels: Any) -> None:
        """Replace the oldest rows with a batch; keep only the last `size` rows of a larger one.

        Args:
            embeddings: float tensor (batch, dim).
            labels: int tensor (batch,), 0 or more.
        """
        embeddings = ops.cast(ops.stop_gradient(embeddings), self.embeddings.dtype)
        labels = ops.cast(labels, self.labels.dtype)
        rows = ops.concatenate([ops.convert_to_tensor(self.embeddings), embeddings])
        row_labels = ops.concatenate([ops.convert_to_tensor(self.labels), labels])
        # The reshape fixes the number of rows, unknown while the batch size is.
        self.embeddings.assign(ops.reshape(rows[-self.size :], (self.size, self.dim)))
        self.labels.assign(ops.reshape(row_labels[-self.size :], (self.size,)))

    def reset(self) -> None:
        """Forget everything."""
        self.embeddings.assign(ops.zeros((self.size, self.dim)))
        self.labels.assign(ops.full((self.size,), EMPTY, dtype=self.labels.dtype))
