"""Several hosts train one network: how they meet, agree, and end together.

Each host runs the same command. TensorFlow's `MultiWorkerMirroredStrategy` joins them; its
coordination service notices a host that is gone. Host 0, the chief, decides whatever could differ
between hosts (where a run goes on, results on validation data, what follows from them), and alone
writes files. The others receive what it decided.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context  # the only way to set the time limits below

from deep_ranking import __version__
from deep_ranking.config.hosts import Cluster
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.training.meeting import meet

Value = TypeVar("Value")

# Wait at most so long for the other hosts to start. Their images may have to be pulled first.
JOIN_SECONDS = 300
# A host that ends is noticed at once; one that vanishes with its connections, after so long.
HEARTBEAT_SECONDS = 20

_TASK = r"/job:worker/(?:replica:\d+/)?task:(\d+)"
_GO_ON = "start all hosts again with --resume to go on from the latest epoch"


class _Disagreement(InputError):
    """Hosts that should have the same have not; each of them knows."""


class Hosts:
    """The hosts that a network is trained on; one alone has nobody to agree with.

    Args:
        cluster: the hosts; None for this one alone.

    Attributes:
        strategy: TensorFlow's strategy for them; None for one host.
        is_chief: whether this host decides and writes.

    Raises:
        InputError: the others do not come, have other versions or numbers of graphics processors,
            or this process has trained on other hosts before.
    """

    # A process can join one cluster only.
    _joined: ClassVar[dict[Cluster, tf.distribute.Strategy]] = {}

    def __init__(self, cluster: Cluster | None = None) -> None:
        self._cluster = cluster
        self.strategy: tf.distribute.Strategy | None = None
        self.is_chief = cluster is None or cluster.index == 0
        if cluster is not None:
            if self._joined.keys() - {cluster}:
                raise InputError(
                    "this process has trained on other hosts, and TensorFlow cannot change them; "
                    "start another process for these"
                )
            if cluster not in self._joined:
                self._joined[cluster] = _join(cluster)
            self.strategy = self._joined[cluster]
            self._collect = tf.function(
                lambda own: self.strategy.run(_gathered, args=(own,)),
                autograph=False,
                input_signature=[tf.TensorSpec((1, None), tf.int64)],
            )

    @property
    def count(self) -> int:
        """Number of hosts."""
        return 1 if self._cluster is None else len(self._cluster.addresses)

    @property
    def index(self) -> int:
        """Number of this host, from 0."""
        return 0 if self._cluster is None else self._cluster.index

    def gather(self, text: str) -> list[str]:
        """Return what each host says, in their order, once all have said it."""
        if self.strategy is None:
            return [text]
        data = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        lengths = self._gather_rows(np.array([[len(data)]]))[:, 0]
        rows = self._gather_rows(np.pad(data, (0, max(lengths) - len(data)))[None])
        return [
            bytes(row[:length].astype(np.uint8)).decode()
            for row, length in zip(rows, lengths, strict=True)
        ]

    def from_chief(self, compute: Callable[[], Value]) -> Value:
        """Let the chief compute a value of JSON's types, and return it on all hosts."""
        if self.strategy is None:
            return compute()
        value: Value = json.loads(self.gather(json.dumps(compute()) if self.is_chief else "")[0])
        return value

    def check_agreement(self, what: str, values: dict[str, Any]) -> None:
        """Check that all hosts have the chief's values.

        Args:
            what: what the values are, for the message.
            values: values of JSON's types by name.

        Raises:
            InputError: one has not; on all hosts, with the first name that differs.
        """
        if self._cluster is not None:
            _check_alike(self._cluster, what, self.gather(json.dumps(values)))

    def check_digest(self, what: str, digest: Callable[[], str]) -> None:
        """Check that the batches of `what`, of which `digest` is computed, are those of the chief.

        Raises:
            InputError: they are not.
        """
        if self.strategy is not None:
            self.check_agreement(what, {"batches": digest()})

    def union(self, numbers: Iterable[int]) -> set[int]:
        """Return the numbers that any of the hosts has."""
        found = self.gather(json.dumps(sorted(map(int, numbers))))
        return {number for each in found for number in json.loads(each)}

    def check_variables(self, variables: Sequence[keras.Variable]) -> None:
        """Check that variables have the chief's values on all hosts, bit by bit.

        Raises:
            InputError: they differ, as between processors that round in different ways.
        """
        if self.strategy is None:
            return
        digest = hashlib.sha256()
        for variable in variables:
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).data)
        self.check_agreement(
            "the network after an epoch (hosts must compute alike: use machines of one kind)",
            {"weights": digest.hexdigest()},
        )

    def share_variables(self, variables: Sequence[keras.Variable]) -> None:
        """Set variables to the chief's values on all hosts."""
        if self.strategy is None:
            return

        def sent() -> list[tf.Tensor]:
            replica = tf.distribute.get_replica_context()
            is_first = tf.equal(replica.replica_id_in_sync_group, 0)
            values = [tf.convert_to_tensor(variable.value) for variable in variables]
            return [
                replica.all_reduce(
                    tf.distribute.ReduceOp.SUM, tf.where(is_first, each, tf.zeros_like(each))
                )
                for each in values
            ]

        strategy = self.strategy
        received = tf.function(lambda: strategy.run(sent), autograph=False)()
        for variable, value in zip(variables, received, strict=True):
            variable.assign(strategy.experimental_local_results(value)[0])

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """End the other hosts if the block fails here, and say in one line if one of them failed.

        In the block, the chief alone prints.

        Raises:
            InputError: another host failed, or is gone.
        """
        if self._cluster is None:
            yield
            return
        try:
            with (
                open(os.devnull, "w", encoding="utf-8") as nowhere,
                nullcontext() if self.is_chief else redirect_stdout(nowhere),
            ):
                yield
        except tf.errors.OpError as error:
            lost = _lost_host(str(error), self._cluster)
            if lost is None:
                self._report(f"failed: {type(error).__name__}")
                raise
            raise InputError(lost) from None
        except _Disagreement:  # all raise it
            raise
        except KeyboardInterrupt:
            self._report("was stopped")
            raise
        except BaseException as error:
            self._report(str(error) or type(error).__name__)
            raise

    def _report(self, text: str) -> None:
        """Tell the other hosts why this one ends."""
        with suppress(Exception):  # there may be nobody left to tell
            context.context().report_error_to_cluster(tf.errors.ABORTED, " ".join(text.split()))

    def _gather_rows(self, rows: Int64Array) -> Int64Array:
        """Return the rows of all hosts, int64 (hosts, columns), from one row of each."""
        assert self.strategy is not None
        found = self._collect(tf.constant(rows))
        of_replicas = self.strategy.experimental_local_results(found)[0].numpy()
        each: Int64Array = of_replicas[:: len(of_replicas) // self.count]
        return each


def _gathered(own: tf.Tensor) -> tf.Tensor:
    """Return the rows of all devices, on each of them."""
    # The identity gives the rows a device, which the strategy looks for.
    return tf.distribute.get_replica_context().all_gather(tf.identity(own), axis=0)


def _join(cluster: Cluster) -> tf.distribute.Strategy:
    """Meet the other hosts, and return a strategy for all of them."""
    num_devices = len(tf.config.list_physical_devices("GPU"))
    print(f"This is {cluster.name(cluster.index)} of {len(cluster.addresses)}.", flush=True)
    versions = {"deep_ranking": __version__, "tensorflow": tf.__version__}
    versions |= {"keras": keras.__version__, "graphics processors": num_devices}
    meet(cluster, versions, JOIN_SECONDS)
    tasks = tf.train.ClusterSpec({"worker": list(cluster.addresses)})
    jobs = [
        context.coordination_config_pb2.CoordinatedJob(
            name="worker", num_tasks=tasks.num_tasks("worker")
        )
    ]
    context.context().configure_coordination_service(
        "standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=1000 * JOIN_SECONDS,
        heartbeat_timeout_in_ms=1000 * HEARTBEAT_SECONDS,
        coordinated_jobs=jobs,
    )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tasks,
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": num_devices},
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (tf.errors.OpError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"{cluster.name(cluster.index)} cannot join the others ({text[:200]}); check that its "
            "port is free, and that every host can reach every other one"
        ) from None


def _check_alike(cluster: Cluster, what: str, found: Sequence[str]) -> None:
    """Check that all hosts say the same; see `Hosts.check_agreement`."""
    wanted, *others = (json.loads(each) for each in found)
    for number, values in enumerate(others, start=1):
        for name in sorted(wanted.keys() | values.keys()):
            if values.get(name) != wanted.get(name):
                raise _Disagreement(
                    f"{cluster.name(number)} has another {name} than {cluster.name(0)}, in {what}: "
                    f"{values.get(name)} instead of {wanted.get(name)}"
                )


def _lost_host(text: str, cluster: Cluster) -> str | None:
    """Return what an error of TensorFlow says of another host, None if it says nothing of one."""
    text = " ".join(text.split())
    if reported := re.search(f"Error reported from {_TASK}: (.*?) The error could be", text):
        return f"{cluster.name(int(reported[1]))}: {reported[2].strip()}; {_GO_ON}"
    others = {int(each) for each in re.findall(_TASK, text)} - {cluster.index}
    known = sorted(others & set(range(len(cluster.addresses))))
    if not known and "Collective ops is aborted" not in text:
        return None
    who = " and ".join(map(cluster.name, known)) or "another host"
    return f"{who} ended or cannot be reached; {_GO_ON}"
