"""Relevance of images to each other, which triplets can be sampled by."""

from deep_ranking.sampling.relevance.base import Relevance
from deep_ranking.sampling.relevance.relevance_from_name import (
    KINDS,
    WITHOUT_NETWORK,
    open_relevance,
)
from deep_ranking.sampling.relevance.rows import RowCosine
from deep_ranking.sampling.relevance.scored_pairs import ScoredPairs, read_scored_pairs
from deep_ranking.sampling.relevance.tree import FolderTree

__all__ = [
    "KINDS",
    "WITHOUT_NETWORK",
    "FolderTree",
    "Relevance",
    "RowCosine",
    "ScoredPairs",
    "open_relevance",
    "read_scored_pairs",
]
