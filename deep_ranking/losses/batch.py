"""Losses of a batch of classes: labels, int (batch,), and embeddings, (batch, dim).

Each row is a query; the other rows, and those of earlier batches if there is a memory, are its
positives and negatives by their labels.
"""

from abc import ABC, abstractmethod
from typing import Any

import keras
from keras import ops

from deep_ranking.config import MININGS
from deep_ranking.files import InputError
from deep_ranking.losses.hinge import check_hinge, clip_coordinates
from deep_ranking.losses.memory import CrossBatchMemory
from deep_ranking.losses.mining import label_masks, mined_weights, pairwise_distances


def weighted_mean(values: Any, weights: Any) -> Any:
    """Mean of values by weights of 0 or more and of the same shape: a scalar, 0 without weight."""
    total = ops.sum(weights)
    return ops.sum(weights * values) / ops.where(total > 0, total, 1.0)


class BatchLoss(keras.losses.Loss, ABC):
    """A loss of each query against its references: the batch and, if there is one, the memory.

    The value is a scalar, so that `reduction` changes nothing. Each call fills the memory, one
    that only evaluates a model too: evaluate with a loss of its own, or reset the memory after.

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
            # Here rather than in the first call: a compiled step cannot make variables.
            self.memory = CrossBatchMemory(memory, embedding_size)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss of labels, int (batch,), and embeddings, (batch, dim): a scalar."""
        # Keras hands labels over as floats, exact up to 2^24.
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")  # (batch,)
        references, reference_labels = y_pred, labels
        if self.memory is not None:
            references, reference_labels = self.memory.append_to(y_pred, labels)
            self.memory.remember(y_pred, labels)
        same, different = label_masks(labels, reference_labels)  # (batch, references)
        return self.compare(y_pred, references, same, different)

    @abstractmethod
    def compare(self, embeddings: Any, references: Any, same: Any, different: Any) -> Any:
        """Compute the loss.

        Args:
            embeddings: float tensor (batch, dim), the queries.
            references: float tensor (references, dim), which begins with `embeddings`.
            same: bool tensor (batch, references), the positives.
            different: bool tensor (batch, references), the negatives.

        Returns:
            Float tensor (); 0 where there is nothing to compare.
        """

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, so that Keras can rebuild the loss, its memory empty."""
        return {
            **super().get_config(),
            "memory": 0 if self.memory is None else self.memory.size,
            "embedding_size": self.embedding_size,
        }


@keras.saving.register_keras_serializable(package="deep_ranking")
class BatchRankingLoss(BatchLoss):
    """Hinge loss of the triplets of a batch: max(0, gap + D(query, positive) - D(query, negative)).

    The formula is that of Wang et al. 2014, eq. 3, averaged over the triplets by the weights of
    `mined_weights`. A batch without triplets has loss 0. The triplets take room for batch *
    references^2 numbers.

    Example:
        model.compile("adam", loss=BatchRankingLoss(gap=0.2, mining="semi-hard"))

    Args:
        gap: lead required of the negative, in units of the distance; above 0.
        distance: "euclidean" or "squared".
        hinge: "triplet" applies max(0, .) to each triplet, "batch" once to their weighted mean.
        clip: clip embeddings to [eps, 1 - eps] first, which zeroes negative coordinates.
        norm: degree of the distance, 1 or more; 2 is Euclidean. Others take room for batch *
            references * dim numbers.
        mining: "all", "semi-hard", "hard" or, of norm 2 alone, "distance-weighted".
        memory: how many embeddings of earlier batches to keep as references; 0 for none.
        embedding_size: length of an embedding; needed for a memory.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        gap: float = 1.0,
        distance: str = "euclidean",
        hinge: str = "triplet",
        clip: bool = False,
        *,
        norm: float = 2.0,
        mining: str = "all",
        memory: int = 0,
        embedding_size: int | None = None,
        name: str = "batch_ranking_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(memory, embedding_size, name, **kwargs)
        check_hinge(gap, distance, hinge, norm)
        if mining not in MININGS:
            raise InputError(f"mining must be one of {MININGS}. Received: {mining}")
        if mining == "distance-weighted" and norm != 2:
            raise InputError(f"distance-weighted mining is of norm 2. Received: norm={norm}")
        self.gap = gap
        self.distance = distance
        self.hinge = hinge
        self.clip = clip
        self.norm = norm
        self.mining = mining

    def compare(self, embeddings: Any, references: Any, same: Any, different: Any) -> Any:
        """Compute the mean hinge by the weights of the mining."""
        if self.clip:
            embeddings, references = clip_coordinates(embeddings), clip_coordinates(references)
        distances = pairwise_distances(
            embeddings, references, norm=self.norm
        )  # (batch, references)
        dim = embeddings.shape[-1]
        weights = mined_weights(distances, same, different, self.mining, dim=dim)
        if self.distance == "squared":
            distances = ops.square(distances)
        # (queries, positives, negatives)
        lags = self.gap + distances[:, :, None] - distances[:, None, :]
        if self.hinge == "batch":
            return ops.relu(weighted_mean(lags, weights))
        return weighted_mean(ops.relu(lags), weights)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, so that Keras can rebuild the loss, its memory empty."""
        return {
            **super().get_config(),
            "gap": self.gap,
            "distance": self.distance,
            "hinge": self.hinge,
            "clip": self.clip,
            "norm": self.norm,
            "mining": self.mining,
        }
