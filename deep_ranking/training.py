"""TrainConfig -> a trained model, and a run folder from which training can go on.

Order, augmentation and dropout of an epoch depend on (seed, epoch) alone, and a checkpoint holds
all the rest, so that a run that was stopped goes on to the same result.
"""

import dataclasses
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deep_ranking.checkpoint import restore_variables, save_checkpoint
from deep_ranking.config import TrainConfig
from deep_ranking.diagnosis import diagnose
from deep_ranking.embedding import embed_images
from deep_ranking.errors import InputError
from deep_ranking.files import make_folder
from deep_ranking.losses import QUANTITIES, RankingLoss, TripletMetric
from deep_ranking.model_file import save_model
from deep_ranking.network import build_network, set_trainable_from
from deep_ranking.pipeline import TripletSource
from deep_ranking.run_folder import Row, RunFolder, RunState
from deep_ranking.triplets import read_triplets

MEASURED_TRIPLETS = 1024


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
    while run.state.num_epochs < config.epochs:
        run.train_epoch(model, verbose)
    save_model(model, config.output)
    if run.training.broken:
        print(f"{len(run.training.broken):,} triplets left out: a missing or broken image.")
    return model


class _Run:
    """One run: its sources of batches, its folder and its state. Making it only checks."""

    def __init__(self, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
        self.config = config
        self.folder = RunFolder(config)
        self.resumes = self.folder.check_earlier_run(config, resume=resume, overwrite=overwrite)
        self.training = self._source(config.triplets, training=True)
        self.validation = None
        if config.validation_triplets is not None:
            self.validation = self._source(config.validation_triplets, training=False)
        self.state = self.folder.read_state(config) if self.resumes else RunState.of(config)
        make_folder(config.output.parent)

    def _source(self, path: Path, *, training: bool) -> TripletSource:
        config = self.config
        return TripletSource(
            read_triplets(path),
            image_size=config.network.image_size,
            batch_size=config.batch_size,
            dataset_dir=config.dataset,
            augmentation=config.augmentation if training else None,
            shuffle=training and config.shuffle,
            seed=config.seed,
            skip_broken=config.skip_broken,
            steps_per_epoch=config.steps_per_epoch if training else None,
            save_dir=config.save_augmented if training else None,
        )

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
            loss=_loss(config),
            metrics=_metrics(config),
        )
        _print_size(model, self.training)
        if self.resumes:
            restore_variables(self.folder.checkpoint, model)
            print(f"Going on after epoch {self.state.num_epochs} of {config.epochs}.")
        else:
            self.folder.clear()
        self.folder.write_settings(config)
        if self.validation is not None and not self.state.history:
            before = self._measure(model, self.validation)
            print(f"Before training, validation: {_describe(before)}")
            self.state.history.append({"epoch": 0, **before})
        if self.state.history:
            self.folder.write_history(self.state.history)
        return model

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
        if not math.isfinite(row["loss"]):
            raise InputError(
                f"the loss became {row['loss']} in epoch {epoch + 1}; start anew with a lower "
                "--learning_rate and --overwrite"
            )
        if self.validation is not None:
            measured = self._measure(model, self.validation)
            print(f"Epoch {epoch + 1}, validation: {_describe(measured)}")
            row |= measured
        self.state.num_epochs = epoch + 1
        if self._is_best(row):
            save_model(model, self.folder.best)
        self.state.history.append({"epoch": epoch + 1, **row})
        save_checkpoint(self.folder.checkpoint, model, dataclasses.asdict(self.state))
        self.folder.write_history(self.state.history)
        advice = diagnose(self.state.history, self.config.gap)
        if advice:
            print(advice)

    def _measure(self, model: keras.Model, source: TripletSource) -> Row:
        """Judge the model on triplets; each image is embedded once, however often it occurs."""
        config = self.config
        loss, metrics = _loss(config), _metrics(config)
        mean_loss = keras.metrics.Mean(name="loss")
        chunk = source.triplets_per_batch if config.hinge == "batch" else MEASURED_TRIPLETS
        with tempfile.TemporaryFile(dir=self.folder.path) as file:
            shape = (len(source.paths), config.network.embedding_size)
            embeddings = np.memmap(file, np.float32, "w+", shape=shape)
            embed_images(
                model, source.paths, skip_broken=config.skip_broken, progress=True, out=embeddings
            )
            for begin in range(0, len(source.triplets), chunk):
                triplets = source.triplets.rows[begin : begin + chunk]
                if config.skip_broken:
                    triplets = triplets[~np.isnan(embeddings[triplets, 0]).any(axis=1)]
                    if not len(triplets):
                        continue
                # Loss and metrics look at embeddings alone, so these serve as labels too.
                rows = keras.ops.convert_to_tensor(embeddings[triplets.ravel()])
                mean_loss.update_state(loss(rows, rows), sample_weight=len(triplets))
                for metric in metrics:
                    metric.update_state(rows, rows)
        return {f"val_{metric.name}": float(metric.result()) for metric in (mean_loss, *metrics)}

    def _is_best(self, row: Row) -> bool:
        value = row.get("val_similarity_precision", -row["loss"])
        if self.state.best is not None and value <= self.state.best:
            return False
        self.state.best = value
        return True


class _StopAfterEpoch(keras.callbacks.Callback):
    """Ends `fit` after one epoch, as the next one reads from a data set of its own."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = True


def _optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.learning_rate)
    return keras.optimizers.SGD(config.learning_rate, momentum=0.9, nesterov=True)


def _loss(config: TrainConfig) -> RankingLoss:
    return RankingLoss(config.gap, config.distance, config.hinge, config.clip)


def _metrics(config: TrainConfig) -> list[TripletMetric]:
    return [TripletMetric(name, config.gap, config.distance) for name in QUANTITIES]


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Let each dropout layer's numbers follow from (seed, epoch)."""
    dropouts = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Dropout) and layer.rate
    ]
    for number, layer in enumerate(dropouts):
        state = np.random.SeedSequence([seed, epoch, number]).generate_state(2)
        layer.seed_generator.state.assign(state % 2**31)


def _print_size(model: keras.Model, source: TripletSource) -> None:
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    print(
        f"{len(source.triplets):,} triplets of {len(source.triplets.paths):,} images, "
        f"{source.num_batches:,} batches an epoch; "
        f"{model.count_params():,} parameters, {trained:,} of them trained."
    )


def _describe(measured: Row) -> str:
    return (
        f"similarity precision {measured['val_similarity_precision']:.4f}, "
        f"loss {measured['val_loss']:.4f}"
    )
