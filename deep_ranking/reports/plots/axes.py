"""Axes without pyplot, and names of classes on them."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

LONGEST_NAME = 28


def new_axes(*, width: float = 6.4, height: float = 4.8) -> Axes:
    """Make axes on a figure of their own, of the given size in inches."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Cut the middle out of a long name; its ends tell more than its beginning alone."""
    if len(name) <= longest:
        return name
    kept = longest - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"
