"""Every choice that a user can make for a network and a training run, with its range.

The defaults are the blog's figures. Commands take their flags, help and defaults from the fields
here. Nothing in this room imports TensorFlow.
"""

from deep_ranking.config.backbones import BACKBONES, RANGES, Backbone, find_backbone
from deep_ranking.config.data import DataConfig
from deep_ranking.config.loss import DEFAULT_GAP, DISTANCES, HINGES, LOSSES, MININGS, LossConfig
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
from deep_ranking.config.streaming import StreamConfig
from deep_ranking.config.training import TrainConfig
from deep_ranking.config.validation import MONITORS, ValidationConfig

__all__ = [
    "BACKBONES",
    "DEFAULT_GAP",
    "DISTANCES",
    "HARD",
    "HEAD",
    "HINGES",
    "IN_CLASS",
    "LOSSES",
    "MININGS",
    "MONITORS",
    "OUT_OF_CLASS",
    "RANGES",
    "RELEVANCE",
    "STRATEGIES",
    "Backbone",
    "DataConfig",
    "LossConfig",
    "NetworkConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "StreamConfig",
    "TrainConfig",
    "ValidationConfig",
    "find_backbone",
]
