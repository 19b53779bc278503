"""Deep Ranking: learn visual similarity from folders of images, and use what was learned.

The public names are imported when one is first used, so that `import deep_ranking` is quick and
does not start TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deep_ranking.version import __version__

if TYPE_CHECKING:
    from deep_ranking.augmentation import Augmentation
    from deep_ranking.collection import Collection
    from deep_ranking.config import NetworkConfig, TrainConfig
    from deep_ranking.embedding import embed_images
    from deep_ranking.errors import InputError
    from deep_ranking.exporting import export_model
    from deep_ranking.images import ImageListing, find_images, read_image
    from deep_ranking.losses import (
        BatchRankingLoss,
        MultiSimilarityLoss,
        RankingLoss,
        SoftMarginLoss,
        SupervisedContrastiveLoss,
    )
    from deep_ranking.model_file import load_model, save_model
    from deep_ranking.network import build_network
    from deep_ranking.pipeline import triplet_dataset
    from deep_ranking.recipes import RECIPES
    from deep_ranking.sampling import sample_triplets
    from deep_ranking.search import Result, Searcher
    from deep_ranking.training import train
    from deep_ranking.triplets import Triplets, read_triplets, write_triplets

_ROOMS = {
    "Augmentation": "augmentation",
    "BatchRankingLoss": "losses",
    "Collection": "collection",
    "ImageListing": "images",
    "InputError": "errors",
    "MultiSimilarityLoss": "losses",
    "NetworkConfig": "config",
    "RECIPES": "recipes",
    "RankingLoss": "losses",
    "Result": "search",
    "Searcher": "search",
    "SoftMarginLoss": "losses",
    "SupervisedContrastiveLoss": "losses",
    "TrainConfig": "config",
    "Triplets": "triplets",
    "build_network": "network",
    "embed_images": "embedding",
    "export_model": "exporting",
    "find_images": "images",
    "load_model": "model_file",
    "read_image": "images",
    "read_triplets": "triplets",
    "sample_triplets": "sampling",
    "save_model": "model_file",
    "train": "training",
    "triplet_dataset": "pipeline",
    "write_triplets": "triplets",
}

__all__ = [
    "RECIPES",
    "Augmentation",
    "BatchRankingLoss",
    "Collection",
    "ImageListing",
    "InputError",
    "MultiSimilarityLoss",
    "NetworkConfig",
    "RankingLoss",
    "Result",
    "Searcher",
    "SoftMarginLoss",
    "SupervisedContrastiveLoss",
    "TrainConfig",
    "Triplets",
    "__version__",
    "build_network",
    "embed_images",
    "export_model",
    "find_images",
    "load_model",
    "read_image",
    "read_triplets",
    "sample_triplets",
    "save_model",
    "train",
    "triplet_dataset",
    "write_triplets",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
