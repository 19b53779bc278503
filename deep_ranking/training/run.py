"""TrainConfig -> a trained model, and a run folder from which training can go on.

Order, augmentation and dropout of an epoch depend on (seed, epoch) alone, and a checkpoint holds
all the rest, so that a run that was stopped goes on to the same result.
"""

import dataclasses
import math
import sys
from typing import Any

import keras
import numpy as np

from deep_ranking.config import HEAD, TrainConfig
from deep_ranking.embedding.embed import embedded_features, embedded_images
from deep_ranking.embedding.feature_store import CachedFeatures
from deep_ranking.files import InputError, make_folder
from deep_ranking.losses import BatchLoss, kernel_penalty, make_loss, make_metrics, penalise_kernels
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.file import save_model
from deep_ranking.model.mixed_precision import FULL, resolved_precision, set_precision
from deep_ranking.model.network import build_network, set_trainable_from, split_at_frozen
from deep_ranking.training.batches import ClassSource
from deep_ranking.training.checkpoint import restore_variables, save_checkpoint
from deep_ranking.training.data import (
    cached_features,
    feature_source,
    image_source,
    start_embedding,
)
from deep_ranking.training.devices import Devices
from deep_ranking.training.diagnosis import Diagnosis, diagnose, not_finite
from deep_ranking.training.early_stopping import EarlyStopping
from deep_ranking.training.optimizers import make_optimizer
from deep_ranking.training.run_folder import Row, RunFolder, RunState
from deep_ranking.training.tensorboard import TensorBoardWriter
from deep_ranking.training.validation import make_validation, validation_summary

# A run that was mended so often is not going to be.
MAX_FIXES = 5
# Seconds from one picture of the history to the next.
PICTURE_SECONDS = 10.0


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
    run = TrainingRun(config, resume=resume, overwrite=overwrite)
    run.begin()
    try:
        while not run.is_over:
            run.train_epoch(verbose)
    finally:
        run.folder.draw_history(run.state.history)
    set_precision(run.model, FULL)
    run.model.make_predict_function(force=True)  # the one of its judgements has another precision
    save_model(run.model, config.output)
    run.tensorboard.write_embeddings(run.devices.on_one(run.model))
    if run.early_stopping.has_stopped:
        epoch = run.state.num_epochs
        print(f"Stopped early after epoch {epoch}: no better for {config.patience} judgements.")
    if run.source.broken:
        of_file = config.batches == "triplets" and not config.draws
        what = "triplets" if of_file else "images"
        print(f"{len(run.source.broken):,} {what} left out: a missing or broken image.")
    return run.model


class TrainingRun:
    """One run: its batches, its networks, its folder and its state. Making it only checks.

    Attributes:
        model: the whole network, from images.
        trained: what `fit` trains: the whole, or what follows the cached features.
        source: the batches that `trained` takes.
        validation_features: what is cached of the images to judge on.
    """

    model: keras.Model
    trained: keras.Model
    validation_features: CachedFeatures | None = None

    def __init__(self, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
        self.config = config
        self.folder = RunFolder(config)
        self.resumes = self.folder.check_earlier_run(config, resume=resume, overwrite=overwrite)
        self.images = image_source(config)
        self.source: Any = self.images
        self.validation = make_validation(config)
        self.tensorboard = TensorBoardWriter(config, self.images, self.validation)
        self.state = self.folder.read_state(config) if self.resumes else RunState.of(config)
        self.early_stopping = EarlyStopping(config, self.state)
        self.devices = Devices(config.devices)
        make_folder(config.output.parent)

    def begin(self) -> None:
        """Build the networks, as at the start or where the run was stopped, and its folder."""
        config = self.config
        network = config.network
        if self.resumes:  # all weights come from the checkpoint
            network = dataclasses.replace(network, weights=None)
        frozen = None
        with self.devices.scope():
            self.model = self.trained = build_network(network, seed=config.seed)
            set_trainable_from(self.model, config.train_from)
            if config.cache_features:
                frozen, self.trained = split_at_frozen(self.model)
        if self.resumes:
            self._go_on()
        if frozen is not None:
            self._cache(self.devices.on_one(frozen))
        if not self.resumes:
            if config.embedding_start != "random":
                start_embedding(config, self.model, self.source, frozen)
            self._compile(config.start_epoch)
            self.folder.clear()  # nothing of this run can fail any more before it begins
        self.folder.write_settings(config)
        self._print_size()
        if self.validation is not None and not self.state.history:
            self.state.history.append(
                self._judge(config.start_epoch, {"epoch": config.start_epoch})
            )
        if self.state.history:
            self.folder.write_history(self.state.history)
        if config.auto_fix and not self.resumes:
            self._save_checkpoint()  # something to go back to

    def _cache(self, frozen: keras.Model) -> None:
        """Let features of the frozen layers take the place of images."""
        if isinstance(self.images, ClassSource):
            self.source = feature_source(self.config, self.images, frozen)
        if self.validation is not None:
            paths = self.validation.paths
            self.validation_features = cached_features(self.config, paths, frozen, num_views=1)

    def _go_on(self) -> None:
        """Take weights, optimizer and settings from the checkpoint."""
        self.config = dataclasses.replace(self.config, **self.state.fixes)
        self._restore()
        if self.state.calibration is not None:
            self.model.calibration = Calibration.from_json(self.state.calibration)
        print(f"Going on after epoch {self.state.num_epochs} of {self.config.epochs}.")

    def _restore(self) -> None:
        """Take weights and optimizer from the checkpoint of the latest epoch."""
        self._compile(max(self.config.start_epoch, self.state.num_epochs - 1))
        restore_variables(self.folder.checkpoint, self.model, self.trained.optimizer)

    def _compile(self, epoch: int) -> None:
        """Make optimizer and loss for the part of the run that an epoch, from 0, belongs to."""
        config = self.config
        self.trains_head = epoch < config.head_epochs
        set_trainable_from(self.model, HEAD if self.trains_head else config.train_from)
        set_precision(self.trained, resolved_precision(config.precision))
        penalise_kernels(self.trained, config.weight_penalty)
        head_epochs = min(config.head_epochs, config.epochs)
        first, last = (0, head_epochs) if self.trains_head else (head_epochs, config.epochs)
        num_epochs = last - max(first, config.start_epoch)
        rate = config.learning_rate
        if self.trains_head and config.head_learning_rate is not None:
            rate = config.head_learning_rate
        with self.devices.scope():
            self.loss = make_loss(config, config.batches, config.network.embedding_size)
            self.trained.compile(
                optimizer=make_optimizer(
                    config,
                    self.model.backbone_layers,
                    learning_rate=rate * config.plateau_factor**self.state.num_rate_drops,
                    num_steps=num_epochs * self.source.num_batches,
                ),
                loss=self.devices.loss(self.loss),
                metrics=self.devices.metrics(make_metrics(config, config.batches)),
                jit_compile="auto" if config.xla is None else config.xla,
            )
            self.trained.optimizer.build(self.trained.trainable_variables)

    def _compile_again(self) -> None:
        """Take up changed settings, while the optimizer's moments and number of steps go on."""
        optimizer = self.trained.optimizer
        self._compile(self.state.num_epochs)
        for variable, before in zip(
            self.trained.optimizer.variables, optimizer.variables, strict=True
        ):
            variable.assign(before)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or nothing got better for too long."""
        return self.early_stopping.has_stopped or self.state.num_epochs >= self.config.epochs

    def train_epoch(self, verbose: int) -> None:
        """Train one epoch, and bring the run's folder up to date."""
        epoch = self.state.num_epochs
        if self.trains_head != (epoch < self.config.head_epochs):
            self._compile(epoch)
        self.source.prepare(epoch, self.devices.on_one(self.model))
        self.tensorboard.show_batch(self.source, epoch)
        _seed_dropout(self.model, self.config.seed, epoch)
        if isinstance(self.loss, BatchLoss) and self.loss.memory is not None:
            self.loss.memory.reset()
        batches = self.source.dataset(epoch)
        with self.source.explained():
            history = self.trained.fit(
                self.devices.share(batches, self.source.rows_together),
                steps_per_epoch=int(batches.cardinality()) if self.devices.count > 1 else None,
                initial_epoch=epoch,
                epochs=self.config.epochs,
                shuffle=False,
                callbacks=[_StopAfterEpoch()],
                verbose=verbose,
            ).history
        row: Row = {"epoch": epoch + 1} | {
            name: float(values[-1]) for name, values in history.items()
        }
        if self.config.weight_penalty:
            row["weight_penalty"] = kernel_penalty(self.trained, self.config.weight_penalty)
        finding = self._diagnose(row)
        if finding is not None and self._mend(finding) and finding.spoilt:
            return
        row = self._judge(epoch + 1, row)
        self.state.num_epochs = epoch + 1
        self.state.history.append(row)
        if self.early_stopping.update(row):
            save_model(self.model, self.folder.best)
        elif self.early_stopping.is_on_plateau(row):
            self.state.num_rate_drops += 1
            if self.trains_head == (self.state.num_epochs < self.config.head_epochs):
                self._compile_again()
            factor = self.config.plateau_factor**self.state.num_rate_drops
            print(f"On a plateau: the learning rate is now {factor:g} times what it was at first.")
        self._save_checkpoint()
        self.folder.write_history(self.state.history)
        self.folder.draw_history(self.state.history, unless_younger_than=PICTURE_SECONDS)
        self.tensorboard.add_epoch(row)

    def _diagnose(self, row: Row) -> Diagnosis | None:
        """Say what is wrong after an epoch.

        Raises:
            InputError: the weights are no numbers any more, and are not to be mended.
        """
        if math.isfinite(row["loss"]) and _is_finite(self.model):
            return diagnose([*self.state.history, row], self.config)
        finding = not_finite(int(row["epoch"]), row["loss"], self.config)
        if not self.config.auto_fix or len(self.state.fixed_epochs) == MAX_FIXES:
            raise InputError(finding.text)
        return finding

    def _mend(self, finding: Diagnosis) -> bool:
        """Say what was found, and change the settings if that is wanted; True if they changed."""
        print(finding.text)
        fixes = finding.fixes
        if not (self.config.auto_fix and fixes) or len(self.state.fixed_epochs) == MAX_FIXES:
            return False
        changes = ", ".join(
            f"{name} {getattr(self.config, name)} -> {value}" for name, value in fixes.items()
        )
        back = ", back to the weights of the epoch before" if finding.spoilt else ""
        print(f"Going on with {changes}{back}.")
        self.config = dataclasses.replace(self.config, **fixes)
        self.state.fixes |= fixes
        self.state.fixed_epochs.append(self.state.num_epochs + 1)
        if finding.spoilt:
            self._restore()
            return True
        self._compile_again()
        return True

    def _save_checkpoint(self) -> None:
        state = dataclasses.asdict(self.state)
        save_checkpoint(self.folder.checkpoint, self.model, self.trained.optimizer, state)

    def _judge(self, epoch: int, row: Row) -> Row:
        """Add to an epoch's row what is found on validation data, if it is due."""
        config = self.config
        ends = (config.start_epoch, config.epochs)
        due = epoch % config.validate_every == 0 or epoch in ends
        if self.validation is None or not due:
            return row
        if self.validation_features is not None:
            head = self.devices.on_one(self.trained)
            embedded = embedded_features(head, self.validation_features)
        else:
            paths, skip_broken = self.validation.paths, self.config.skip_broken
            network = self.devices.on_one(self.model)
            embedded = embedded_images(network, paths, skip_broken=skip_broken)
        with embedded as rows:
            found, calibration = self.validation.measure(rows)
        print(
            f"{f'Epoch {epoch}' if epoch else 'Before training'}, validation: {validation_summary(found)}"
        )
        self.state.calibration = None if calibration is None else calibration.to_json()
        self.model.calibration = calibration
        return row | found

    def _print_size(self) -> None:
        trained = sum(math.prod(weight.shape) for weight in self.trained.trainable_weights)
        print(
            f"{self.source.description}, {self.source.num_batches:,} batches an epoch; "
            f"{self.model.count_params():,} parameters, {trained:,} of them trained."
        )


class _StopAfterEpoch(keras.callbacks.Callback):
    """Ends `fit` after one epoch, as the next one reads from a data set of its own."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = True


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
