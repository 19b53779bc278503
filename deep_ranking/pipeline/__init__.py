"""Images -> `tf.data` batches: of a triplet file, of class folders, of cached features."""

from deep_ranking.pipeline.batches import BatchSource, ImageSource
from deep_ranking.pipeline.classes import ClassSource, FeatureSource, split_by_class
from deep_ranking.pipeline.triplets import TripletSource, triplet_dataset

__all__ = [
    "BatchSource",
    "ClassSource",
    "FeatureSource",
    "ImageSource",
    "TripletSource",
    "split_by_class",
    "triplet_dataset",
]
