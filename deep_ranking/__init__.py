"""Deep Ranking: learn visual similarity from folders of images, and use what was learned.

The public names are imported when one is first used, so that `import deep_ranking` is quick and
does not start TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deep_ranking.config import NetworkConfig, TrainConfig
    from deep_ranking.config.recipes import RECIPES
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.embedding.export import export_model
    from deep_ranking.files import InputError
    from deep_ranking.images import ImageListing, find_images, read_image
    from deep_ranking.images.augmentation import Augmentation
    from deep_ranking.losses import (
        BatchRankingLoss,
        MultiSimilarityLoss,
        RankingLoss,
        SoftMarginLoss,
        SupervisedContrastiveLoss,
    )
    from deep_ranking.model.file import load_model, save_model
    from deep_ranking.model.network import build_network
    from deep_ranking.sampling import sample_triplets
    from deep_ranking.sampling.triplet_file import Triplets, read_triplets, write_triplets
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.searcher import Result, Searcher
    from deep_ranking.training.batches import triplet_dataset
    from deep_ranking.training.run import train

_HOMES = {
    "Augmentation": "images.augmentation",
    "BatchRankingLoss": "losses",
    "Collection": "search.collection",
    "ImageListing": "images",
    "InputError": "files",
    "MultiSimilarityLoss": "losses",
    "NetworkConfig": "config",
    "RECIPES": "config.recipes",
    "RankingLoss": "losses",
    "Result": "search.searcher",
    "Searcher": "search.searcher",
    "SoftMarginLoss": "losses",
    "SupervisedContrastiveLoss": "losses",
    "TrainConfig": "config",
    "Triplets": "sampling.triplet_file",
    "build_network": "model.network",
    "embed_images": "embedding.embed",
    "export_model": "embedding.export",
    "find_images": "images",
    "load_model": "model.file",
    "read_image": "images",
    "read_triplets": "sampling.triplet_file",
    "sample_triplets": "sampling",
    "save_model": "model.file",
    "train": "training.run",
    "triplet_dataset": "training.batches",
    "write_triplets": "sampling.triplet_file",
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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
