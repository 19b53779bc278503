"""Do the embeddings fall into clusters that are the classes?"""

from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import FloatArray
from deep_ranking.metrics.distances import check_embeddings


def nmi(embeddings: FloatArray, labels: npt.NDArray[Any], *, seed: int = 0) -> float:
    """Normalised mutual information of the classes and of as many k-means clusters.

    The mutual information over the mean of both entropies (Manning et al. 2008, section 16.3), with
    scikit-learn's `MiniBatchKMeans`. Many small classes raise it by chance alone (Musgrave et al.
    2020): compare it only on the same images.

    Args:
        embeddings: float array (n, dim), finite.
        labels: array (n,) of classes; classes of one count like any other.
        seed: of the k-means start and batches.

    Returns:
        From 0 to 1, the latter if the clusters are the classes; 0 for a collapsed model; NaN if all
        images are of one class.

    Raises:
        ValueError: if `embeddings` is no matrix, is empty or not finite, or there is not one label
            for each row.
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
        # Rows that the start is chosen from, which takes most of the time.
        init_size=min(max(3 * len(classes), 512), len(embeddings)),
    )
    clusters = k_means.fit_predict(embeddings)
    return float(normalized_mutual_info_score(codes, clusters))
