"""Clustering quality: how well k-means clusters of the embeddings match the classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import FloatArray
from deep_ranking.metrics.distances import check_embeddings


def nmi(embeddings: FloatArray, labels: npt.NDArray[Any], *, seed: int = 0) -> float:
    """Return the normalised mutual information (NMI) of classes and as many k-means clusters.

    I(classes; clusters) / ((H(classes) + H(clusters)) / 2), with mutual information I and entropy H
    (Manning et al. 2008, "Introduction to Information Retrieval", 16.3). The clusters are those of
    scikit-learn's `MiniBatchKMeans`. Many small classes raise the NMI by chance (Musgrave et al.
    2020), so compare it only on the same images.

    Args:
        embeddings: float array (n, dim), finite.
        labels: array (n,) of classes; a class of one image counts like any other.
        seed: seed of the k-means start and batches.

    Returns:
        0 to 1: 1 if the clusters are the classes, 0 for a collapsed model, NaN if all images are of
        one class. There are no queries here, and ties do not matter.

    Raises:
        ValueError: `embeddings` is not a matrix, is empty or not finite, or `labels` does not have
            one label a row.
    """
    check_embeddings(embeddings, "embeddings")
    if np.shape(labels) != (len(embeddings),):
        raise ValueError(
            f"Clusters need one label for each of {len(embeddings)} embeddings. "
            f"Received: labels of shape {np.shape(labels)}."
        )
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) == 1:
        return float("nan")
    from sklearn.cluster import MiniBatchKMeans  # half a second to import
    from sklearn.metrics import normalized_mutual_info_score

    k_means = MiniBatchKMeans(
        len(classes),
        random_state=seed,
        batch_size=1024,
        n_init=1,
        # Choose the start from this many rows; it takes most of the time.
        init_size=min(max(3 * len(classes), 512), len(embeddings)),
    )
    clusters = k_means.fit_predict(embeddings)
    return float(normalized_mutual_info_score(codes, clusters))
