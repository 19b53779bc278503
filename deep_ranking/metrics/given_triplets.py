"""Evaluate embeddings by given triplets: the two metrics of the paper (Wang et al. 2014)."""

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.metrics.evaluation import EmbeddedImages, check_finite_images
from deep_ranking.metrics.intervals import Interval, bootstrap_interval
from deep_ranking.metrics.meaningless import TOP_K
from deep_ranking.metrics.triplets import (
    correct_triplets,
    score_at_top_k,
    triplet_distances,
    triplet_ranks,
)


def evaluate_triplets(
    images: EmbeddedImages, triplets: npt.NDArray[np.integer], *, seed: int = 0
) -> tuple[Interval, int]:
    """Evaluate embeddings by given triplets, such as those that people labelled.

    Args:
        images: images of the triplets, which are also the gallery; their labels are ignored.
        triplets: int (triplets, 3), rows of `images`.
        seed: seed of the bootstrap, which draws queries with all their triplets.

    Returns:
        The paper's two metrics: the similarity precision, which is the share of correct triplets,
        with its 95 % bootstrap interval; and the score at top 30, which is correct minus incorrect
        triplets, of those with an image among the query's 30 nearest.

    Raises:
        InputError: an embedding is not finite (the message names its image), or a triplet's query
            is its own positive or negative.
    """
    check_finite_images(images)
    itself = (triplets[:, :1] == triplets[:, 1:]).any(axis=1)
    if itself.any():
        raise InputError(
            f"triplet {int(np.argmax(itself)) + 1}: the query is its own positive or negative"
        )
    correct = correct_triplets(*triplet_distances(images.embeddings, triplets))
    return (
        bootstrap_interval(correct, seed=seed, groups=triplets[:, 0]),
        score_at_top_k(*triplet_ranks(images.embeddings, triplets), k=TOP_K),
    )
