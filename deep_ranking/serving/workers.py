"""Threads that do what takes long, bounded in number, in queue and in time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from deep_ranking.serving.problems import RequestError

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A few threads with a short queue.

    Args:
        num_threads: how many.
        queue: calls that wait while all threads work.
        seconds: time after which the caller no longer waits. A thread cannot be stopped, so its
            place is free only when the call ends.
    """

    def __init__(self, num_threads: int, *, queue: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="serving")
        self._most = num_threads + queue
        self._seconds = seconds
        self._num_running = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns on one of the threads.

        Raises:
            RequestError: the queue is full, or the call takes too long.
        """
        if self._num_running >= self._most:
            raise RequestError(503, "The server is busy; try again.", retry_after=1)
        self._num_running += 1
        call = asyncio.wrap_future(self._pool.submit(function, *args, **kwargs))
        call.add_done_callback(self._ended)
        try:
            return await asyncio.wait_for(asyncio.shield(call), self._seconds)
        except TimeoutError:
            raise RequestError(503, "This took too long; try again.", retry_after=5) from None

    def _ended(self, call: "asyncio.Future[T]") -> None:
        self._num_running -= 1
        if not call.cancelled():
            call.exception()  # of a call that nobody waits for any more
