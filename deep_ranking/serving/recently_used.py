"""Results that are kept until others were used more recently."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")


class RecentlyUsed(Generic[Key, Kept]):
    """A bounded number of results, for several threads; the one unused for longest goes first.

    `functools.lru_cache` would hold the uploads, which its keys are made from.

    Args:
        most: results that are kept.

    Example:
        >>> kept = RecentlyUsed(2)
        >>> for key in "abac":
        ...     kept.add(key, key.upper())
        >>> kept.find("a"), kept.find("b"), kept.find("c")
        ('A', None, 'C')
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Key) -> Kept | None:
        """Return a result, and note that it was used; None if it is not here."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def add(self, key: Key, result: Kept) -> None:
        """Keep a result."""
        with self._lock:
            self._kept[key] = result
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
