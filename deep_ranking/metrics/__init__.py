"""Metrics of visual similarity: embeddings, distances and labels in, numbers out. NumPy only.

`triplets` has the paper's two metrics, `retrieval` the metrics of a ranking (Recall@K, mAP, k-NN),
`pairs` the verification metrics (ROC-AUC, equal error rate), `clustering` the NMI, and `intervals`
the bootstrap interval of each. They build on `distances` and `ranking`. Each function states what
it does on ties, with the query in the gallery, with no positive, and where it is undefined.
"""

from deep_ranking.metrics.clustering import nmi
from deep_ranking.metrics.distances import (
    METRICS,
    cosine_at,
    first_non_finite_row,
    pair_distances,
    row_distances,
)
from deep_ranking.metrics.intervals import Interval, bootstrap_interval
from deep_ranking.metrics.pairs import pair_intervals, pair_metrics, sample_pairs
from deep_ranking.metrics.ranking import rank_gallery
from deep_ranking.metrics.retrieval import (
    Gallery,
    average_precision,
    average_precision_at_r,
    first_positive_rank,
    knn_classify,
    precision_at_k,
    r_precision,
    recall_at_k,
    retrieval_metrics,
)
from deep_ranking.metrics.triplets import (
    correct_triplets,
    score_at_top_k,
    similarity_precision,
    triplet_distances,
    triplet_ranks,
)

__all__ = [
    "METRICS",
    "Gallery",
    "Interval",
    "average_precision",
    "average_precision_at_r",
    "bootstrap_interval",
    "correct_triplets",
    "cosine_at",
    "first_non_finite_row",
    "first_positive_rank",
    "knn_classify",
    "nmi",
    "pair_distances",
    "pair_intervals",
    "pair_metrics",
    "precision_at_k",
    "r_precision",
    "rank_gallery",
    "recall_at_k",
    "retrieval_metrics",
    "row_distances",
    "sample_pairs",
    "score_at_top_k",
    "similarity_precision",
    "triplet_distances",
    "triplet_ranks",
]
