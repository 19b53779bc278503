"""The network of a run, its loss and optimizer, and how an epoch of it is trained."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from deep_ranking.config import HEAD, TrainConfig
from deep_ranking.embedding.batches import ImageSource
from deep_ranking.embedding.cached_features import BATCH_SIZE
from deep_ranking.embedding.embed import embed_images
from deep_ranking.embedding.embedded_features import embedded_features
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.losses import BatchLoss, kernel_penalty, make_loss, make_metrics, penalise_kernels
from deep_ranking.model.branches import branch_convolutions, start_branches
from deep_ranking.model.mixed_precision import resolved_precision, set_precision
from deep_ranking.model.network import (
    build_network,
    merged_parts,
    set_trainable_from,
    split_at_frozen,
)
from deep_ranking.model.whitening import principal_axes, scaled_whitening_axes
from deep_ranking.training.batches import ClassSource, FeatureSource, TripletSource
from deep_ranking.training.devices import Devices
from deep_ranking.training.history import Row
from deep_ranking.training.loop import TrainingLoop
from deep_ranking.training.optimizers import make_optimizer

LINES = 2  # a value of Keras' `verbose`: a line an epoch
# The first weights of the embedding layer are computed from at most so many images.
MAX_START_IMAGES = 20_000
# The words of the branches are learned from at most so many.
MAX_WORD_IMAGES = 1000


class Trainer:
    """A network that is being trained; `compile` must come before `train_epoch`.

    Args:
        config: the run's settings.
        devices: the devices to train on.
        read_weights: whether to read the first weights that the settings name; False where all
            weights come from a checkpoint.

    Attributes:
        model: the whole network, from images.
        frozen: with cached features, the layers that give them; otherwise None.
        trained: what the loop trains: the whole network, or what follows the frozen layers.
    """

    def __init__(self, config: TrainConfig, devices: Devices, *, read_weights: bool) -> None:
        self._devices = devices
        network = config.network
        if not read_weights:
            network = dataclasses.replace(network, weights=None)
        self.frozen: Any = None
        with devices.scope():
            self.model = self.trained = build_network(network, seed=config.seed)
            self._freeze(config, config.train_from)
            if config.cache_features:
                self.frozen, self.trained = split_at_frozen(self.model)

    def _freeze(self, config: TrainConfig, first: str | None) -> None:
        set_trainable_from(self.model, first, with_branches=config.train_branches)

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        """The optimizer, with its moments and its number of steps."""
        return self._loop.optimizer

    @property
    def variables(self) -> list[keras.Variable]:
        """All that training changes: weights, and the optimizer's variables."""
        return [*self.model.weights, *self.optimizer.variables]

    def compile(
        self,
        config: TrainConfig,
        epoch: int,
        *,
        num_batches: int,
        num_rate_drops: int,
        keep_optimizer_state: bool = False,
    ) -> None:
        """Make optimizer and loss for a part of the run: the head's epochs, or those that follow.

        Args:
            config: the run's settings.
            epoch: an epoch of that part, from 0.
            num_batches: batches an epoch.
            num_rate_drops: how often the learning rate was lowered on a plateau.
            keep_optimizer_state: whether the new optimizer takes over the moments and the number of
                steps of the present one, which must have trained the same weights.
        """
        before = self.optimizer.variables if keep_optimizer_state else None
        self._config = config
        self._trains_head = epoch < config.head_epochs
        self._freeze(config, HEAD if self._trains_head else config.train_from)
        set_precision(self.trained, resolved_precision(config.precision))
        penalise_kernels(self.trained, config.weight_penalty)
        head_epochs = min(config.head_epochs, config.epochs)
        first, last = (0, head_epochs) if self._trains_head else (head_epochs, config.epochs)
        num_epochs = last - max(first, config.start_epoch)
        rate = config.learning_rate
        if self._trains_head and config.head_learning_rate is not None:
            rate = config.head_learning_rate
        with self._devices.scope():
            loss = make_loss(config, config.batches, config.network.embedding_size)
            optimizer = make_optimizer(
                config,
                self.model.backbone_layers,
                learning_rate=rate * config.plateau_factor**num_rate_drops,
                num_steps=num_epochs * num_batches,
            )
        self._loop = TrainingLoop(
            self.trained,
            loss,
            optimizer,
            make_metrics(config, config.batches),
            self._devices,
            xla=config.xla,
        )
        if before is not None:
            for variable, value in zip(self.optimizer.variables, before, strict=True):
                variable.assign(value)

    def is_compiled_for(self, epoch: int) -> bool:
        """Return whether an epoch, from 0, belongs to the part of the run that was compiled."""
        return self._trains_head == (epoch < self._config.head_epochs)

    def start_branches(self, config: TrainConfig, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Set the first weights of the shallow branches to words of training images.

        Branches that were copied from a model file keep their weights, unless `branch_start` asks.

        Args:
            config: the run's settings.
            paths: the training images, of which up to `MAX_WORD_IMAGES` are read.

        Raises:
            InputError: an image is missing or broken.
        """
        layers = branch_convolutions(self.model)
        copied = {layer.name for layer in layers} <= set(self.model.copied_layers)
        if copied and config.branch_start is None:
            return
        # Not by the run's seed: runs that differ only in it share cached features.
        order = np.random.default_rng(0).permutation(len(paths))[:MAX_WORD_IMAGES]
        source = ImageSource(
            [paths[number] for number in np.sort(order)],
            image_size=config.network.image_size,
            batch_size=min(BATCH_SIZE, len(order)),
            skip_broken=config.skip_broken,
        )
        with source.raising_image_errors():
            start_branches(self.model, _whole_images(source))
        names = " and ".join(str(layer.filters) for layer in layers)
        print(
            f"The {config.network.multiscale} branches start from {names} words of "
            f"{len(order) - len(source.broken):,} images."
        )

    def start_embedding(self, config: TrainConfig, source: ClassSource | FeatureSource) -> None:
        """Set the embedding layer's first weights from training images, by PCA or whitening.

        Raises:
            InputError: there are too few images or features for the length of the embedding.
        """
        rng = np.random.default_rng([config.seed, 5])
        usable = np.setdiff1d(np.arange(len(source.labels)), sorted(source.broken))
        in_gallery = source.batches.gallery[usable]
        queries, pictures = (
            rng.permutation(each)[:MAX_START_IMAGES]
            for each in (usable[~in_gallery], usable[in_gallery])
        )
        chosen = np.sort(np.concatenate([queries, pictures]))
        layer = self.model.get_layer("embedding")
        print(f"The embedding layer starts {config.embedding_start}, from {len(queries):,} images.")
        if isinstance(source, ClassSource):
            before = keras.Model(self.model.input, layer.input)
            paths = [source.paths[number] for number in chosen]
            features = embed_images(before, paths, skip_broken=config.skip_broken, progress=True)
            whole = ~np.isnan(features[:, 0])
            chosen, features = chosen[whole], features[whole]
        elif any(each is layer.input for each in self.frozen.outputs):  # its input was cached
            features = source.features.read(chosen, 0 * chosen)[0].astype(np.float32)
        else:
            before = keras.Model(self.frozen.outputs, layer.input)
            with embedded_features(before, source.features) as rows:
                features = rows[chosen]
        size = config.network.embedding_size
        gallery = source.batches.gallery[chosen]
        if config.embedding_start == "pca":
            layer.set_weights(principal_axes(features[~gallery], size))
            return
        sizes = [part.shape[-1] for part in merged_parts(self.model)]
        parts = np.split(features, np.cumsum(sizes)[:-1], axis=1)
        kernel, bias, scales = scaled_whitening_axes(
            parts, source.labels[chosen], size, gallery=gallery
        )
        layer.set_weights([kernel, bias])
        if scales:
            counts = " and ".join(f"{scale:g}" for scale in scales)
            print(f"Beside the backbone, the branches count {counts} times.")

    def train_epoch(
        self, source: TripletSource | ClassSource | FeatureSource, epoch: int, verbose: int
    ) -> Row:
        """Train one epoch, numbered from 0.

        Returns:
            The epoch's row of the history: its number, from 1, its loss and its metrics.

        Raises:
            InputError: an image cannot be used.
        """
        _seed_dropout(self.model, self._config.seed, epoch)
        loss = self._loop.loss
        if isinstance(loss, BatchLoss) and loss.memory is not None:
            loss.memory.reset()
        with source.raising_image_errors():
            means = self._loop.train_epoch(
                source.dataset(epoch),
                source.rows_together,
                number=epoch,
                num_epochs=self._config.epochs,
                callbacks=self._progress(source.num_batches, epoch, verbose),
                verbose=verbose,
            )
        row: Row = {"epoch": epoch + 1} | means
        if self._config.weight_penalty:
            row["weight_penalty"] = kernel_penalty(self.trained, self._config.weight_penalty)
        return row

    def _progress(self, num_batches: int, epoch: int, verbose: int) -> list[Any]:
        """Return what tells of a long epoch in a log; Keras draws a bar on a terminal itself."""
        title = f"epoch {epoch + 1} of {self._config.epochs}"
        return [_Progress(num_batches, title)] if verbose == LINES else []

    def weights_are_finite(self) -> bool:
        """Return whether no weight is NaN or infinite.

        The loss of an epoch does not show what its last step did.
        """
        return all(
            bool(keras.ops.all(keras.ops.isfinite(weight)))
            for weight in self.model.trainable_weights
        )

    def description(self) -> str:
        """Return how many parameters there are and how many of them are trained, in words."""
        trained = sum(math.prod(weight.shape) for weight in self.trained.trainable_weights)
        return f"{self.model.count_params():,} parameters, {trained:,} of them trained"


def _whole_images(source: ImageSource) -> Iterator[Float32Array]:
    """Return batches of a source's images, without the broken ones."""
    begin = 0
    for images in source.dataset():
        numbers = np.arange(begin, begin + len(images))
        begin += len(images)
        yield images.numpy()[~np.isin(numbers, list(source.broken))]


class _Progress(keras.callbacks.Callback):
    """Counts the batches of an epoch."""

    def __init__(self, num_batches: int, title: str) -> None:
        super().__init__()
        self._bar = progress_bar(total=num_batches, title=title, unit="batches")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._bar.update()

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.close()


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Make the random numbers of each dropout layer depend on (seed, epoch) alone."""
    dropouts = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Dropout) and layer.rate
    ]
    for number, layer in enumerate(dropouts):
        state = np.random.SeedSequence([seed, epoch, number]).generate_state(2)
        layer.seed_generator.state.assign(state % 2**31)
