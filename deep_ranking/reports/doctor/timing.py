"""Time and memory of a few training steps on this machine, with random weights.

Small steps keep this to seconds. Batches of two sizes tell how time and memory grow with the batch.
"""

from deep_ranking.model.keras_settings import default_settings

# isort: split

import dataclasses
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.embedding.cached_features import BATCH_SIZE
from deep_ranking.files.array_types import Int32Array
from deep_ranking.images import read_image
from deep_ranking.images.augmentation import draw_views
from deep_ranking.losses import make_loss, make_metrics, penalise_kernels
from deep_ranking.model.mixed_precision import computing_in, resolved_precision, set_precision
from deep_ranking.model.network import build_network, set_trainable_from, split_at_frozen
from deep_ranking.reports.doctor.estimate import TrainingCost
from deep_ranking.training.devices import Devices
from deep_ranking.training.loop import TrainingLoop
from deep_ranking.training.optimizers import make_optimizer

NUM_READ = 32  # images
NUM_FROZEN = 8  # images
MAX_SIDE = 256  # pixels that the backbone sees
MIN_SECONDS = 2.0  # that steps are repeated for


@default_settings()
def measure_training(config: TrainConfig, files: Sequence[Path]) -> TrainingCost:
    """Build the network of a run, and measure what reading and training take.

    Args:
        config: the run. Its weight files are not read: random weights take the same time.
        files: some images that can be read.

    Returns:
        The `TrainingCost` of the run.

    Raises:
        InputError: the network has no layer of the name `config.train_from`.
    """
    network, growth = _reduced(config.network)
    model = build_network(network, seed=0)
    set_trainable_from(model, config.train_from, with_branches=config.train_branches)
    trained, frozen_seconds, frozen_memory = model, 0.0, 0.0
    precision = resolved_precision(config.precision)
    if config.cache_features:
        frozen, trained = split_at_frozen(model)
        frozen_seconds, frozen_memory = _cost_of_frozen(frozen, precision, growth)
        growth = 1.0  # what follows the frozen layers sees no pixels
    set_precision(trained, precision)
    penalise_kernels(trained, config.weight_penalty)
    loop = TrainingLoop(
        trained,
        make_loss(config, config.batches, network.embedding_size),
        make_optimizer(
            config, model.backbone_layers, learning_rate=config.learning_rate, num_steps=1000
        ),
        make_metrics(config, config.batches),
        Devices(None),
        xla=config.xla,
    )
    steps = _time_steps(config, loop)
    size = config.batch_size * growth
    return TrainingCost(
        read_seconds=_seconds_to_read(config, files),
        step_seconds=steps.at_size(size, steps.seconds),
        frozen_seconds=frozen_seconds,
        memory=round(max(frozen_memory, steps.at_size(size, steps.memory))),
    )


class _StepTimer(keras.callbacks.Callback):
    """Measures the time of each batch, and the peak memory of the process.

    Args:
        sizes: images in a small and in a large batch. The two alternate, after one small batch
            more at the start.
    """

    def __init__(self, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.seconds: dict[int, float] = {}
        self.memory: dict[int, float] = {}
        self.num_done = 0
        self._first = self._begin = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._begin = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        self.num_done += 1
        if self.num_done == 1:  # it included tracing
            self._first = now
            return
        size = self.sizes[self.num_done % 2]
        self.seconds[size] = min(now - self._begin, self.seconds.get(size, np.inf))
        self.memory.setdefault(size, _peak_memory())
        self.model.stop_training = len(self.seconds) == 2 and now - self._first > MIN_SECONDS

    def at_size(self, size: float, measured: dict[int, float]) -> float:
        """Return the value at another size, on the straight line through the two measured."""
        small, large = self.sizes
        slope = max(0.0, measured[large] - measured[small]) / (large - small)
        return max(0.0, measured[large] + slope * (size - large))


def _reduced(network: NetworkConfig) -> tuple[NetworkConfig, float]:
    """Return a network whose steps take seconds and little memory, whatever the image size.

    Returns:
        The network, with random weights; and how many of its images take as much as one of the
        real network: time and memory grow with the area that the convolutions see.
    """
    share = min(1.0, MAX_SIDE / network.seen_size)
    size = max(32, round(share * network.image_size))
    enlarged = network.backbone_size
    small = dataclasses.replace(
        network,
        weights=None,
        image_size=size,
        backbone_size=None if enlarged is None else max(size, round(share * enlarged)),
    )
    return small, (network.seen_size / small.seen_size) ** 2


def _time_steps(config: TrainConfig, loop: TrainingLoop) -> _StepTimer:
    inputs = loop.model.inputs
    size = config.batch_size
    if config.cache_features:  # the layers to train are small: the whole batch fits
        sizes = (max(2, size // 2 // 2 * 2), size)
    else:
        sizes = (3, 6) if config.batches == "triplets" else (4, 8)
    steps = _StepTimer(sizes)
    rng = np.random.default_rng(0)

    def batches() -> Iterator[tuple[Any, Int32Array]]:
        for rows in chain(sizes[:1], cycle(sizes)):  # the first traces the step
            arrays = tuple(
                rng.uniform(0, 255, (rows, *tensor.shape[1:])).astype(np.float32)
                for tensor in inputs
            )
            numbers = np.arange(rows, dtype=np.int32)
            labels = numbers % 3 if config.batches == "triplets" else numbers // 2
            yield (arrays if len(arrays) > 1 else arrays[0]), labels

    specs = tuple(tf.TensorSpec((None, *tensor.shape[1:]), tf.float32) for tensor in inputs)
    signature = (specs if len(specs) > 1 else specs[0], tf.TensorSpec((None,), tf.int32))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    loop.train_epoch(data, callbacks=[steps])
    return steps


def _cost_of_frozen(frozen: keras.Model, precision: str, growth: float) -> tuple[float, float]:
    """Return the seconds of the frozen layers for an image, and their bytes for a batch."""
    images = np.zeros((NUM_FROZEN, *frozen.input_shape[1:]), np.float32)
    half = NUM_FROZEN // 2
    with computing_in(precision, frozen):
        frozen.predict_on_batch(images[:half])  # traces
        less = _peak_memory()
        frozen.predict_on_batch(images)  # traces for any number
        more = _peak_memory()
        begin = time.monotonic()
        frozen.predict_on_batch(images)
        seconds = (time.monotonic() - begin) / NUM_FROZEN
    memory = more + (growth * BATCH_SIZE - NUM_FROZEN) * (more - less) / half
    return growth * seconds, memory


def _seconds_to_read(config: TrainConfig, files: Sequence[Path]) -> float:
    """Return the seconds of one core to read an image as training does."""
    chosen = files[:: max(1, len(files) // NUM_READ)][:NUM_READ]
    rng, size = np.random.default_rng(0), config.network.image_size
    views = draw_views(config.augmentation, rng, len(chosen), size)
    begin = time.monotonic()
    for file, view in zip(chosen, views, strict=True):
        read_image(file, size, view)
    return (time.monotonic() - begin) / len(chosen)


def _peak_memory() -> float:
    """Return the peak memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
