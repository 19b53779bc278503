"""Metrics that training prints beside the loss, over the triplets of each batch."""

from typing import Any

import keras
from keras import ops

from deep_ranking.config import DEFAULT_GAP
from deep_ranking.files import InputError
from deep_ranking.losses.distances import (
    clip_embeddings,
    pairwise_distances,
    row_triplet_distances,
)
from deep_ranking.losses.mining import label_masks

QUANTITIES = ("active_triplets", "positive_distance", "negative_distance", "similarity_precision")


@keras.saving.register_keras_serializable(package="deep_ranking")
class TripletMetric(keras.metrics.Mean):
    """Mean over triplets of a quantity that shows how training goes.

    Args:
        quantity: "active_triplets", the share of triplets whose own hinge is above 0;
            "positive_distance" and "negative_distance", the mean distances;
            "similarity_precision", the share of triplets whose positive is nearer to the query
            than the negative (a tie is a miss).
        gap: the loss's gap.
        distance: the loss's distance, "euclidean" or "squared".
        norm: the loss's degree of the distance.
        clip: whether the loss clips embeddings first; the hinge of "active_triplets" then does.
        name: name of the metric; by default the quantity's.
        **kwargs: `dtype` of `keras.metrics.Mean`.

    Raises:
        InputError: `quantity` is not one of `QUANTITIES`.
    """

    def __init__(
        self,
        quantity: str,
        gap: float = DEFAULT_GAP,
        distance: str = "euclidean",
        norm: float = 2.0,
        *,
        clip: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name or quantity, **kwargs)
        if quantity not in QUANTITIES:
            raise InputError(f"quantity must be one of {QUANTITIES}. Received: {quantity}")
        self.quantity = quantity
        self.gap = gap
        self.distance = distance
        self.norm = norm
        self.clip = clip

    def _seen(self, embeddings: Any) -> Any:
        """Return the embeddings as the quantity sees them."""
        clips = self.clip and self.quantity == "active_triplets"
        return clip_embeddings(embeddings) if clips else embeddings

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add one batch of embeddings, (3 * triplets, dim)."""
        positive, negative = row_triplet_distances(
            self._seen(y_pred), squared=self.distance == "squared", norm=self.norm
        )
        values = {
            "active_triplets": self.gap + positive - negative > 0,
            "positive_distance": positive,
            "negative_distance": negative,
            "similarity_precision": positive < negative,
        }
        super().update_state(ops.cast(values[self.quantity], self.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that Keras rebuilds the metric from."""
        names = ("quantity", "gap", "distance", "norm", "clip")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="deep_ranking")
class ClassTripletMetric(TripletMetric):
    """The same quantities over all triplets of a batch of classes, whatever the loss mines.

    "positive_distance" is the mean over all pairs of a query and a positive, "negative_distance"
    over all pairs of a query and a negative; the others are means over triplets. A batch weighs by
    its number of pairs or triplets: one without any does not count. Before the first batch the
    result is 0. A cross-batch memory is not included. Arguments are those of `TripletMetric`.
    """

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add one batch of labels, int (batch,), and embeddings, (batch, dim)."""
        embeddings = self._seen(ops.convert_to_tensor(y_pred))
        same, different = label_masks(y_true, y_true)  # (batch, batch)
        distances = pairwise_distances(
            embeddings, embeddings, squared=self.distance == "squared", norm=self.norm
        )  # (batch, batch)
        if self.quantity == "positive_distance":
            values, counted = distances, same
        elif self.quantity == "negative_distance":
            values, counted = distances, different
        else:
            lead = distances[:, None, :] - distances[:, :, None]  # (queries, positives, negatives)
            values = lead < self.gap if self.quantity == "active_triplets" else lead > 0
            counted = ops.logical_and(same[:, :, None], different[:, None, :])
        # As one row: Keras averages each row of a matrix first, and batches of different size would
        # then not weigh by their number of triplets.
        keras.metrics.Mean.update_state(
            self,
            ops.reshape(ops.cast(values, self.dtype), (-1,)),
            sample_weight=ops.reshape(ops.cast(counted, self.dtype), (-1,)),
        )
