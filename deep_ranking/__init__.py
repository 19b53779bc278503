"""Deep Ranking: learn visual similarity from folders of images, and use what was learned.

The public names are imported when one is first used, so that `import deep_ranking` is quick and
does not start TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deep_ranking.config import FolderConfig, NetworkConfig, SamplingConfig, TrainConfig
    from deep_ranking.config.recipes import RECIPES
    from deep_ranking.datasets import (
        LabelledImages,
        read_classes,
        read_folder,
        read_partition,
        read_positive_pairs,
    )
    from deep_ranking.datasets.answer_log import AnswerLog
    from deep_ranking.datasets.correcting import corrected
    from deep_ranking.datasets.corrections import (
        Correction,
        CorrectionLog,
        Corrections,
        read_corrections,
    )
    from deep_ranking.datasets.public import write_digits
    from deep_ranking.datasets.ratings import Answer, Ratings, read_ratings
    from deep_ranking.embedding.calibrating import CalibrationResult, calibrate
    from deep_ranking.embedding.compiled.compiling import CompiledReport, compile_model
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.embedding.embedder import Embedder
    from deep_ranking.embedding.export import Export, export_model
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
    from deep_ranking.model.calibration import Calibration
    from deep_ranking.model.file import load_model, save_model
    from deep_ranking.model.network import build_network
    from deep_ranking.reports.atlas.making import WrittenAtlas, make_atlas
    from deep_ranking.reports.comparing import PairComparison
    from deep_ranking.reports.comparison import Comparison, compare, compare_all, compare_pairs
    from deep_ranking.reports.doctor import Examination, diagnose
    from deep_ranking.reports.evaluating import Evaluation, evaluate
    from deep_ranking.reports.evaluating_triplets import TripletEvaluation, evaluate_on_triplets
    from deep_ranking.reports.explain import Explanation, explain
    from deep_ranking.reports.occlusion import Occlusion, explain_by_occlusion
    from deep_ranking.reports.ratings.model_on_ratings import (
        ModelOnRatings,
        index_on_ratings,
        model_on_ratings,
    )
    from deep_ranking.reports.ratings.summary import RatingsSummary, summarize_ratings
    from deep_ranking.reports.reporting import Report, report
    from deep_ranking.sampling import sample_triplets
    from deep_ranking.sampling.rated_triplets import (
        ExportedRatings,
        ImportedRatings,
        export_ratings,
        import_ratings,
    )
    from deep_ranking.sampling.sample import SampledTriplets, sample
    from deep_ranking.sampling.triplet_file import Triplets, read_triplets, write_triplets
    from deep_ranking.search.bulk_embedding import EmbeddedTable, embed_table
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.duplicates import Duplicates, find_duplicates
    from deep_ranking.search.indexing import IndexReport, index_images
    from deep_ranking.search.results import Result, SearchResults
    from deep_ranking.search.searcher import Searcher
    from deep_ranking.search.set_aside import MoveReport, move_back
    from deep_ranking.search.shards import Shards
    from deep_ranking.search.table import ExportedTable, TableReport, export_table, index_table
    from deep_ranking.serving.client import Client
    from deep_ranking.training.batches import triplet_dataset
    from deep_ranking.training.run import train
    from deep_ranking.training.taught.report import TaughtReport
    from deep_ranking.training.taught.teaching import TaughtConfig, teach

_HOMES = {
    "Answer": "datasets.ratings",
    "AnswerLog": "datasets.answer_log",
    "Augmentation": "images.augmentation",
    "BatchRankingLoss": "losses",
    "Calibration": "model.calibration",
    "CalibrationResult": "embedding.calibrating",
    "Client": "serving.client",
    "Collection": "search.collection",
    "Comparison": "reports.comparison",
    "CompiledReport": "embedding.compiled.compiling",
    "Correction": "datasets.corrections",
    "CorrectionLog": "datasets.corrections",
    "Corrections": "datasets.corrections",
    "Duplicates": "search.duplicates",
    "EmbeddedTable": "search.bulk_embedding",
    "Embedder": "embedding.embedder",
    "Evaluation": "reports.evaluating",
    "Examination": "reports.doctor",
    "Explanation": "reports.explain",
    "Export": "embedding.export",
    "ExportedRatings": "sampling.rated_triplets",
    "ExportedTable": "search.table",
    "ImageListing": "images",
    "ImportedRatings": "sampling.rated_triplets",
    "IndexReport": "search.indexing",
    "InputError": "files",
    "LabelledImages": "datasets",
    "ModelOnRatings": "reports.ratings.model_on_ratings",
    "MoveReport": "search.set_aside",
    "MultiSimilarityLoss": "losses",
    "FolderConfig": "config",
    "NetworkConfig": "config",
    "Occlusion": "reports.occlusion",
    "PairComparison": "reports.comparing",
    "RECIPES": "config.recipes",
    "RankingLoss": "losses",
    "Ratings": "datasets.ratings",
    "RatingsSummary": "reports.ratings.summary",
    "Report": "reports.reporting",
    "Result": "search.results",
    "SampledTriplets": "sampling.sample",
    "SamplingConfig": "config",
    "SearchResults": "search.results",
    "Searcher": "search.searcher",
    "Shards": "search.shards",
    "SoftMarginLoss": "losses",
    "SupervisedContrastiveLoss": "losses",
    "TableReport": "search.table",
    "TaughtConfig": "training.taught.teaching",
    "TaughtReport": "training.taught.report",
    "TrainConfig": "config",
    "TripletEvaluation": "reports.evaluating_triplets",
    "Triplets": "sampling.triplet_file",
    "WrittenAtlas": "reports.atlas.making",
    "build_network": "model.network",
    "calibrate": "embedding.calibrating",
    "compare": "reports.comparison",
    "compare_all": "reports.comparison",
    "compare_pairs": "reports.comparison",
    "compile_model": "embedding.compiled.compiling",
    "corrected": "datasets.correcting",
    "diagnose": "reports.doctor",
    "embed_images": "embedding.embed",
    "embed_table": "search.bulk_embedding",
    "evaluate": "reports.evaluating",
    "evaluate_on_triplets": "reports.evaluating_triplets",
    "explain": "reports.explain",
    "explain_by_occlusion": "reports.occlusion",
    "export_model": "embedding.export",
    "export_ratings": "sampling.rated_triplets",
    "export_table": "search.table",
    "find_duplicates": "search.duplicates",
    "find_images": "images",
    "import_ratings": "sampling.rated_triplets",
    "index_images": "search.indexing",
    "index_on_ratings": "reports.ratings.model_on_ratings",
    "index_table": "search.table",
    "load_model": "model.file",
    "make_atlas": "reports.atlas.making",
    "model_on_ratings": "reports.ratings.model_on_ratings",
    "move_back": "search.set_aside",
    "read_classes": "datasets",
    "read_corrections": "datasets.corrections",
    "read_folder": "datasets",
    "read_image": "images",
    "read_partition": "datasets",
    "read_positive_pairs": "datasets",
    "read_ratings": "datasets.ratings",
    "read_triplets": "sampling.triplet_file",
    "report": "reports.reporting",
    "sample": "sampling.sample",
    "sample_triplets": "sampling",
    "save_model": "model.file",
    "summarize_ratings": "reports.ratings.summary",
    "teach": "training.taught.teaching",
    "train": "training.run",
    "triplet_dataset": "training.batches",
    "write_digits": "datasets.public",
    "write_triplets": "sampling.triplet_file",
}

__all__ = [
    "RECIPES",
    "Answer",
    "AnswerLog",
    "Augmentation",
    "BatchRankingLoss",
    "Calibration",
    "CalibrationResult",
    "Client",
    "Collection",
    "Comparison",
    "CompiledReport",
    "Correction",
    "CorrectionLog",
    "Corrections",
    "Duplicates",
    "EmbeddedTable",
    "Embedder",
    "Evaluation",
    "Examination",
    "Explanation",
    "Export",
    "ExportedRatings",
    "ExportedTable",
    "FolderConfig",
    "ImageListing",
    "ImportedRatings",
    "IndexReport",
    "InputError",
    "LabelledImages",
    "ModelOnRatings",
    "MoveReport",
    "MultiSimilarityLoss",
    "NetworkConfig",
    "Occlusion",
    "PairComparison",
    "RankingLoss",
    "Ratings",
    "RatingsSummary",
    "Report",
    "Result",
    "SampledTriplets",
    "SamplingConfig",
    "SearchResults",
    "Searcher",
    "Shards",
    "SoftMarginLoss",
    "SupervisedContrastiveLoss",
    "TableReport",
    "TaughtConfig",
    "TaughtReport",
    "TrainConfig",
    "TripletEvaluation",
    "Triplets",
    "WrittenAtlas",
    "__version__",
    "build_network",
    "calibrate",
    "compare",
    "compare_all",
    "compare_pairs",
    "compile_model",
    "corrected",
    "diagnose",
    "embed_images",
    "embed_table",
    "evaluate",
    "evaluate_on_triplets",
    "explain",
    "explain_by_occlusion",
    "export_model",
    "export_ratings",
    "export_table",
    "find_duplicates",
    "find_images",
    "import_ratings",
    "index_images",
    "index_on_ratings",
    "index_table",
    "load_model",
    "make_atlas",
    "model_on_ratings",
    "move_back",
    "read_classes",
    "read_corrections",
    "read_folder",
    "read_image",
    "read_partition",
    "read_positive_pairs",
    "read_ratings",
    "read_triplets",
    "report",
    "sample",
    "sample_triplets",
    "save_model",
    "summarize_ratings",
    "teach",
    "train",
    "triplet_dataset",
    "write_digits",
    "write_triplets",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
