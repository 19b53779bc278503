"""Images -> `tf.data` batches for training: of triplets, of classes, or of cached features."""

from deep_ranking.training.batches.classes import ClassSource, FeatureSource, split_by_class
from deep_ranking.training.batches.epoch_triplets import DrawnTriplets, EpochTriplets, FileTriplets
from deep_ranking.training.batches.triplets import TripletSource, triplet_dataset

__all__ = [
    "ClassSource",
    "DrawnTriplets",
    "EpochTriplets",
    "FeatureSource",
    "FileTriplets",
    "TripletSource",
    "split_by_class",
    "triplet_dataset",
]
