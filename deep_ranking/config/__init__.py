"""All settings of a network, of sampling and of a training run, with their ranges.

The defaults are the blog's figures. Commands take their flags, help and defaults from the fields
of these classes. No module here imports TensorFlow.
"""

from deep_ranking.config.backbones import BACKBONES, RANGES, Backbone, find_backbone
from deep_ranking.config.data import DataConfig, DrawnTripletsConfig
from deep_ranking.config.folders import FolderConfig
from deep_ranking.config.loss import DEFAULT_GAP, DISTANCES, HINGES, MININGS, LossConfig
from deep_ranking.config.network import HEAD, NetworkConfig
from deep_ranking.config.sampling import (
    HARD,
    IN_CLASS,
    OUT_OF_CLASS,
    RELEVANCE,
    STRATEGIES,
    SamplingConfig,
)
from deep_ranking.config.schedule import ScheduleConfig
from deep_ranking.config.training import TrainConfig
from deep_ranking.config.validation import ValidationConfig

__all__ = [
    "BACKBONES",
    "DEFAULT_GAP",
    "DISTANCES",
    "HARD",
    "HEAD",
    "HINGES",
    "IN_CLASS",
    "MININGS",
    "OUT_OF_CLASS",
    "RANGES",
    "RELEVANCE",
    "STRATEGIES",
    "Backbone",
    "DataConfig",
    "DrawnTripletsConfig",
    "FolderConfig",
    "LossConfig",
    "NetworkConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "TrainConfig",
    "ValidationConfig",
    "find_backbone",
]
