"""Progress of long work, on standard error: a bar on a terminal, else a line every 30 seconds."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from deep_ranking.files.words import byte_size, duration

if TYPE_CHECKING:
    from tqdm import tqdm

    ProgressBar = tqdm[Any] | "ProgressLines"

SECONDS_BETWEEN_LINES = 30.0

quiet = False
"""Whether --quiet asked for no progress at all."""

listener: Callable[[str, int, int | None], None] | None = None
"""Called with the title, what is done and the total: by it, a process tells another how far it is.
Nothing is written then."""


class ProgressLines:
    """What a bar is where there is no terminal: nothing at first, then a line every 30 seconds.

    It is used as a bar of `tqdm` is.

    Args:
        items: what to iterate over; None if the caller counts by `update`.
        title: short name of the work, such as "embedding".
        unit: what is counted, in the plural; "B" counts bytes.
        total: how many there are; None if nobody knows.
        initial: how many were done earlier.
        shown: whether to write anything.

    Attributes:
        total: how many there are; may be set later.
        n: how many are done.
    """

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        *,
        title: str,
        unit: str,
        total: int | None = None,
        initial: int = 0,
        shown: bool = True,
    ) -> None:
        self.total = total
        self.n = initial
        self._items = items
        self._title = title
        self._unit = unit
        self._initial = initial
        self._shown = shown
        self._start = self._last_line = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        for item in self._items or ():
            yield item
            self.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def close(self) -> None:
        """Do nothing: a bar ends here."""

    def update(self, count: int = 1) -> None:
        """Count what is done; write a line if the last one, or the start, was long ago."""
        self.n += count
        if listener is not None:
            listener(self._title, self.n, self.total)
        now = time.monotonic()
        if self._shown and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(self._line(now - self._start), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        done = self._counted(self.n)
        if self.total is None:
            return f"{self._title}: {done}{self._noun()}, after {duration(seconds)}"
        line = f"{self._title}: {done} of {self._counted(self.total)}{self._noun()}"
        rate = (self.n - self._initial) / seconds
        if not rate or self.n >= self.total:
            return line
        return f"{line}, {duration((self.total - self.n) / rate)} left"

    def _counted(self, number: int) -> str:
        return byte_size(number) if self._unit == "B" else f"{number:,}"

    def _noun(self) -> str:
        return "" if self._unit == "B" else f" {self._unit}"


def progress_bar(
    items: Iterable[Any] | None = None,
    *,
    title: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    shown: bool = True,
) -> Any:
    """Return a progress bar. With `items`, iterate over the bar instead of them.

    Where standard error is no terminal, it is `ProgressLines`: work of less than 30 seconds writes
    nothing.

    Args:
        items: what to iterate over.
        title: short name of the work, shown before the bar.
        unit: what is counted, in the plural: "images"; "B" counts bytes.
        total: how many there are, if `len(items)` does not tell.
        initial: how many were done earlier, such as bytes of a download.
        shown: whether to show it.

    Returns:
        The bar: a context manager with `update(count)`.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    shown = shown and not quiet and listener is None
    if listener is not None or not sys.stderr.isatty():
        return ProgressLines(
            items, title=title, unit=unit, total=total, initial=initial, shown=shown
        )
    from tqdm import tqdm  # late: it takes as long as the rest of a command's parser

    options = {"unit_scale": True, "unit_divisor": 1024} if unit == "B" else {}
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=title,
        unit=unit if unit == "B" else f" {unit}",
        disable=not shown,
        **options,
    )
