"""TrainConfig -> a trained model, and a run folder from which training can go on.

Order, augmentation and dropout of an epoch depend on (seed, epoch) alone, and a checkpoint holds
all the rest, so that a run that was stopped goes on to the same result.
"""

import dataclasses
import math
import sys
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np

from deep_ranking.calibration import Calibration
from deep_ranking.checkpoint import restore_variables, save_checkpoint
from deep_ranking.config import TrainConfig
from deep_ranking.diagnosis import diagnose
from deep_ranking.errors import InputError
from deep_ranking.files import make_folder
from deep_ranking.model_file import save_model
from deep_ranking.network import build_network, set_trainable_from
from deep_ranking.pipeline import TripletSource
from deep_ranking.run_folder import Row, RunFolder, RunState, write_tensorboard
from deep_ranking.triplets import read_triplets
from deep_ranking.validation import make_validation, ranking_loss, triplet_metrics


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    verbose: int | None = None,
) -> keras.Model:
    """Train a network, and write its model file and run folder.

    Args:
        config: all settings. Everything in it is checked before the network is built.
        resume: go on with the run that the run folder holds, to the same result as if it had not
            been stopped; a run that has not begun begins.
        overwrite: start anew in place of an earlier run.
        verbose: Keras' progress: 0 none, 1 bars, 2 a line an epoch; None chooses bars for a
            terminal and lines for a log.

    Returns:
        The model after the last epoch, as in the model file.

    Raises:
        InputError: a setting, a file or an image cannot be used; an earlier run is in the way; or
            the loss became NaN.
    """
    if verbose is None:
        verbose = 1 if sys.stdout.isatty() else 2
    run = _Run(config, resume=resume, overwrite=overwrite)
    model = run.begin()
    while not run.is_over:
        run.train_epoch(model, verbose)
    save_model(model, config.output)
    if run.stopped_early:
        epoch = run.state.num_epochs
        print(f"Stopped early after epoch {epoch}: no better for {config.patience} judgements.")
    if run.training.broken:
        print(f"{len(run.training.broken):,} triplets left out: a missing or broken image.")
    return model


class _Run:
    """One run: its sources of batches, its folder and its state. Making it only checks."""

    def __init__(self, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
        self.config = config
        self.folder = RunFolder(config)
        self.resumes = self.folder.check_earlier_run(config, resume=resume, overwrite=overwrite)
        self.training = TripletSource(
            read_triplets(config.triplets),
            image_size=config.network.image_size,
            batch_size=config.batch_size,
            dataset_dir=config.dataset,
            augmentation=config.augmentation,
            shuffle=config.shuffle,
            seed=config.seed,
            skip_broken=config.skip_broken,
            steps_per_epoch=config.steps_per_epoch,
            save_dir=config.save_augmented,
        )
        self.validation = make_validation(config)
        if config.tensorboard and find_spec("tensorboard") is None:
            raise InputError(
                "--tensorboard needs the package of that name: pip install tensorboard"
            )
        self.state = self.folder.read_state(config) if self.resumes else RunState.of(config)
        make_folder(config.output.parent)

    def begin(self) -> keras.Model:
        """Build the model, as at the start or where the run was stopped, and the run's folder."""
        config = self.config
        network = config.network
        if self.resumes:  # all weights come from the checkpoint
            network = dataclasses.replace(network, weights=None)
        model = build_network(network, seed=config.seed)
        set_trainable_from(model, config.train_from)
        model.compile(
            optimizer=_optimizer(config),
            loss=ranking_loss(config),
            metrics=triplet_metrics(config),
        )
        _print_size(model, self.training)
        if self.resumes:
            restore_variables(self.folder.checkpoint, model)
            if self.state.calibration is not None:
                model.calibration = Calibration.from_json(self.state.calibration)
            print(f"Going on after epoch {self.state.num_epochs} of {config.epochs}.")
        else:
            self.folder.clear()
        self.folder.write_settings(config)
        if self.validation is not None and not self.state.history:
            self.state.history.append(self._judge(model, 0, {"epoch": 0}))
        if self.state.history:
            self.folder.write_history(self.state.history)
        return model

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or nothing got better for too long."""
        return self.stopped_early or self.state.num_epochs >= self.config.epochs

    @property
    def stopped_early(self) -> bool:
        """Whether as many judgements in turn as `patience` were no better than the best."""
        patience = self.config.patience
        return patience is not None and self.state.num_no_better >= patience

    def train_epoch(self, model: keras.Model, verbose: int) -> None:
        """Train one epoch, and bring the run's folder up to date."""
        epoch = self.state.num_epochs
        _seed_dropout(model, self.config.seed, epoch)
        with self.training.explained():
            history = model.fit(
                self.training.dataset(epoch),
                initial_epoch=epoch,
                epochs=self.config.epochs,
                shuffle=False,
                callbacks=[_StopAfterEpoch()],
                verbose=verbose,
            ).history
        row = {name: float(values[-1]) for name, values in history.items()}
        if not (math.isfinite(row["loss"]) and _is_finite(model)):
            raise InputError(
                f"weights became NaN or infinite in epoch {epoch + 1} (loss {row['loss']}); start "
                "anew with a lower --learning_rate and --overwrite"
            )
        row = self._judge(model, epoch + 1, {"epoch": epoch + 1, **row})
        self.state.num_epochs = epoch + 1
        self.state.history.append(row)
        if self._is_best(row):
            save_model(model, self.folder.best)
        save_checkpoint(self.folder.checkpoint, model, dataclasses.asdict(self.state))
        self.folder.write_history(self.state.history)
        if self.config.tensorboard:
            write_tensorboard(self.folder.path / "tensorboard", row)
        advice = diagnose(self.state.history, self.config.gap)
        if advice:
            print(advice)

    def _judge(self, model: keras.Model, epoch: int, row: Row) -> Row:
        """Add to an epoch's row what is found on validation data, if it is due."""
        due = epoch % self.config.validate_every == 0 or epoch == self.config.epochs
        if self.validation is None or not due:
            return row
        found, calibration = self.validation.measure(model)
        print(f"{f'Epoch {epoch}' if epoch else 'Before training'}, validation: {_describe(found)}")
        self.state.calibration = None if calibration is None else calibration.to_json()
        model.calibration = calibration
        return row | found

    def _is_best(self, row: Row) -> bool:
        """Whether the model is the best so far; counts the judgements since then."""
        sign, quantity = _monitored(self.config)
        if quantity not in row:
            return False
        value = sign * row[quantity]
        if self.state.best is not None and value <= self.state.best:
            self.state.num_no_better += 1
            return False
        self.state.best, self.state.num_no_better = value, 0
        return True


def _monitored(config: TrainConfig) -> tuple[int, str]:
    """Sign that makes more better, and column of the history, of what the best model goes by."""
    validates = config.validation_triplets or config.validation_dataset
    name = config.monitor or ("similarity_precision" if validates else "loss")
    return -1 if name == "loss" else 1, f"val_{name}" if validates else name


class _StopAfterEpoch(keras.callbacks.Callback):
    """Ends `fit` after one epoch, as the next one reads from a data set of its own."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = True


def _optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.learning_rate)
    return keras.optimizers.SGD(config.learning_rate, momentum=0.9, nesterov=True)


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Let each dropout layer's numbers follow from (seed, epoch)."""
    dropouts = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Dropout) and layer.rate
    ]
    for number, layer in enumerate(dropouts):
        state = np.random.SeedSequence([seed, epoch, number]).generate_state(2)
        layer.seed_generator.state.assign(state % 2**31)


def _is_finite(model: keras.Model) -> bool:
    """Whether all weights are numbers; the last step of an epoch shows in no loss of it."""
    return all(
        bool(keras.ops.all(keras.ops.isfinite(weight))) for weight in model.trainable_weights
    )


def _print_size(model: keras.Model, source: TripletSource) -> None:
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    print(
        f"{len(source.triplets):,} triplets of {len(source.triplets.paths):,} images, "
        f"{source.num_batches:,} batches an epoch; "
        f"{model.count_params():,} parameters, {trained:,} of them trained."
    )


def _describe(found: Row) -> str:
    shown = ("val_similarity_precision", "val_recall_at_1", "val_map_at_r", "val_loss")
    return ", ".join(
        f"{name.removeprefix('val_').replace('_', ' ')} {found[name]:.4f}"
        for name in shown
        if name in found
    )
