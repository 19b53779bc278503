"""What takes long to find in a collection: found once, on a thread of its own, and kept."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from deep_ranking.serving.problems import RequestError

T = TypeVar("T")


class SlowResult(Generic[T]):
    """Finds one result at a time, and keeps the last.

    Args:
        what: is found, in the plural, for people: "duplicates".
        seconds: how long a request waits for it; it is found all the same.
    """

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=what)
        self._lock = threading.Lock()
        self._key: tuple[object, ...] = ()
        self._found: Future[T] | None = None

    async def find(self, key: tuple[object, ...], function: Callable[[], T]) -> T:
        """Return what a function returns; it is called if the last result has another key.

        Raises:
            RequestError: it is not found yet.
        """
        with self._lock:
            found = self._found
            if found is None or key != self._key:
                if found is not None and not found.done():
                    raise RequestError(
                        503, f"Other {self._what} are being searched; try again.", retry_after=10
                    )
                found = self._pool.submit(function)
                self._key, self._found = key, found
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(found)), self._seconds)
        except TimeoutError:
            raise RequestError(
                503, f"The {self._what} are being searched; try again.", retry_after=5
            ) from None
        except Exception:
            self.forget()
            raise

    def forget(self) -> None:
        """Find it anew the next time, as after a change."""
        with self._lock:
            if self._found is not None and self._found.done():
                self._key, self._found = (), None
