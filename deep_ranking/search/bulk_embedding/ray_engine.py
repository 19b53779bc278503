"""Make the parts of a table by Ray Data: actors that each hold a `PartMaker`.

Ray schedules the parts, and starts actors anew whose process or machine was lost. An actor that was
killed has written its part whole or not at all, so nothing is in the table twice.
"""

import gc
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any

from deep_ranking.files import InputError
from deep_ranking.images.limits import VARIABLE
from deep_ranking.search.bulk_embedding.parts import LeftOutImage, PartMaker, PartReport

MOST_RETRIES = 4
"""Of a part whose actor died. One that kills every actor, for want of memory, must end the run."""
MOST_RESTARTS = 100
"""Of an actor. One that dies as it starts, for want of memory, does so about once a second."""
STORE_BYTES = 128 << 20
"""Of Ray's store of objects on this machine: only numbers of parts and reports go through it."""
START_SECONDS = 600
"""For the first process on the cluster. One that grows by itself has to find a machine first."""
KEPT = "parts that are there are kept: run the same command again to resume"


class PartActor:
    """Makes parts: what each actor of Ray runs.

    Args:
        maker: opened in the actor's own process when it makes its first part.
    """

    def __init__(self, maker: PartMaker) -> None:
        self._maker = maker

    def __call__(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
        """Make the parts of a batch of numbers.

        Returns:
            The report of each, as JSON; or {"error": message}, as Ray loses the kind of an error.
        """
        return {"report": [self._report(int(number)) for number in batch["number"]]}

    def _report(self, number: int) -> str:
        try:
            return json.dumps(self._maker.make(number))
        except InputError as error:
            return json.dumps({"error": str(error)})


def check_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        InputError: it is not installed; with the way to get it.
    """
    if find_spec("ray") is None:
        raise InputError(
            'the engine ray needs ray, not installed here: pip install "deep-ranking[ray]"'
        )


def make_with_ray(
    maker: PartMaker, missing: Sequence[int], *, address: str | None, workers: int | None
) -> Iterator[PartReport]:
    """Make parts on a cluster, and yield the report of each as it is made.

    Args:
        maker: what makes them.
        missing: their numbers.
        address: of the cluster; None for the one that this process is connected to, or else a new
            one on this machine, which ends with the last part.
        workers: actors; None for one for each machine.

    Raises:
        InputError: there is no cluster, it fails, or a part cannot be made.
    """
    import ray.data

    # Ray prints what becomes of its actors among the results of this program.
    with (
        open(2, "w", encoding="utf-8", closefd=False) as messages,
        redirect_stdout(messages),
        _cluster(address),
        _as_input_errors(),
    ):
        processors = [
            node["Resources"]["CPU"]
            for node in ray.nodes()  # type: ignore[no-untyped-call]
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        ]
        if not processors:
            raise InputError("the Ray cluster has no machine with a processor")
        count = min(workers or len(processors), len(missing))
        share = min(processors) if workers is None else max(1, sum(processors) // workers)
        _check_start(share)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors come to us too
        parts = ray.data.from_items(
            [{"number": number} for number in missing], override_num_blocks=len(missing)
        )
        with warnings.catch_warnings():
            # Ray 2.60 deprecates what it has no other word for yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            made = parts.map_batches(
                PartActor,
                fn_constructor_args=(maker,),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=count),
                num_cpus=share,
                max_restarts=MOST_RESTARTS,
                max_task_retries=MOST_RETRIES,
            )
        for row in made.iter_rows():
            report = json.loads(row["report"])
            if isinstance(report, dict):
                raise InputError(report["error"])
            number, num_rows, left_out = report
            yield PartReport(number, num_rows, tuple(LeftOutImage(*each) for each in left_out))


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connect to a cluster for the block, unless this process is connected already.

    Raises:
        InputError: there is none at the address.
    """
    import ray

    if address is None and ray.is_initialized():
        try:
            yield
        finally:
            gc.collect()  # Ray Data ends the actors of a run that failed when its executor is freed
        return
    options: dict[str, Any] = {"address": address or "local"}
    if address is None:
        options |= {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    if VARIABLE in os.environ:  # what --max_megapixels sets
        options["runtime_env"] = {"env_vars": {VARIABLE: os.environ[VARIABLE]}}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = address or "this machine"
        raise InputError(
            f"{where}: no Ray cluster could be joined or started ({_first_line(error)}); check "
            "--address"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_start(share: float) -> None:
    """Start a process on the cluster, as large as an actor: Ray itself tries that without end.

    Args:
        share: processors of an actor.

    Raises:
        InputError: it cannot be started, or not in time.
    """
    import ray
    from ray.exceptions import GetTimeoutError, OutOfMemoryError

    process = ray.remote(num_cpus=share, max_retries=0)(_started)
    try:
        ray.get(process.remote(), timeout=START_SECONDS)
    except OutOfMemoryError as error:
        raise InputError(
            f"the Ray cluster has too little memory to start an actor ({_first_line(error)}); end "
            f"other programs there, or take machines with more memory; {KEPT}"
        ) from None
    except GetTimeoutError:
        raise InputError(
            f"the Ray cluster started no process with {share:g} processors within "
            f"{START_SECONDS:g} s: other work may hold them; give another number of --workers, or "
            f"try again later; {KEPT}"
        ) from None


def _started() -> None:
    """Do nothing, on the cluster."""


@contextmanager
def _as_input_errors() -> Iterator[None]:
    """Turn the errors of a cluster into one line.

    It is raised once Ray's error is gone, whose traceback would keep the actors of a run alive.
    """
    from ray.exceptions import OutOfMemoryError, RayActorError, RayError

    try:
        yield
        return
    except RayError as error:
        said = f"the Ray cluster failed: {_first_line(error)}"
        if isinstance(error, RayActorError | OutOfMemoryError):
            said = (
                f"a part cost {MOST_RETRIES + 1} actors of Ray, or an actor died {MOST_RESTARTS} "
                f"times: their machines are out of memory or were lost ({_first_line(error)}); "
                "give fewer --workers, or machines with more memory"
            )
    raise InputError(f"{said}; {KEPT}")


def _first_line(error: Exception) -> str:
    """Return the kind of an error, and the first line of what it says."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0].strip().rstrip('.')}"
