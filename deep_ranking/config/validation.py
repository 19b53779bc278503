"""Settings of validation while a model trains."""

from dataclasses import dataclass
from pathlib import Path

from deep_ranking.config.base import Config, setting
from deep_ranking.files import InputError

MONITORS = ("loss", "similarity_precision", "recall_at_1", "map_at_r")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig(Config):
    """The data to validate on while training, and how often: no validation by default.

    Raises:
        InputError: a value is out of its range, or settings do not go together.
    """

    validation_triplets: Path | None = setting(
        None, "triplet file to validate on, before and during training", metavar="FILE"
    )
    validation_dataset: Path | None = setting(
        None,
        "folder of other classes to validate on, by recall@1, mAP@R and similarity precision",
        metavar="DIR",
    )
    validation_share: float | None = setting(
        None,
        "share of the classes of --dataset to leave out and validate on (with --batches classes or "
        "--strategy)",
        metavar="SHARE",
    )
    validation_split: str | None = setting(
        None,
        "split of --dataset to validate on (default: val if it has such a split and no other "
        "validation data is given)",
    )
    validate_every: int = setting(1, "epochs from one validation to the next, with validation data")
    monitor: str | None = setting(
        None,
        "figure that picks the best model and that --patience watches (default: similarity "
        "precision on validation data or, without any, the training loss)",
        choices=MONITORS,
    )
    patience: int | None = setting(
        None, "stop after this many validations in a row without improvement (default: never)"
    )

    @property
    def validates(self) -> bool:
        """Whether there is data to validate on."""
        return bool(self._validation_data())

    def __post_init__(self) -> None:
        """Check the ranges, and that validation measures the monitored figure."""
        super().__post_init__()
        self._check_counts("validate_every", "patience")
        share = self.validation_share
        if share is not None and not 0 < share < 1:
            raise InputError(f"validation_share must lie between 0 and 1. Received: {share}")
        given = self._validation_data()
        if len(given) > 1:
            raise InputError(f"give {' or '.join(given)}, not both")
        if self.monitor is None:
            return
        if self.validation_triplets is not None:
            measured = {"loss", "similarity_precision"}
        else:
            measured = {"similarity_precision", "recall_at_1", "map_at_r"} if given else {"loss"}
        if self.monitor not in measured:
            raise InputError(
                f"monitor {self.monitor} is not measured; with this validation data, choose one "
                f"of: {', '.join(sorted(measured))}"
            )

    def _validation_data(self) -> list[str]:
        """Return the names of the settings that give validation data."""
        names = (
            "validation_triplets", "validation_dataset", "validation_share", "validation_split"
        )  # fmt: skip
        return [name for name in names if getattr(self, name) is not None]
