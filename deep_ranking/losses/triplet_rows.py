"""The ranking loss of a batch of triplets (Wang et al. 2014, section 3, eq. 3).

The rows of a batch of embeddings, (3 * triplets, dim), are query, positive and negative of each
triplet in turn.
"""

from typing import Any

import keras
from keras import ops

from deep_ranking.losses.hinge import check_hinge, clip_coordinates, lengths


def triplet_distances(
    embeddings: Any, *, squared: bool = False, norm: float = 2.0
) -> tuple[Any, Any]:
    """Distances of each query to its positive and to its negative.

    Args:
        embeddings: float tensor (3 * triplets, dim).
        squared: whether to give squared Euclidean distances rather than Euclidean ones.
        norm: degree of the distance, 1 or more; 2 is Euclidean.

    Returns:
        Two float tensors (triplets,): to the positive, to the negative. Where two rows are equal,
        distance and gradient are 0.

    Raises:
        ValueError: the number of rows is known, and no multiple of 3.
    """
    rows, dim = embeddings.shape
    if rows is not None and rows % 3:
        raise ValueError(
            "embeddings must have rows query, positive, negative in turn: a multiple of 3. "
            f"Received: {rows} rows"
        )
    triplets = ops.reshape(embeddings, (-1, 3, dim))  # (triplets, 3, dim)
    difference = triplets[:, :1] - triplets[:, 1:]  # (triplets, 2, dim)
    distances = lengths(difference, squared=squared, norm=norm)  # (triplets, 2)
    return distances[:, 0], distances[:, 1]


@keras.saving.register_keras_serializable(package="deep_ranking")
class RankingLoss(keras.losses.Loss):
    """Hinge loss of triplets: max(0, gap + D(query, positive) - D(query, negative)).

    By default the formula, averaged over the triplets. The blog's code is `hinge="batch",
    clip=True`; the paper's distance is `distance="squared"`. The labels are not looked at.

    Example:
        model.compile("adam", loss=RankingLoss(gap=0.5))

    Args:
        gap: lead required of the negative, in units of the distance; above 0.
        distance: "euclidean" or "squared".
        hinge: "triplet" applies max(0, .) to each triplet, "batch" once to their mean.
        clip: clip embeddings to [eps, 1 - eps] first, which zeroes negative coordinates.
        norm: degree of the distance, 1 or more; 2 is Euclidean.
        name: name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

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
        name: str = "ranking_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        check_hinge(gap, distance, hinge, norm)
        self.gap = gap
        self.distance = distance
        self.hinge = hinge
        self.clip = clip
        self.norm = norm

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss of each triplet, (triplets,), or with the batch hinge of all, ()."""
        if self.clip:
            y_pred = clip_coordinates(y_pred)
        positive, negative = triplet_distances(
            y_pred, squared=self.distance == "squared", norm=self.norm
        )
        lag = self.gap + positive - negative  # (triplets,)
        if self.hinge == "batch":
            return ops.relu(ops.mean(lag))
        return ops.relu(lag)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, so that Keras can rebuild the loss."""
        return {
            **super().get_config(),
            "gap": self.gap,
            "distance": self.distance,
            "hinge": self.hinge,
            "clip": self.clip,
            "norm": self.norm,
        }
