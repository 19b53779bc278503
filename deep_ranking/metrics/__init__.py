"""Metrics of visual similarity: embeddings, distances and labels in, numbers out. NumPy only.

`triplets` has the paper's two metrics, `retrieval` the metrics of a ranking (Recall@K, mAP, k-NN),
`pairs` the verification metrics (ROC-AUC, equal error rate), `reliability` how far probabilities
come true, `clustering` the NMI, and `intervals` the bootstrap interval of each. They build on
`distances` and `ranking`. Each function states what it does on ties, with the query in the gallery,
with no positive, and where it is undefined.
"""

from deep_ranking.metrics.distances import (
    METRICS,
    cosine_at,
    first_non_finite_row,
    pair_distances,
    row_distances,
)
from deep_ranking.metrics.intervals import Interval, bootstrap_interval
from deep_ranking.metrics.pairs import pair_metrics, sample_pairs
from deep_ranking.metrics.ranking import rank_gallery
from deep_ranking.metrics.retrieval import retrieval_metrics
from deep_ranking.metrics.triplets import correct_triplets, similarity_precision, triplet_distances

__all__ = [
    "METRICS",
    "Interval",
    "bootstrap_interval",
    "correct_triplets",
    "cosine_at",
    "first_non_finite_row",
    "pair_distances",
    "pair_metrics",
    "rank_gallery",
    "retrieval_metrics",
    "row_distances",
    "sample_pairs",
    "similarity_precision",
    "triplet_distances",
]
