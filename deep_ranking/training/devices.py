"""Several devices, of one host or of many, train one network: they split a batch, not its loss.

Each device embeds some of a batch's rows, and never part of a triplet. Then the embeddings of all
devices are joined, and the loss is computed from them. So it is the same loss as on a single
device, whichever rows it compares. To make the shares equally long, the last ones may repeat rows
of the batch; the label `REPEATED` keeps these out of the loss. Each host reads only the rows of its
own devices, see `batches.shares`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import keras
import tensorflow as tf

from deep_ranking.files import InputError
from deep_ranking.training.batches.shares import REPEATED, WHOLE, Share
from deep_ranking.training.hosts import Hosts


class Devices:
    """The devices that a network is trained on.

    Args:
        names: None for the device that TensorFlow chooses; "all"; or numbers such as "0,1". They
            count the GPUs or, where there are none, the CPUs.
        hosts: the hosts to train on, each with all its GPUs; then `names` is None.

    Attributes:
        count: how many devices there are, on all hosts.
        share_of_host: which rows of a batch this host reads.

    Raises:
        InputError: there are no such devices, or this process has trained on other ones before.
    """

    # Each strategy numbers the messages between devices from 1, and TensorFlow fails when a number
    # comes again with another shape: a process can have one strategy only.
    _strategies: ClassVar[dict[tuple[str, ...], tf.distribute.Strategy]] = {}

    def __init__(self, names: str | None, hosts: Hosts | None = None) -> None:
        hosts = hosts or Hosts()
        self._strategy = hosts.strategy
        if names is not None:
            chosen = tuple(_find(names))
            if len(chosen) > 1:
                if self._strategies.keys() - {chosen}:
                    raise InputError(
                        "this process has trained on other devices, and TensorFlow cannot change "
                        f"them; start another process for these. Received: {names}"
                    )
                if chosen not in self._strategies:
                    self._strategies[chosen] = tf.distribute.MirroredStrategy(chosen)
                self._strategy = self._strategies[chosen]
        self.count = 1 if self._strategy is None else self._strategy.num_replicas_in_sync
        self._own = self.count // hosts.count
        self.share_of_host = WHOLE
        if hosts.count > 1:
            self.share_of_host = Share(hosts.index * self._own, self._own, self.count)

    def scope(self) -> AbstractContextManager[Any]:
        """Return the block in which to make networks, losses and optimizers for these devices."""
        return nullcontext() if self._strategy is None else self._strategy.scope()

    def share(self, batches: tf.data.Dataset, rows_together: int) -> Any:
        """Split batches between the devices of this host.

        Args:
            batches: dataset of (inputs, labels) that the host reads, labels int (rows,).
            rows_together: rows that must stay on one device, 3 for triplets.

        Returns:
            The batches, to iterate over.
        """
        if self._strategy is None or self._own == 1:
            return batches
        shares = batches.flat_map(lambda *batch: _shares(batch, self._own, rows_together))
        return self._strategy.distribute_datasets_from_function(lambda _: shares.prefetch(2))

    def run(self, step: Callable[..., Any], batch: tuple[Any, ...]) -> Any:
        """Run a step on each device with its part of a batch; return what the first one returns."""
        if self._strategy is None:
            return step(*batch)
        local = self._strategy.experimental_local_results
        results = self._strategy.run(step, args=batch)
        return tf.nest.map_structure(lambda each: local(each)[0], results)

    def rows_of_all(self, labels: Any, embeddings: Any) -> tuple[Any, Any]:
        """Return labels and embeddings of the whole batch, on each device that has a share of it.

        The gradient of an embedding is the sum of the gradients from all devices.
        """
        if self._strategy is None:
            return labels, embeddings
        replica = tf.distribute.get_replica_context()
        # The identity gives labels a device, which the strategy looks for.
        labels = replica.all_gather(tf.identity(labels), axis=0)
        labels = tf.reshape(labels, (-1,))  # (rows,)
        whole = labels > REPEATED
        rows = tf.boolean_mask(replica.all_gather(embeddings, axis=0), whole)
        return tf.boolean_mask(labels, whole), tf.ensure_shape(rows, (None, embeddings.shape[-1]))

    def on_one(self, model: keras.Model) -> keras.Model:
        """Return a model of the same layers that runs on one device, for embedding."""
        return model if self._strategy is None else keras.Model(model.inputs, model.outputs)


def _find(names: str) -> list[str]:
    """Return the names of devices, as TensorFlow has them."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    found = [device.name for device in tf.config.list_logical_devices(kind)]
    if names == "all":
        return found
    try:
        numbers = [int(number) for number in names.split(",")]
    except ValueError:
        raise InputError(
            f"devices must be all, or numbers such as 0,1. Received: {names}"
        ) from None
    if len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(len(found))):
        raise InputError(
            f"devices must be different numbers of the {len(found)} there are ({kind}), from 0. "
            f"Received: {names}"
        )
    return [found[number] for number in numbers]


def _shares(batch: Any, count: int, rows_together: int) -> tf.data.Dataset:
    """Split a batch into `count` shares of equal length."""
    num_rows = tf.shape(batch[-1])[0]
    share_rows = -(-(num_rows // rows_together) // count) * rows_together

    def share(number: tf.Tensor) -> Any:
        rows = tf.cast(number, tf.int32) * share_rows + tf.range(share_rows)
        inputs, labels = tf.nest.map_structure(lambda each: tf.gather(each, rows % num_rows), batch)
        return inputs, tf.where(rows < num_rows, labels, REPEATED)

    return tf.data.Dataset.range(count).map(share)
