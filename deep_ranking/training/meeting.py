"""How hosts meet before TensorFlow joins them: each tells host 0 what it is, and waits.

TensorFlow itself waits for up to an hour, deaf to Ctrl-C, and does not say for whom. So nothing is
joined before all are there, have one version and one list of hosts. Host 0 listens at its address,
and frees it for TensorFlow. A message is a line of JSON each way; nothing in it is ever executed.
"""

import json
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any

from deep_ranking.config.hosts import Cluster
from deep_ranking.files import InputError

MAX_BYTES = 100_000  # of a message
SECONDS_TO_SPEAK = 5.0
POLL_SECONDS = 0.5


def meet(cluster: Cluster, own: dict[str, Any], seconds: float) -> None:
    """Wait until all hosts are there, and check that they fit.

    Args:
        cluster: the hosts, and which of them this one is.
        own: what must be the same on all, by name: versions, for example.
        seconds: wait at most so long.

    Raises:
        InputError: a host does not come, differs, or its address cannot be used.
    """
    hello = {"index": cluster.index, "own": own | {"hosts": ",".join(cluster.addresses)}}
    deadline = time.monotonic() + seconds
    if cluster.index:
        _call_the_first(cluster, hello, deadline, seconds)
    else:
        _wait_for_the_others(cluster, hello, deadline, seconds)


def _wait_for_the_others(
    cluster: Cluster, hello: dict[str, Any], deadline: float, seconds: float
) -> None:
    """Wait for all other hosts, and tell all of them whether they fit."""
    own = hello["own"]
    found: set[int] = set()
    connections = []
    error = ""
    with ExitStack() as opened:
        _, port = _split(cluster.addresses[0])
        try:
            listener = opened.enter_context(socket.create_server(("", port)))
        except OSError as failure:
            raise InputError(
                f"{cluster.name(0)}: the port cannot be used ({failure.strerror}); choose another "
                "in --hosts"
            ) from None
        listener.settimeout(POLL_SECONDS)
        while len(found) < len(cluster.addresses) - 1 and not error:
            missing = [n for n in range(1, len(cluster.addresses)) if n not in found]
            if time.monotonic() > deadline:
                names = " and ".join(map(cluster.name, missing))
                error = (
                    f"{names} did not come within {seconds:g} seconds; start the same command on "
                    "all hosts, each with its --host_index, and check the addresses in --hosts"
                )
                break
            with suppress(OSError, ValueError, TypeError, LookupError):
                connection = opened.enter_context(listener.accept()[0])
                connection.settimeout(SECONDS_TO_SPEAK)
                message = _receive(connection)
                index, values = int(message["index"]), dict(message["own"])
                connections.append(connection)
                error = _difference(cluster, index, values, own)
                if index in found or index not in range(1, len(cluster.addresses)):
                    error = f"two hosts have --host_index {index}: each must have its own"
                found.add(index)
        for connection in connections:
            with suppress(OSError):
                _send(connection, {"error": error})
    if error:
        raise InputError(error)


def _call_the_first(
    cluster: Cluster, hello: dict[str, Any], deadline: float, seconds: float
) -> None:
    """Tell host 0 what this host is, and wait until all are there."""
    address = _split(cluster.addresses[0])
    answer = None
    while answer is None:
        if time.monotonic() > deadline:
            raise InputError(
                f"{cluster.name(0)} cannot be reached within {seconds:g} seconds; start the same "
                "command there with --host_index 0, and check its address in --hosts"
            )
        with (
            suppress(OSError, ValueError),
            socket.create_connection(address, timeout=SECONDS_TO_SPEAK) as connection,
        ):
            _send(connection, hello)
            connection.settimeout(max(1.0, deadline - time.monotonic() + SECONDS_TO_SPEAK))
            answer = _receive(connection)
        if answer is None:
            time.sleep(POLL_SECONDS)
    if answer.get("error"):
        raise InputError(f"{cluster.name(0)}: {answer['error']}")


def _difference(cluster: Cluster, index: int, values: dict[str, Any], own: dict[str, Any]) -> str:
    """Return what another host has that this one has not, in words; "" for nothing."""
    for name, value in own.items():
        if values.get(name) != value:
            who = cluster.name(index) if index < len(cluster.addresses) else f"host {index}"
            return f"{who} has {name} {values.get(name)}, and {cluster.name(0)} has {value}"
    return ""


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any]:
    """Return a message.

    Raises:
        ValueError: what arrives is none.
    """
    with connection.makefile("rb") as lines:
        message = json.loads(lines.readline(MAX_BYTES))
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message
