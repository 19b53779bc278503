"""Training runs that are stopped, and the history that they leave."""

import csv

import pytest

from deep_ranking.training.run import TrainingRun, train


def interrupted(config, monkeypatch, after):
    """Train until so many epochs are done, and stop as if by Ctrl+C."""
    whole = TrainingRun.train_epoch

    def train_epoch(run, verbose):
        if run.state.num_epochs == after:
            raise KeyboardInterrupt
        whole(run, verbose)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "train_epoch", train_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(config, verbose=0)


def history_of(config):
    with (config.run_dir / "history.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))
