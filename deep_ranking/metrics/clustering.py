"""Clustering quality: how well k-means clusters of the embeddings match the classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import FloatArray, IntArray
from deep_ranking.metrics.distances import check_embeddings

NUM_ITERATIONS = 20


def nmi(embeddings: FloatArray, labels: npt.NDArray[Any], *, seed: int = 0) -> float:
    """Return the normalised mutual information (NMI) of classes and as many k-means clusters.

    I(classes; clusters) / ((H(classes) + H(clusters)) / 2), with mutual information I and entropy H
    (Manning et al. 2008, "Introduction to Information Retrieval", 16.3). The clusters are those of
    faiss, started by k-means++ (Arthur and Vassilvitskii 2007). Many small classes raise the NMI by
    chance (Musgrave et al. 2020), so compare it only on the same images.

    Args:
        embeddings: float array (n, dim), finite.
        labels: array (n,) of classes; a class of one image counts like any other.
        seed: decides where k-means starts.

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
    import faiss  # late: not all commands that measure distances wait for it

    rows = np.ascontiguousarray(embeddings, np.float32)
    k_means = faiss.Kmeans(
        rows.shape[1],
        len(classes),
        niter=NUM_ITERATIONS,
        seed=seed,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        min_points_per_centroid=1,  # fewer than 39 would be warned of
    )
    k_means.train(rows)
    clusters = k_means.index.search(rows, 1)[1][:, 0]
    entropies = _entropy(codes) + _entropy(clusters)
    joint = _entropy(codes * len(classes) + clusters)
    return float(np.clip(2 - 2 * joint / entropies, 0, 1))


def _entropy(codes: IntArray) -> float:
    """Return the entropy of the distribution of these numbers, in nats."""
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(-(shares * np.log(shares)).sum())
