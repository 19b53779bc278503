"""Labelled images: one description, read from folders, class files, pair files, partition lists."""

from deep_ranking.datasets.folders import class_folders, nested_folders, with_folder_categories
from deep_ranking.datasets.labelled import LabelledImages, Labels, limit_classes
from deep_ranking.datasets.partitions import read_partition
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
    "class_folders",
    "hold_back_classes",
    "limit_classes",
    "nested_folders",
    "read_classes",
    "read_partition",
    "read_positive_pairs",
    "relative_prefix",
    "split_classes",
    "with_folder_categories",
    "write_classes",
]
