"""Settings of judging a model while it trains."""

from dataclasses import dataclass, field
from pathlib import Path

from deep_ranking.config.checks import Config
from deep_ranking.files import InputError

MONITORS = ("loss", "similarity_precision", "recall_at_1", "map_at_r")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig(Config):
    """What a model is judged on while it trains: nothing by default.

    Raises:
        InputError: settings that do not go together.
    """

    validation_triplets: Path | None = field(
        default=None,
        metadata={"help": "triplet file to judge on, before training and while it goes on"},
    )
    validation_dataset: Path | None = field(
        default=None,
        metadata={
            "help": "folder of classes to judge on instead, by recall@1, mAP@R and similarity "
            "precision; training must not see them"
        },
    )
    validation_share: float | None = field(
        default=None,
        metadata={
            "help": "share of the classes of --dataset that training leaves out, to judge on them "
            "(with --batches classes or --strategy)"
        },
    )
    validate_every: int = field(
        default=1, metadata={"help": "epochs from one judgement to the next"}
    )
    monitor: str | None = field(
        default=None,
        metadata={
            "help": "what the best model and --patience go by (default: similarity precision on "
            "validation data or, without any, the training loss)",
            "choices": MONITORS,
        },
    )
    patience: int | None = field(
        default=None,
        metadata={
            "help": "stop when so many judgements in turn were no better than the best "
            "(default: never)"
        },
    )

    @property
    def validates(self) -> bool:
        """Whether there is anything to judge on."""
        names = ("validation_triplets", "validation_dataset", "validation_share")
        return any(getattr(self, name) is not None for name in names)

    def __post_init__(self) -> None:
        """Check that the monitored quantity is one that is measured."""
        super().__post_init__()
        self._check_counts("validate_every", "patience")
        names = ("validation_triplets", "validation_dataset", "validation_share")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"give {' or '.join(given)}, not both")
        if self.monitor is None:
            return
        self._check_choice("monitor", MONITORS)
        measured = {"loss"}
        if self.validation_triplets is not None:
            measured = {"loss", "similarity_precision"}
        if self.validation_dataset is not None or self.validation_share is not None:
            measured = {"similarity_precision", "recall_at_1", "map_at_r"}
        if self.monitor not in measured:
            raise InputError(
                f"monitor {self.monitor} is not measured; with the validation data given, choose "
                f"one of: {', '.join(sorted(measured))}"
            )
