"""Which split of a data set a run validates on; `doctor` asks too, without loading Keras."""

from deep_ranking.config import TrainConfig
from deep_ranking.datasets import LabelledImages
from deep_ranking.datasets.splits import TO_TRAIN, VAL, split_kind, split_to_take
from deep_ranking.files import InputError


def validation_split(config: TrainConfig, data: LabelledImages) -> str | None:
    """Return the split to validate on: the one that is named, or `val` if nothing else is given.

    Raises:
        InputError: it is the split to train on.
    """
    if config.validation_split is not None:
        if config.validation_split == split_to_take(data, TO_TRAIN, config.split):
            raise InputError(
                f"validation_split {config.validation_split}: is trained on; choose another"
            )
        return config.validation_split
    if data.splits is None or config.validates:
        return None
    names = sorted(set(data.splits.tolist()) - {config.split})
    return next((name for name in names if split_kind(name) == VAL), None)
