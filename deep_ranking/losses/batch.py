"""The base of losses of a batch of labelled images: labels, int (batch,); embeddings, (batch, dim).

Each row is a query. Its positives and negatives are the other rows, and those of earlier batches
if there is a memory, by their labels.
"""

from abc import ABC, abstractmethod
from typing import Any

import keras
from keras import ops

from deep_ranking.files import InputError
from deep_ranking.losses.memory import CrossBatchMemory
from deep_ranking.losses.mining import label_masks


def weighted_mean(values: Any, weights: Any) -> Any:
    """Return the mean of values by weights of 0 or more, same shape: a scalar, 0 if all are 0."""
    total = ops.sum(weights)
    return ops.sum(weights * values) / ops.where(total > 0, total, 1.0)


class BatchLoss(keras.losses.Loss, ABC):
    """A loss of each query against its references: the batch and, if there is one, the memory.

    The value is a scalar, so `reduction` changes nothing. Each call fills the memory, also in
    evaluation: evaluate with a separate loss, or reset the memory afterwards.

    Args:
        memory: how many embeddings of earlier batches to keep as references; 0 for none.
        embedding_size: length of an embedding; needed for a memory.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self, memory: int, embedding_size: int | None, name: str | None, **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        if memory < 0:
            raise InputError(f"memory must be 0 or more. Received: memory={memory}")
        if memory and embedding_size is None:
            raise InputError(
                "a memory needs the length of an embedding. "
                f"Received: memory={memory}, embedding_size=None"
            )
        self.memory: CrossBatchMemory | None = None
        self.embedding_size = embedding_size
        if memory and embedding_size is not None:
            # Here, not in the first call: a compiled step cannot create variables.
            self.memory = CrossBatchMemory(memory, embedding_size)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of labels, int (batch,), and embeddings, (batch, dim): a scalar."""
        # Keras passes labels as floats, exact up to 2^24.
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")  # (batch,)
        references, reference_labels = y_pred, labels
        if self.memory is not None:
            references, reference_labels = self.memory.references_for(y_pred, labels)
            self.memory.remember(y_pred, labels)
        same, different = label_masks(labels, reference_labels)  # (batch, references)
        return self.compare(y_pred, references, same, different)

    @abstractmethod
    def compare(self, embeddings: Any, references: Any, same: Any, different: Any) -> Any:
        """Return the loss.

        Args:
            embeddings: float tensor (batch, dim), the queries.
            references: float tensor (references, dim); it begins with `embeddings`.
            same: bool tensor (batch, references), the positives.
            different: bool tensor (batch, references), the negatives.

        Returns:
            Float tensor (); 0 where there is nothing to compare.
        """

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that Keras rebuilds the loss from, its memory empty."""
        return {
            **super().get_config(),
            "memory": 0 if self.memory is None else self.memory.size,
            "embedding_size": self.embedding_size,
        }
