"""Progress bars for long work, on standard error and only on a terminal."""

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
    """Return a progress bar. With `items`, iterate over the bar instead of them.

    Args:
        items: what to iterate over.
        title: short name of the work, shown before the bar.
        unit: what is counted, in the plural: "images"; "B" counts bytes.
        total: how many there are, if `len(items)` does not tell.
        shown: whether to show it if standard error is a terminal.
        **options: other options of `tqdm`.

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
