"""The ranking loss, a hinge of each triplet (Wang et al. 2014, section 3, eq. 3).

`RankingLoss` takes batches of triplets, `BatchRankingLoss` batches of labelled images.
"""

from typing import Any

import keras
from keras import ops

from deep_ranking.config import DEFAULT_GAP, DISTANCES, HINGES, MININGS
from deep_ranking.files import InputError
from deep_ranking.losses.batch import BatchLoss, weighted_mean
from deep_ranking.losses.distances import (
    clip_embeddings,
    pairwise_distances,
    row_triplet_distances,
)
from deep_ranking.losses.mining import mined_weights


class _Hinge:
    """The arguments that both losses share, checked."""

    gap: float
    distance: str
    hinge: str
    clip: bool
    norm: float

    def _set_arguments(
        self, gap: float, distance: str, hinge: str, clip: bool, norm: float
    ) -> None:
        if not 0 < gap < float("inf"):
            raise InputError(f"gap must be above 0 and finite. Received: gap={gap}")
        if distance not in DISTANCES:
            raise InputError(f"distance must be one of {DISTANCES}. Received: {distance}")
        if hinge not in HINGES:
            raise InputError(f"hinge must be one of {HINGES}. Received: {hinge}")
        if not 1 <= norm < float("inf"):
            raise InputError(f"norm must be 1 or more, and finite. Received: norm={norm}")
        if distance == "squared" and norm != 2:
            raise InputError(f"squared distances need norm 2. Received: norm={norm}")
        self.gap, self.distance, self.hinge, self.clip, self.norm = gap, distance, hinge, clip, norm

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _Hinge.__annotations__}


@keras.saving.register_keras_serializable(package="deep_ranking")
class RankingLoss(_Hinge, keras.losses.Loss):
    """Hinge loss of triplets: max(0, gap + D(query, positive) - D(query, negative)).

    By default this is the formula, averaged over the triplets. The blog's code is `hinge="batch",
    clip=True`; the paper's distance is `distance="squared"`. Embeddings are (3 * triplets, dim),
    rows query, positive, negative in turn. The labels are ignored.

    Args:
        gap: lead required of the negative, in units of the distance; above 0.
        distance: "euclidean" or "squared".
        hinge: "triplet" applies max(0, .) to each triplet, "batch" once to their mean.
        clip: clip embeddings to [eps, 1 - eps] first, which zeroes negative coordinates.
        norm: degree of the distance, 1 or more; 2 is Euclidean.
        name: name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Example:
        >>> rows = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)  # query, positive, negative
        >>> round(float(RankingLoss(gap=1.0)(np.zeros(3), rows)), 3)
        0.218

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        gap: float = DEFAULT_GAP,
        distance: str = "euclidean",
        hinge: str = "triplet",
        clip: bool = False,
        *,
        norm: float = 2.0,
        name: str = "ranking_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._set_arguments(gap, distance, hinge, clip, norm)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each triplet, (triplets,), or with the batch hinge of all, ()."""
        if self.clip:
            y_pred = clip_embeddings(y_pred)
        positive, negative = row_triplet_distances(
            y_pred, squared=self.distance == "squared", norm=self.norm
        )
        lag = self.gap + positive - negative  # (triplets,)
        return ops.relu(ops.mean(lag) if self.hinge == "batch" else lag)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that Keras rebuilds the loss from."""
        return {**super().get_config(), **self._arguments()}


@keras.saving.register_keras_serializable(package="deep_ranking")
class BatchRankingLoss(_Hinge, BatchLoss):
    """Hinge loss of the triplets of a batch: max(0, gap + D(query, positive) - D(query, negative)).

    The formula is eq. 3 of Wang et al. 2014, averaged over the triplets by the weights of
    `mined_weights`. A batch without triplets has loss 0. The triplets take memory for batch *
    references^2 numbers.

    Args:
        gap: lead required of the negative, in units of the distance; above 0.
        distance: "euclidean" or "squared".
        hinge: "triplet" applies max(0, .) to each triplet, "batch" once to their weighted mean.
        clip: clip embeddings to [eps, 1 - eps] first, which zeroes negative coordinates.
        norm: degree of the distance, 1 or more; 2 is Euclidean. Others take memory for batch *
            references * dim numbers.
        mining: "all", "semi-hard", "hard" or, with norm 2 only, "distance-weighted".
        memory: how many embeddings of earlier batches to keep as references; 0 for none.
        embedding_size: length of an embedding; needed for a memory.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Example:
        >>> embeddings = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], np.float32)
        >>> round(float(BatchRankingLoss(gap=0.5)(np.array([0, 0, 1, 1]), embeddings)), 3)
        0.331

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        gap: float = DEFAULT_GAP,
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
        self._set_arguments(gap, distance, hinge, clip, norm)
        if mining not in MININGS:
            raise InputError(f"mining must be one of {MININGS}. Received: {mining}")
        if mining == "distance-weighted" and norm != 2:
            raise InputError(f"distance-weighted mining needs norm 2. Received: norm={norm}")
        self.mining = mining

    def compare(self, embeddings: Any, references: Any, same: Any, different: Any) -> Any:
        """Return the mean hinge, weighted by the mining."""
        if self.clip:
            embeddings, references = clip_embeddings(embeddings), clip_embeddings(references)
        # (batch, references)
        distances = pairwise_distances(embeddings, references, norm=self.norm)
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
        """Return the arguments that Keras rebuilds the loss from, its memory empty."""
        return {**super().get_config(), **self._arguments(), "mining": self.mining}
