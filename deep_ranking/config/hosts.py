"""Which hosts train together: as flags say, or as TensorFlow's variable TF_CONFIG does."""

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from deep_ranking.files import InputError

VARIABLE = "TF_CONFIG"
MAX_PORT = 65535


@dataclass(frozen=True)
class Cluster:
    """The hosts that train together, and which of them this one is.

    Attributes:
        addresses: HOST:PORT of each.
        index: number of this host, from 0.

    Raises:
        InputError: an address is none or comes twice, or there is no host of that number.
    """

    addresses: tuple[str, ...]
    index: int

    def __post_init__(self) -> None:
        """Check addresses and index."""
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            right = re.fullmatch(r"[\w.-]+|\[[\da-fA-F:.]+\]", host) and re.fullmatch(r"\d+", port)
            if not right or not 0 < int(port) <= MAX_PORT:
                raise InputError(
                    f"hosts must be HOST:PORT,HOST:PORT, ports from 1 to {MAX_PORT}. "
                    f"Received: {address or 'nothing between two commas'}"
                )
            if self.addresses.count(address) > 1:
                raise InputError(f"hosts must differ. Received twice: {address}")
        if not 0 <= self.index < len(self.addresses):
            raise InputError(
                f"host_index must be 0 to {len(self.addresses) - 1}, as there are "
                f"{len(self.addresses)} hosts. Received: {self.index}"
            )

    def name(self, index: int) -> str:
        """Return what messages call a host."""
        return f"host {index} ({self.addresses[index]})"


def find_cluster(hosts: str | None, host_index: int | None) -> Cluster | None:
    """Return the hosts that train together; None for one host alone.

    Args:
        hosts: addresses with commas between them; None to read `TF_CONFIG`.
        host_index: number of this host in them.

    Raises:
        InputError: the hosts or the index cannot be used, one of the two is missing, or both the
            arguments and `TF_CONFIG` name hosts.
    """
    of_variable = _from_variable(os.environ.get(VARIABLE, ""))
    if hosts is None:
        if host_index is not None:
            raise InputError("host_index needs hosts: give --hosts")
        return of_variable
    if host_index is None:
        raise InputError("hosts needs the number of this host: give --host_index")
    if of_variable is not None:
        raise InputError(f"give hosts or the variable {VARIABLE}, not both: unset {VARIABLE}")
    return Cluster(tuple(hosts.split(",")), host_index)


def _from_variable(text: str) -> Cluster | None:
    """Return the hosts of TF_CONFIG; None if it names a single one, or none."""
    try:
        settings: dict[str, Any] = json.loads(text or "{}")
        jobs = settings.get("cluster", {})
        addresses = [str(each) for job in ("chief", "worker") for each in jobs.get(job, [])]
        if len(addresses) < 2:
            return None
        task = settings["task"]
        job, index = task["type"], int(task["index"])
        known = job in ("chief", "worker")
    except (ValueError, TypeError, AttributeError, LookupError):
        raise InputError(
            f'{VARIABLE} must be JSON such as {{"cluster": {{"worker": ["a:2222", "b:2222"]}}, '
            f'"task": {{"type": "worker", "index": 0}}}}. Received: {" ".join(text.split())}'
        ) from None
    if not known or jobs.keys() - {"chief", "worker"}:
        raise InputError(
            f"{VARIABLE} may name hosts of the types chief and worker alone: there are no "
            f"parameter servers and evaluators here. Received: {', '.join(sorted({*jobs, job}))}"
        )
    first = len(jobs.get("chief", [])) if job == "worker" else 0
    return Cluster(tuple(addresses), first + index)
