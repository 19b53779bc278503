"""Labelled images: one description, read from folders, class files, pair files, partition lists."""

from deep_ranking.listing.choosing import limit_classes
from deep_ranking.listing.folders import class_folders, nested_folders, with_folder_categories
from deep_ranking.listing.labelled import LabelledImages, Labels
from deep_ranking.listing.partitions import read_partition
from deep_ranking.listing.splitting import split_classes
from deep_ranking.listing.tables import read_classes, read_pairs, relative_prefix, write_classes

__all__ = [
    "LabelledImages",
    "Labels",
    "class_folders",
    "limit_classes",
    "nested_folders",
    "read_classes",
    "read_pairs",
    "read_partition",
    "relative_prefix",
    "split_classes",
    "with_folder_categories",
    "write_classes",
]
