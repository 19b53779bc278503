"""Settings of triplets that a strategy draws while a network trains, without a triplet file."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from deep_ranking.config.base import setting
from deep_ranking.config.data import DataConfig
from deep_ranking.config.sampling import HARD, RELEVANCE, SamplingConfig
from deep_ranking.files import InputError


@dataclass(frozen=True, kw_only=True)
class DrawnTripletsConfig(DataConfig):
    """Which triplets to draw from the folders of a data set; by default, read a triplet file.

    Raises:
        InputError: a value is out of its range, or settings do not go together.
    """

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    level: int | None = setting(
        None,
        "number of leading folders of a path that make the category, with in-class and relevance "
        "(default: 1)",
    )
    relevance: str | None = setting(
        None,
        "relevance of two images. PATH.csv: scores from lines of path,path,score; PATH.h5: cosine "
        "of the embeddings of a model; backbone: cosine of the embeddings of the untrained "
        "backbone with --weights; features: cosine of colour and texture; tree: share of folders "
        "that two images have in common",
        metavar="HOW",
    )
    neighbours_of: Path | None = setting(
        None,
        "hard: model file, or folder of an index of these images, that finds the first nearest "
        "images (default: the network as it starts)",
    )
    resample_every: int | None = setting(
        None,
        "number of epochs after which hard finds the nearest images again, by the network as it is "
        "then (default: 1; with --neighbours_of, never), and other strategies draw new triplets "
        "(default: 1)",
    )

    @property
    def draws_triplets(self) -> bool:
        """Whether a strategy draws the triplets while training, instead of reading a file."""
        return self.sampling.strategy is not None

    def __post_init__(self) -> None:
        """Check the ranges, and that there is a folder to draw from."""
        super().__post_init__()
        self._check_counts("resample_every", "level")
        strategy = self.sampling.strategy
        if strategy is None:
            self._check_without_strategy()
            return
        if self.batches != "triplets":
            raise InputError(f"strategy {strategy} needs batches of triplets: --batches triplets")
        if self.triplets is not None:
            raise InputError(
                f"give strategy {strategy} or triplets, not both: it draws them from --dataset"
            )
        if self.dataset is None:
            raise InputError(f"strategy {strategy} needs the folder to draw from: --dataset")
        if self.level is not None and not self.sampling.has_nested_folders:
            raise InputError("level needs --strategy in-class or relevance")
        if (self.relevance is None) == (strategy == RELEVANCE):
            raise InputError("--strategy relevance and --relevance need each other")
        if self.neighbours_of is not None and strategy != HARD:
            raise InputError("neighbours_of needs --strategy hard")

    def _check_without_strategy(self) -> None:
        """Refuse settings that only a strategy uses."""
        unused = SamplingConfig()
        names = [
            each.name
            for each in fields(SamplingConfig)
            if getattr(self.sampling, each.name) != getattr(unused, each.name)
        ]
        own = ("level", "relevance", "neighbours_of", "resample_every")
        names += [name for name in own if getattr(self, name) is not None]
        if names:
            raise InputError(f"{names[0]} needs --strategy, which draws triplets")
