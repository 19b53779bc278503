"""What a server found lately, within a bound: what was not asked for longest goes first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, for several threads.

    Args:
        most: largest sum of the sizes of all values. The newest is kept whatever its size.

    Example:
        >>> recent = Recent(2)
        >>> for key in "abc":
        ...     recent.keep(key, key.upper())
        >>> recent.find("a"), recent.find("c")
        (None, 'C')
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size = 0

    def find(self, key: K) -> V | None:
        """Return the value of a key, and note that it was asked for; None if it is not here."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: K, value: V, size: int = 1) -> None:
        """Keep a value, in place of what the key had."""
        with self._lock:
            _, before = self._kept.pop(key, (None, 0))
            self._kept[key] = (value, size)
            self._size += size - before
            while self._size > self._most and len(self._kept) > 1:
                _, (_, gone) = self._kept.popitem(last=False)
                self._size -= gone
