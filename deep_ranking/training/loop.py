"""The training loop: forward, gradients, optimizer and metrics, for one device and for many.

It takes the place of Keras' `fit`, which does not work on several hosts (keras issue 20585), and
does what training needs of it: penalties of weights, scaled losses, XLA, callbacks and the progress
bar. The loss and the metrics see the rows of the whole batch, wherever they were embedded.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from deep_ranking.training.devices import Devices

BAR = 1  # a value of `verbose`: Keras' bar, which shows the metrics of each batch


class TrainingLoop:
    """Trains a network. A change of its precision, or of what is trained, needs another loop.

    Args:
        model: the network to train.
        loss: of labels and embeddings, in the rows of a whole batch.
        optimizer: made for the same devices.
        metrics: shown beside the loss; made outside of the scope of the devices.
        devices: the devices that the network was made for.
        xla: whether to compile the step by XLA; None for Keras' choice.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: keras.losses.Loss,
        optimizer: keras.optimizers.Optimizer,
        metrics: Sequence[keras.metrics.Metric],
        devices: Devices,
        *,
        xla: bool | None = None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._metrics = metrics
        self._devices = devices
        model.jit_compile = xla  # None: Keras chooses when it is read, here and in prediction
        with devices.scope():
            optimizer.build(model.trainable_variables)
        train_batch = tf.function(
            self._train_batch,
            autograph=False,
            jit_compile=model.jit_compile,
            reduce_retracing=True,
        )
        # XLA cannot read batches, hence the function around it.
        self._step = tf.function(
            lambda iterator: train_batch(next(iterator)), autograph=False, reduce_retracing=True
        )

    def train_epoch(
        self,
        batches: tf.data.Dataset,
        rows_together: int = 1,
        *,
        number: int = 0,
        num_epochs: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int = 0,
    ) -> dict[str, float]:
        """Train on each batch once, or until a callback sets `model.stop_training`.

        Args:
            batches: dataset of (inputs, labels) of known cardinality, or one that callbacks end.
            rows_together: rows that must stay on one device, 3 for triplets.
            number: number of the epoch, from 0, for callbacks and the bar.
            num_epochs: epochs of the run, for the bar.
            callbacks: told of each batch. They get its metrics with `verbose` 1 alone: to read
                them is to wait for the device.
            verbose: Keras' progress: 0 none, 1 a bar, 2 a line.

        Returns:
            The means over the epoch: "loss", weighted by the rows of each batch, and each metric.
        """
        num_batches = int(batches.cardinality())
        steps = num_batches if num_batches >= 0 else None
        told = keras.callbacks.CallbackList(
            list(callbacks),
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=num_epochs,
            steps=steps,
            model=self.model,
        )
        for metric in (self._loss_mean, *self._metrics):
            metric.reset_state()
        self.model.stop_training = False
        told.on_train_begin()
        told.on_epoch_begin(number)
        iterator = iter(self._devices.share(batches, rows_together))
        step, logs = 0, {}
        while step != steps and not self.model.stop_training:
            told.on_train_batch_begin(step)
            logs = self._step(iterator)
            told.on_train_batch_end(step, logs if verbose == BAR else None)
            step += 1
        means = {name: float(value) for name, value in logs.items()}
        told.on_epoch_end(number, means)
        told.on_train_end(means)
        return means

    def _train_batch(self, batch: tuple[Any, Any]) -> dict[str, Any]:
        """Train on one batch, and return the means of the epoch until now."""
        loss, labels, embeddings = self._devices.run(self._on_device, batch)
        self._loss_mean.update_state(loss, sample_weight=tf.shape(embeddings)[0])
        for metric in self._metrics:
            metric.update_state(labels, embeddings)
        return {each.name: each.result() for each in (self._loss_mean, *self._metrics)}

    def _on_device(self, inputs: Any, labels: Any) -> tuple[Any, Any, Any]:
        """Train on a device's rows of a batch; return the loss and the rows of the whole batch."""
        weights = self.model.trainable_weights
        with tf.GradientTape() as tape:
            embeddings = self.model(inputs, training=True)
            labels, embeddings = self._devices.rows_of_all(labels, embeddings)
            loss = ops.mean(self.loss.call(labels, embeddings)) + sum(self.model.losses)
            # All devices compute it, and their gradients are summed up: each counts as a part.
            scaled = self.optimizer.scale_loss(loss / self._devices.count)
        self.optimizer.apply(tape.gradient(scaled, weights), weights)
        return loss, labels, embeddings
