"""Losses of cosine similarities that compare each query with many references at once.

Embeddings have unit length, so the cosine similarity s is the dot product. Exponentials are summed
as logarithms, and a softplus adds the 1, so none overflows.

References:
    Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective".
    Khosla et al. 2020, "Supervised Contrastive Learning".
    Wang et al. 2019, "Multi-Similarity Loss with General Pair Weighting".
"""

from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from deep_ranking.files import InputError
from deep_ranking.losses.batch import BatchLoss, weighted_mean
from deep_ranking.losses.mining import NEVER


def _log_sum_exp(values: Any, counted: Any) -> Any:
    """Return log(sum of exp(value)) of the counted values of each row, very low where none is."""
    return ops.logsumexp(ops.where(counted, values, NEVER), axis=-1)


class SimilarityLoss(BatchLoss):
    """A loss of the cosine similarities of each query to its references.

    Args:
        temperature: difference in similarity that counts as one unit; above 0.
        memory: how many embeddings of earlier batches to keep as references; 0 for none.
        embedding_size: length of an embedding; needed for a memory.
        name: name of the loss; by default the name of the class.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        memory: int = 0,
        embedding_size: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(memory, embedding_size, name, **kwargs)
        if not 0 < temperature < float("inf"):
            raise InputError(f"temperature must be above 0. Received: temperature={temperature}")
        self.temperature = temperature

    def compare(self, embeddings: Any, references: Any, same: Any, different: Any) -> Any:
        """Return the loss, from dot products."""
        similarities = ops.matmul(embeddings, ops.transpose(references))  # (batch, references)
        return self.compare_similarities(similarities, same, different)

    @abstractmethod
    def compare_similarities(self, similarities: Any, same: Any, different: Any) -> Any:
        """Return the loss as `compare` does, from similarities, float (batch, references)."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that Keras rebuilds the loss from, its memory empty."""
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="deep_ranking")
class SoftMarginLoss(SimilarityLoss):
    """The N-pair loss: each query and positive against all negatives (Sohn 2016, section 3).

    The mean over queries q and positives p of log(1 + sum over negatives n of
    exp((s_qn - s_qp) / temperature)), with rows of unit length and several positives a query. It is
    0 in a batch without positives or without negatives.

    Example:
        >>> embeddings = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], np.float32)
        >>> loss = SoftMarginLoss(temperature=0.1)
        >>> round(float(loss(np.array([0, 0, 1, 1]), embeddings)), 3)
        0.967
    """

    def compare_similarities(self, similarities: Any, same: Any, different: Any) -> Any:
        """Return the mean over queries and positives."""
        scaled = similarities / self.temperature  # (batch, references)
        against = _log_sum_exp(scaled, different)[:, None]  # (batch, 1)
        return weighted_mean(ops.softplus(against - scaled), ops.cast(same, scaled.dtype))


@keras.saving.register_keras_serializable(package="deep_ranking")
class SupervisedContrastiveLoss(SimilarityLoss):
    """Each query and positive against all other images (Khosla et al. 2020, eq. 2).

    The mean over queries q and positives p of log(sum over all images a other than q of
    exp(s_qa / temperature)) - s_qp / temperature. All pairs weigh alike. The paper first averages
    over the positives of each query, which is the same when all classes have one size. The loss is
    0 in a batch without positives. In a batch of positives only it is not 0, because they compete
    with each other.

    Example:
        >>> embeddings = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], np.float32)
        >>> loss = SupervisedContrastiveLoss(temperature=0.1)
        >>> round(float(loss(np.array([0, 0, 1, 1]), embeddings)), 3)
        0.967
    """

    def compare_similarities(self, similarities: Any, same: Any, different: Any) -> Any:
        """Return the mean over queries and positives."""
        scaled = similarities / self.temperature  # (batch, references)
        against = _log_sum_exp(scaled, ops.logical_or(same, different))[:, None]  # (batch, 1)
        return weighted_mean(against - scaled, ops.cast(same, scaled.dtype))


@keras.saving.register_keras_serializable(package="deep_ranking")
class MultiSimilarityLoss(SimilarityLoss):
    """Multi-similarity loss: hard positives and negatives weigh more (Wang et al. 2019, eq. 15).

    The mean over all queries of log(1 + sum over p of exp(-2 (s_qp - 0.5))) / 2 + log(1 + sum over
    n of exp(beta (s_qn - 0.5))) / beta, with beta = 1 / temperature. The sums run over the mined
    pairs: negatives with s_qn > (lowest s_qp) - 0.1 (eq. 11), and positives with s_qp < (highest
    s_qn) + 0.1 (eq. 12). A query without a positive or without a negative counts as 0, as in the
    paper's code.

    Example:
        >>> embeddings = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], np.float32)
        >>> loss = MultiSimilarityLoss(temperature=0.02)
        >>> round(float(loss(np.array([0, 0, 1, 1]), embeddings)), 3)
        0.339
    """

    ALPHA = 2.0
    BASE = 0.5  # the paper's lambda
    SLACK = 0.1  # the paper's epsilon

    def compare_similarities(self, similarities: Any, same: Any, different: Any) -> Any:
        """Return the mean over queries."""
        least_similar = ops.min(ops.where(same, similarities, -NEVER), axis=-1, keepdims=True)
        most_similar = ops.max(ops.where(different, similarities, NEVER), axis=-1, keepdims=True)
        # Test which pairs to leave out, not which to keep: a NaN then stays NaN and is noticed.
        easy = similarities >= most_similar + self.SLACK  # (batch, references)
        positives = ops.logical_and(same, ops.logical_not(easy))
        easy = similarities <= least_similar - self.SLACK
        negatives = ops.logical_and(different, ops.logical_not(easy))
        beyond = similarities - self.BASE  # (batch, references)
        pull = ops.softplus(_log_sum_exp(-self.ALPHA * beyond, positives)) / self.ALPHA  # (batch,)
        push = ops.softplus(_log_sum_exp(beyond / self.temperature, negatives)) * self.temperature
        return ops.mean(pull + push)
