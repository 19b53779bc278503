"""The base of losses of a batch of labelled images: labels, int (batch,); embeddings, (batch, dim).

Each row is a query. Its positives and negatives are the other rows, by their labels. If there is a
cross-batch memory, embeddings of earlier batches are further references (Wang et al. 2020).
"""

from abc import ABC, abstractmethod
from typing import Any

import keras
from keras import ops

from deep_ranking.files import InputError
from deep_ranking.losses.class_labels import class_numbers
from deep_ranking.losses.mining import EMPTY, label_masks


def weighted_mean(values: Any, weights: Any) -> Any:
    """Return the mean of values by weights of 0 or more, same shape: a scalar, 0 if all are 0."""
    total = ops.sum(weights)
    return ops.sum(weights * values) / ops.where(total > 0, total, 1.0)


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


class BatchLoss(keras.losses.Loss, ABC):
    """A loss of each query against its references: the batch and, if there is one, the memory.

    Labels are class numbers: whole, 0 or more, and below 2^24, since Keras casts them to float32.
    Others are refused: by an `InputError` in eager calls, and by TensorFlow's
    `InvalidArgumentError` with the same text in a graph, as `fit` runs it. With `jit_compile`, XLA
    leaves out the check of values: the loss is then NaN, and its gradient 0. Labels that are not
    one number a row, such as the roles of `triplet_dataset`, are refused in any case.

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
        """Return the loss of labels, (batch,), and embeddings, (batch, dim): a scalar.

        Raises:
            InputError: the labels are no class numbers, one a row; see the class.
        """
        labels, are_right = class_numbers(y_true, y_pred.shape[0])  # (batch,)
        references, reference_labels = y_pred, labels
        if self.memory is not None:
            references, reference_labels = self.memory.references_for(y_pred, labels)
            self.memory.remember(y_pred, labels)
        same, different = label_masks(labels, reference_labels)  # (batch, references)
        loss = self.compare(y_pred, references, same, different)
        # Where XLA has left out the check of the labels. No weight has a gradient then.
        return ops.where(are_right, loss, float("nan"))

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
