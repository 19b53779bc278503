"""Labelled images, read from folders, class files, pair files or partition lists."""

from deep_ranking.datasets.folders import (
    class_folders,
    listed_images,
    nested_folders,
    with_folder_categories,
    with_folder_items,
)
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
    "listed_images",
    "nested_folders",
    "read_classes",
    "read_partition",
    "read_positive_pairs",
    "relative_prefix",
    "split_classes",
    "with_folder_categories",
    "with_folder_items",
    "write_classes",
]
