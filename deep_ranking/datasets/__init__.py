"""Labelled images, read from folders, class files, pair files or partition lists."""

from deep_ranking.datasets.correcting import corrected
from deep_ranking.datasets.folders import label_listing, read_folder, with_folder_categories
from deep_ranking.datasets.labelled import LabelledImages, Labels, limit_classes
from deep_ranking.datasets.pairing import read_pairs
from deep_ranking.datasets.partitions import read_partition
from deep_ranking.datasets.splits import take_split
from deep_ranking.datasets.splitting import hold_back_classes, split_classes
from deep_ranking.datasets.tables import (
    read_classes,
    read_positive_pairs,
    relative_prefix,
    write_classes,
)

__all__ = [
    "LabelledImages",
    "Labels",
    "corrected",
    "hold_back_classes",
    "label_listing",
    "limit_classes",
    "read_classes",
    "read_folder",
    "read_pairs",
    "read_partition",
    "read_positive_pairs",
    "relative_prefix",
    "split_classes",
    "take_split",
    "with_folder_categories",
    "write_classes",
]
