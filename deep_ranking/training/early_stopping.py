"""Whether a run gets better: which epoch is the best, when it is on a plateau, when it stops."""

from deep_ranking.config import TrainConfig
from deep_ranking.training.history import Row
from deep_ranking.training.resuming import RunState


class EarlyStopping:
    """Watches the quantity of `--monitor`, epoch after epoch.

    Without validation it is the loss of training, and every epoch counts as validated.

    Args:
        config: the run's settings.
        state: the run's state, which keeps the best value and the number of validations since.
    """

    def __init__(self, config: TrainConfig, state: RunState) -> None:
        self._config = config
        self._state = state
        name = config.monitor or ("similarity_precision" if config.validates else "loss")
        self._sign = -1 if name == "loss" else 1  # times which a higher value is better
        self._quantity = f"val_{name}" if config.validates else name

    def update(self, row: Row) -> bool:
        """Record a validated epoch; return whether it is the best so far.

        The row of an epoch that was not validated changes nothing.
        """
        if self._quantity not in row:
            return False
        value = self._sign * row[self._quantity]
        if self._state.best is not None and value <= self._state.best:
            self._state.num_no_better += 1
            return False
        self._state.best, self._state.num_no_better = value, 0
        return True

    def is_on_plateau(self, row: Row) -> bool:
        """Return whether the learning rate should fall now, after `update` with the same row."""
        config, count = self._config, self._state.num_no_better
        waited = count > 0 and count % config.plateau_patience == 0
        return config.decay == "plateau" and self._quantity in row and waited

    @property
    def has_stopped(self) -> bool:
        """Whether the last `patience` validations were no better than the best."""
        patience = self._config.patience
        return patience is not None and self._state.num_no_better >= patience
