"""Images -> `tf.data` batches: of triplets, of class folders, of cached features."""

from deep_ranking.pipeline.batches import BatchSource, ImageSource
from deep_ranking.pipeline.classes import ClassSource, FeatureSource, split_by_class
from deep_ranking.pipeline.supply import DrawnTriplets, TripletsOfFile, TripletSupply
from deep_ranking.pipeline.triplets import TripletSource, triplet_dataset

__all__ = [
    "BatchSource",
    "ClassSource",
    "DrawnTriplets",
    "FeatureSource",
    "ImageSource",
    "TripletSource",
    "TripletSupply",
    "TripletsOfFile",
    "split_by_class",
    "triplet_dataset",
]
