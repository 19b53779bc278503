"""Whether a run gets better: which model is its best, when it is on a plateau, when it may stop."""

from deep_ranking.config import TrainConfig
from deep_ranking.training.run_folder import Row, RunState


class EarlyStopping:
    """The judgements of a run, one after the other.

    Args:
        config: the run's settings.
        state: the run's, in which the best value and the judgements since then are kept.
    """

    def __init__(self, config: TrainConfig, state: RunState) -> None:
        self._config = config
        self._state = state
        name = config.monitor or ("similarity_precision" if config.validates else "loss")
        self._sign = -1 if name == "loss" else 1  # that makes more better
        self._quantity = f"val_{name}" if config.validates else name

    def update(self, row: Row) -> bool:
        """Count an epoch's row, if it was judged; True if it is the best so far."""
        if self._quantity not in row:
            return False
        value = self._sign * row[self._quantity]
        if self._state.best is not None and value <= self._state.best:
            self._state.num_no_better += 1
            return False
        self._state.best, self._state.num_no_better = value, 0
        return True

    def is_on_plateau(self, row: Row) -> bool:
        """Whether the learning rate is due to fall, after a row that was taken in."""
        config, count = self._config, self._state.num_no_better
        waited = count > 0 and count % config.plateau_patience == 0
        return config.decay == "plateau" and self._quantity in row and waited

    @property
    def has_stopped(self) -> bool:
        """Whether as many judgements in turn as `patience` were no better than the best."""
        patience = self._config.patience
        return patience is not None and self._state.num_no_better >= patience
