"""Progress bars of long work, on standard error and only on a terminal."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm as ProgressBar

__all__ = ["ProgressBar", "progress_bar"]


def progress_bar(
    items: Iterable[Any] | None = None,
    *,
    title: str,
    unit: str,
    total: int | None = None,
    shown: bool = True,
    **options: Any,
) -> ProgressBar:
    """Return a progress bar; with `items`, one that is iterated in their place.

    Args:
        items: what to go through.
        title: short name of the work, which precedes the bar.
        unit: what is counted, in the plural: "images"; "B" counts bytes.
        total: how many there are, where `items` cannot say.
        shown: whether to show it where standard error is a terminal.
        **options: others that `tqdm` takes.

    Returns:
        The bar: a context manager with `update(count)`.
    """
    if unit == "B":
        options |= {"unit_scale": True, "unit_divisor": 1024}
    return ProgressBar(
        items,
        total=total,
        desc=title,
        unit=unit if unit == "B" else f" {unit}",
        disable=None if shown else True,
        **options,
    )
