"""A training run over its epochs."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

History = Sequence[Mapping[str, float]]


def plot_history(history: History, quantities: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw quantities of a training run over its epochs, and the same on validation data.

    Args:
        history: one mapping an epoch, with "epoch" and the quantities that were measured in it;
            those on validation data have "val_" before their name.
        quantities: names of the quantities to draw.
        ax: axes to draw on.

    Returns:
        The axes.
    """
    ax = ax or Figure(figsize=(6.4, 4.8), layout="constrained").subplots()
    for index, quantity in enumerate(quantities):
        for prefix, style, where in (("", "-", "training"), ("val_", "--", "validation")):
            points = [
                (row["epoch"], row[prefix + quantity])
                for row in history
                if prefix + quantity in row
            ]
            if points:
                label = f"{quantity.replace('_', ' ')} ({where})"
                ax.plot(
                    *zip(*points, strict=True), style, color=f"C{index}", marker=".", label=label
                )
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    if ax.lines:
        ax.legend()
    return ax


def run_figure(history: History) -> Figure:
    """Draw a training run: loss, mean distances, and the shares of triplets.

    Args:
        history: as for `plot_history`.

    Returns:
        The figure, three axes side by side.
    """
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    losses, distances, shares = figure.subplots(1, 3)
    plot_history(history, ["loss"], losses).set_title("loss")
    plot_history(history, ["positive_distance", "negative_distance"], distances).set_title(
        "mean distance to the query"
    )
    plot_history(
        history, ["similarity_precision", "active_triplets", "recall_at_1", "map_at_r"], shares
    ).set_title("share of triplets, or of images")
    shares.set_ylim(0, 1)
    return figure
