"""Settings of triplets that are drawn while a network trains, with no file between."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from deep_ranking.config.data import DataConfig
from deep_ranking.config.sampling import HARD, IN_CLASS, RELEVANCE, SamplingConfig
from deep_ranking.files import InputError


@dataclass(frozen=True, kw_only=True)
class StreamConfig(DataConfig):
    """Which triplets are drawn from the folders of a data set: none by default, but a file's read.

    Raises:
        InputError: a value is out of its range, or settings do not go together.
    """

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    level: int | None = field(
        default=None,
        metadata={
            "help": "leading folders of a path that make the category, with in-class and relevance "
            "(default: 1)"
        },
    )
    relevance: str | None = field(
        default=None,
        metadata={
            "help": "relevance of two images: PATH.csv of path,path,score; the cosine of the "
            "embeddings of a model, PATH.h5, of the untrained `backbone` with --weights, or of "
            "colour and texture, `features`; `tree`, the share of their folders that two images "
            "have in common",
            "metavar": "HOW",
        },
    )
    neighbours_of: Path | None = field(
        default=None,
        metadata={
            "help": "hard: model file, or folder of an index of these images, that says at first "
            "which images are near (default: the network as it begins)"
        },
    )
    resample_every: int | None = field(
        default=None,
        metadata={
            "help": "epochs after which hard looks for the nearest images again, by the network as "
            "it is then (default: 1; with --neighbours_of, never), and after which other "
            "strategies draw other triplets (default: 1)"
        },
    )

    @property
    def draws(self) -> bool:
        """Whether triplets are drawn while training, rather than read."""
        return self.sampling.strategy is not None

    @property
    def has_nested_folders(self) -> bool:
        """Whether folders are category/.../item, rather than one a class."""
        return self.sampling.strategy in (IN_CLASS, RELEVANCE)

    def __post_init__(self) -> None:
        """Check the ranges, and that there is something to draw from."""
        super().__post_init__()
        self._check_counts("resample_every", "level")
        strategy = self.sampling.strategy
        if strategy is None:
            self._check_nothing_is_drawn()
            return
        if self.batches != "triplets":
            raise InputError(f"strategy {strategy} needs batches of triplets: --batches triplets")
        if self.triplets is not None:
            raise InputError(
                f"give strategy {strategy} or triplets, not both: it draws them from --dataset"
            )
        if self.dataset is None:
            raise InputError(f"strategy {strategy} needs the folder to draw from: --dataset")
        if self.level is not None and not self.has_nested_folders:
            raise InputError("level needs --strategy in-class or relevance")
        if (self.relevance is None) == (strategy == RELEVANCE):
            raise InputError("--strategy relevance and --relevance need each other")
        if self.neighbours_of is not None and strategy != HARD:
            raise InputError("neighbours_of needs --strategy hard")

    def _check_nothing_is_drawn(self) -> None:
        unused = SamplingConfig()
        names = [
            each.name
            for each in fields(SamplingConfig)
            if getattr(self.sampling, each.name) != getattr(unused, each.name)
        ]
        own = ("level", "relevance", "neighbours_of", "resample_every")
        names += [name for name in own if getattr(self, name) is not None]
        if names:
            raise InputError(f"{names[0]} needs --strategy, by which triplets are drawn")
