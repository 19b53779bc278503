"""The history of a training run: `history.csv`, an epoch a line, and `history.png`, its picture."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deep_ranking.files import InputError, atomic_path, open_regular
from deep_ranking.files.design import light_color

Row = dict[str, float]
"""What was measured in an epoch, by name, and "epoch", counted from 1; 0 is before training."""

History = Sequence[Mapping[str, float]]

LEGEND_LINE = 15  # points
COLORS = [light_color(name) for name in ("accent", "warn", "ink", "quiet")]


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write a history as CSV, with the columns of the latest epoch first."""
    columns = list(dict.fromkeys(name for row in reversed(history) for name in row))
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as handle,
    ):
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(history)


def read_history(path: Path) -> list[Row]:
    """Read a file of `write_history`: a line of names, then a line for each epoch.

    Returns:
        One row an epoch, without the cells that are empty.

    Raises:
        InputError: there is no such file, or it is not a history; with the line.
    """
    try:
        with open_regular(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as handle:
            reader = csv.DictReader(handle, restkey="", restval="")
            if "epoch" not in (reader.fieldnames or ()):
                raise InputError(f"{path}:1: expected a line of names with epoch among them")
            rows = []
            for cells in reader:
                rows.append({name: float(cell) for name, cell in cells.items() if cell})
                if not math.isfinite(rows[-1].get("epoch", math.nan)):
                    raise InputError(f"{path}:{reader.line_num}: expected the number of an epoch")
            return rows
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check --history") from None
    except (ValueError, TypeError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        line = f":{reader.line_num}" if not isinstance(error, UnicodeDecodeError) else ""
        raise InputError(f"{path}{line}: expected numbers; not a history of train.py") from None


def draw_history(path: Path, history: History) -> None:
    """Write the picture of a history, unless the history is empty."""
    if history:
        with atomic_path(path) as temporary:
            run_figure(history).savefig(temporary)


def plot_history(history: History, quantities: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw quantities of a training run over its epochs, in training and in validation.

    Args:
        history: one mapping an epoch, with "epoch" and what was measured in it; names of
            validation begin with "val_".
        quantities: names of the quantities to draw, without "val_".
        ax: axes to draw on; None for new ones.

    Returns:
        The axes, which begin at 0 if no value is below. The names of the curves stand above them.
    """
    ax = ax or Figure(figsize=(6.4, 4.8), layout="constrained").subplots()
    lowest = 0.0
    for index, quantity in enumerate(quantities):
        color = COLORS[index % len(COLORS)]
        for prefix, style, where in (("", "-", "training"), ("val_", "--", "validation")):
            points = [
                (row["epoch"], row[prefix + quantity])
                for row in history
                if prefix + quantity in row
            ]
            if points:
                label = f"{quantity.replace('_', ' ')} ({where})"
                ax.plot(*zip(*points, strict=True), style, color=color, marker=".", label=label)
                lowest = min(lowest, *(value for _, value in points))
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    if lowest == 0:
        ax.set_ylim(bottom=0)
    if ax.lines:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0)
    return ax


def run_figure(history: History) -> Figure:
    """Draw loss, mean distances, and the shares of triplets, on three axes side by side."""
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    losses, distances, shares = figure.subplots(1, 3)
    for ax, title, names in (
        (losses, "loss", ["loss"]),
        (distances, "mean distance to the query", ["positive_distance", "negative_distance"]),
        (
            shares,
            "share of triplets, or of images",
            ["similarity_precision", "active_triplets", "recall_at_1", "map_at_r"],
        ),
    ):
        plot_history(history, names, ax)
        ax.set_title(title, pad=8 + LEGEND_LINE * len(ax.lines))
    shares.set_ylim(0, 1.02)
    return figure
