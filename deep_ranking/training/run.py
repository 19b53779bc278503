"""TrainConfig -> a trained model, and a run folder from which training can go on.

`trainer` trains an epoch; this module decides what happens before, between and after the epochs.

On several hosts, the chief decides and writes, see `hosts`; the others follow it.

The run folder NAME.run/ beside NAME.h5 holds `config.json` (the settings), `history.csv` and
`history.png`, `best.h5` (the model of the best epoch), `checkpoint.h5`, and what settings ask for:
`neighbours.h5` with `--strategy hard`, and `tensorboard/`. Each file is replaced atomically.
`resuming` says how a run goes on from them.
"""

import dataclasses
import math
import sys
from functools import partial
from typing import Any

import keras

from deep_ranking.config import TrainConfig
from deep_ranking.embedding.cached_features import Features
from deep_ranking.embedding.embed import embedded_images
from deep_ranking.embedding.embedded_features import embedded_features
from deep_ranking.files import InputError, make_folder, progress_bar
from deep_ranking.model.file import save_model
from deep_ranking.model.keras_settings import default_settings
from deep_ranking.model.mixed_precision import FULL, set_precision
from deep_ranking.training.batches import ClassSource
from deep_ranking.training.cached_source import feature_source, run_features
from deep_ranking.training.data import image_source, read_run_images
from deep_ranking.training.devices import Devices
from deep_ranking.training.diagnosis import TrainingDiagnosis, diagnose_training, not_finite
from deep_ranking.training.early_stopping import EarlyStopping
from deep_ranking.training.history import Row
from deep_ranking.training.hosts import Hosts
from deep_ranking.training.leakage import leakage_notes
from deep_ranking.training.notes import end_notes, resumed_line, schedule_notes
from deep_ranking.training.resuming import (
    SETTINGS,
    RunState,
    is_resumed,
    planned_epochs,
    settings_to_share,
)
from deep_ranking.training.run_folder import RunFolder
from deep_ranking.training.tensorboard import TensorBoardWriter
from deep_ranking.training.trainer import Trainer
from deep_ranking.training.validation import make_validation, validation_summary

# Once settings were changed this often, another change is not going to help.
MAX_FIXES = 5


@default_settings()
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
        resume: go on with the run in the run folder, to the same result as if it had not been
            stopped; without such a run, start one.
        overwrite: replace an earlier run.
        verbose: Keras' progress: 0 none, 1 bars, 2 a line an epoch; None chooses bars for a
            terminal and lines for a log; a long epoch says in a log how far it is.

    Returns:
        The model after the last epoch, as in the model file.

    Example:
        >>> network = NetworkConfig(image_size=32, weights=None, hidden_layers=0, embedding_size=8)
        >>> config = TrainConfig(
        ...     triplets=Path("triplets.txt"),
        ...     output=Path("trained.h5"),
        ...     network=network,
        ...     epochs=1,
        ...     steps_per_epoch=1,
        ... )
        >>> train(config, verbose=0).output_shape
        48 triplets of 12 images, 1 batches an epoch; ...
        (None, 8)

    Raises:
        InputError: a setting, a file or an image cannot be used; an earlier run is in the way; or
            weights became NaN or infinite.
    """
    hosts = Hosts(config.cluster)  # before anything is computed, which TensorFlow demands
    if verbose is None:
        verbose = 1 if sys.stdout.isatty() and not progress_bar.quiet else 2
    with hosts.ending_together():
        run = TrainingRun(config, resume=resume, overwrite=overwrite, hosts=hosts)
        run.begin()
        try:
            while not run.is_over:
                run.train_epoch(verbose if hosts.is_chief else 0)
        finally:
            run.folder.draw_history(run.state.history, now=True)
        model = run.finish()
        hosts.gather("done")  # nobody leaves before the chief has written everything
    return model


class TrainingRun:
    """One run: its batches, its network, its folder and its state. The constructor only checks.

    Attributes:
        source: the batches to train on: of images, or of cached features.
        validation_features: cached features of the validation images; None without a cache.
        planned_epochs: the total of epochs before the run was resumed; None for a new run.
    """

    trainer: Trainer
    source: Any
    validation_features: Features | None = None

    def __init__(
        self, config: TrainConfig, *, resume: bool, overwrite: bool, hosts: Hosts | None = None
    ) -> None:
        self.hosts = hosts = hosts or Hosts()
        images = read_run_images(config, print)
        self.config = config = dataclasses.replace(config, validation_split=images.validation_split)
        hosts.check_agreement("settings", settings_to_share(config))
        self.folder = RunFolder(config.run_dir, writes=hosts.is_chief)
        self.resumed = hosts.from_chief(
            lambda: is_resumed(config, resume=resume, overwrite=overwrite)
        )
        settings = self.folder.path / SETTINGS
        self.planned_epochs = hosts.from_chief(
            lambda: planned_epochs(settings) if self.resumed else None
        )
        self.images = self.source = image_source(config, images)
        self.validation = make_validation(config, images)
        written = dataclasses.replace(config, tensorboard=config.tensorboard and hosts.is_chief)
        self.tensorboard = TensorBoardWriter(written, self.images, self.validation)
        self.state = RunState.at_start(config)
        found = self.state.fingerprints
        hosts.check_agreement("data", found)
        if self.resumed:
            read = partial(RunState.read, self.folder.checkpoint, config, found)
            self.state = RunState(**hosts.from_chief(lambda: dataclasses.asdict(read())))
        self.early_stopping = EarlyStopping(config, self.state)
        self.devices = Devices(config.devices, hosts)
        self.source.share = self.devices.share_of_host
        if hosts.is_chief:
            make_folder(config.output.parent)

    def begin(self) -> None:
        """Build or restore the network, and write the folder."""
        config = self.config  # as given, without fixes of an earlier part of the run
        if self.validation is not None and not self.is_over:
            for line in leakage_notes(config, self.images.paths, self.validation.paths):
                print(line)
        self.trainer = Trainer(config, self.devices, read_weights=not self.resumed)
        if self.resumed:
            self.config = dataclasses.replace(config, **self.state.fixes)
            self._restore()
            print(resumed_line(self.state.num_epochs, config.epochs))
        elif config.words_of_images and self.hosts.is_chief:
            self.trainer.start_branches(config, self.images.paths)
        if self.trainer.frozen is not None:
            self._cache_features(self.devices.on_one(self.trainer.frozen))
        if not self.resumed:
            if config.embedding_start != "random" and self.hosts.is_chief:
                self.trainer.start_embedding(config, self.source)
            self._compile(config.start_epoch)
            self.hosts.share_variables(self.trainer.variables)
            self.folder.make_anew()  # last: whatever can fail has been tried
        self.folder.write_settings(config)
        print(
            f"{self.source.description}, {self.source.num_batches:,} batches an epoch; "
            f"{self.trainer.description()}."
        )
        for line in schedule_notes(
            config,
            self.source.num_batches,
            num_epochs=self.state.num_epochs,
            planned_epochs=self.planned_epochs,
        ):
            print(line)
        if self.validation is not None and not self.state.history:
            start = config.start_epoch
            self.state.history.append(self._validate(start, {"epoch": start}))
        self.folder.write_history(self.state.history)
        if config.auto_fix and not self.resumed:
            self._save_checkpoint()  # the first epoch may have to go back to it

    def _cache_features(self, frozen: keras.Model) -> None:
        """Replace images by the features of the frozen layers, after computing new ones."""
        if isinstance(self.images, ClassSource):
            self.source = feature_source(self.config, frozen, self.images)
        if self.validation is not None:
            self.validation_features = run_features(self.config, frozen, self.validation.paths)

    def _compile(self, epoch: int, *, keep_optimizer_state: bool = False) -> None:
        self.trainer.compile(
            self.config,
            epoch,
            num_batches=self.source.num_batches,
            num_rate_drops=self.state.num_rate_drops,
            keep_optimizer_state=keep_optimizer_state,
        )

    def _restore(self) -> None:
        """Go back to the checkpoint of the latest epoch."""
        self._compile(max(self.config.start_epoch, self.state.num_epochs - 1))
        if self.hosts.is_chief:
            model, optimizer = self.trainer.model, self.trainer.optimizer
            self.state.restore(self.folder.checkpoint, model, optimizer)
        self.hosts.share_variables(self.trainer.variables)

    def _save_checkpoint(self) -> None:
        state = dataclasses.asdict(self.state)
        self.folder.save_checkpoint(self.trainer.model, self.trainer.optimizer, state)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or training stops early."""
        return self.early_stopping.has_stopped or self.state.num_epochs >= self.config.epochs

    def train_epoch(self, verbose: int) -> None:
        """Train and validate one epoch, and bring the run's folder up to date.

        An epoch that spoilt the weights leaves no trace, if a change of settings can fix it: it is
        trained again from the checkpoint of the epoch before.
        """
        epoch = self.state.num_epochs
        if not self.trainer.is_compiled_for(epoch):
            self._compile(epoch)
        self.source.prepare(epoch, self.devices.on_one(self.trainer.model))
        self.tensorboard.show_batch(self.source, epoch)
        self.hosts.check_digest(f"epoch {epoch + 1}", lambda: self.source.digest(epoch))
        trained = self.trainer.train_epoch(self.source, epoch, verbose)
        row = self.hosts.from_chief(lambda: trained)  # other processors may round in other ways
        self.hosts.check_variables(self.trainer.model.weights)
        diagnosis = self._diagnose(row)
        if diagnosis is not None and self._fix(diagnosis) and diagnosis.spoilt:
            return
        row = self._validate(epoch + 1, row)
        self.state.num_epochs = epoch + 1
        self.state.history.append(row)
        if self.early_stopping.update(row):
            self.folder.save_best(self.trainer.model)
        elif self.early_stopping.is_on_plateau(row):
            self._lower_rate()
        self._save_checkpoint()
        self.folder.write_history(self.state.history)
        self.folder.draw_history(self.state.history)
        self.tensorboard.add_epoch(row)

    def _lower_rate(self) -> None:
        """Lower the learning rate on a plateau."""
        epoch = self.state.num_epochs
        self.state.num_rate_drops += 1
        if self.trainer.is_compiled_for(epoch):  # otherwise the next epoch compiles anyway
            self._compile(epoch, keep_optimizer_state=True)
        factor = self.config.plateau_factor**self.state.num_rate_drops
        print(f"On a plateau: the learning rate is now {factor:g} times what it was at first.")

    def _diagnose(self, row: Row) -> TrainingDiagnosis | None:
        """Return what is wrong after an epoch.

        Raises:
            InputError: weights are not finite, and no change of settings is allowed.
        """
        finite = math.isfinite(row["loss"]) and self.trainer.weights_are_finite()
        if self.hosts.from_chief(lambda: finite):
            return diagnose_training([*self.state.history, row], self.config)
        diagnosis = not_finite(int(row["epoch"]), row["loss"], self.config)
        if not self.config.auto_fix or len(self.state.fixed_epochs) == MAX_FIXES:
            raise InputError(diagnosis.text)
        return diagnosis

    def _fix(self, diagnosis: TrainingDiagnosis) -> bool:
        """Print what is wrong, change the settings if wanted, and return whether they changed."""
        print(diagnosis.text)
        fixes = diagnosis.fixes
        if not (self.config.auto_fix and fixes) or len(self.state.fixed_epochs) == MAX_FIXES:
            return False
        changes = ", ".join(
            f"{name} {getattr(self.config, name)} -> {value}" for name, value in fixes.items()
        )
        back = ", back to the weights of the epoch before" if diagnosis.spoilt else ""
        print(f"Going on with {changes}{back}.")
        self.config = dataclasses.replace(self.config, **fixes)
        self.state.fixes |= fixes
        self.state.fixed_epochs.append(self.state.num_epochs + 1)
        if diagnosis.spoilt:
            self._restore()
        else:
            self._compile(self.state.num_epochs, keep_optimizer_state=True)
        return True

    def _validate(self, epoch: int, row: Row) -> Row:
        """Return an epoch's row with the results on validation data, if validation is due.

        Args:
            epoch: how many epochs are done.
            row: the epoch's row.
        """
        ends = (self.config.start_epoch, self.config.epochs)
        due = epoch % self.config.validate_every == 0 or epoch in ends
        if self.validation is None or not due:
            return row
        return self.hosts.from_chief(lambda: row | self._measure(epoch))

    def _measure(self, epoch: int) -> Row:
        """Return the results on validation data after so many epochs, and calibrate the network."""
        assert self.validation is not None
        if self.validation_features is not None:
            head = self.devices.on_one(self.trainer.trained)
            embedded = embedded_features(head, self.validation_features)
        else:
            paths, skip_broken = self.validation.paths, self.config.skip_broken
            network = self.devices.on_one(self.trainer.model)
            embedded = embedded_images(network, paths, skip_broken=skip_broken)
        with embedded as rows:
            found, calibration = self.validation.measure(rows)
        when = f"Epoch {epoch}" if epoch else "Before training"
        print(f"{when}, validation: {validation_summary(found)}")
        self.state.calibration = None if calibration is None else calibration.to_json()
        self.trainer.model.calibration = calibration
        return found

    def finish(self) -> keras.Model:
        """Write the model file and what TensorBoard's projector shows; return the model."""
        config, model = self.config, self.trainer.model
        set_precision(model, FULL)
        model.make_predict_function(force=True)  # validation made one of another precision
        left_out = self.hosts.union(self.source.broken)
        if not self.hosts.is_chief:
            return model
        save_model(model, config.output)
        self.tensorboard.write_embeddings(self.devices.on_one(model))
        for line in end_notes(config, self.state, len(left_out)):
            print(line)
        return model
