"""Curves and histograms of what an evaluation measured.

Axes of shares, distances and numbers begin at 0. Curves have their names and values beside them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from deep_ranking.files.array_types import FloatArray
from deep_ranking.files.words import in_percent
from deep_ranking.metrics import Interval
from deep_ranking.metrics.reliability import Reliability
from deep_ranking.reports.plots.style import ACCENT, INK, QUIET, new_axes, styled

NUM_BINS = 60
DEPTH_TICKS = [float(step * 10**zeros) for zeros in range(7) for step in (1, 5)]
LARGEST_POINT = 220  # area in points² of the bin with most answers


@styled
def plot_distances(
    same: FloatArray, different: FloatArray, threshold: float, ax: Axes | None = None
) -> Axes:
    """Draw the distances of images of one class and of two classes, and the threshold.

    Args:
        same: float array (pairs,), distances of pairs of one class.
        different: float array (pairs,), distances of pairs of two classes.
        threshold: distance of equal error, `PairMetrics.threshold`.
        ax: axes to draw on.

    Returns:
        The axes: a histogram of area 1 for each kind, with the same bins.
    """
    ax = ax or new_axes()
    highest = max(np.max(same), np.max(different))
    bins = np.linspace(0, highest if highest > 0 else 1, NUM_BINS + 1)
    top = 0.0
    for distances, color, alpha in ((different, QUIET, 0.4), (same, ACCENT, 0.7)):
        density = np.histogram(distances, bins, density=True)[0]
        ax.stairs(density, bins, fill=True, color=color, alpha=alpha, linewidth=0)
        top = max(top, density.max())
    # Above the hills: the threshold beside its line, and the names above that.
    ax.vlines(threshold, 0, 1.16 * top, color=INK, linestyle="--", linewidth=1.2)
    side, gap = ("right", -4) if threshold > bins[-1] / 2 else ("left", 4)
    ax.annotate(f"threshold {threshold:.3f}", (threshold, 1.16 * top), (gap, 0), ha=side, va="top",
                textcoords="offset points", fontsize=10)  # fmt: skip
    names = [("same class", ACCENT), ("two classes", QUIET)]
    if np.mean(same) > np.mean(different):
        names.reverse()
    for (name, color), x, side in zip(names, (0.02, 0.98), ("left", "right"), strict=True):
        ax.text(x, 0.99, name, color=color, ha=side, va="top", transform=ax.transAxes)
    ax.set(xlabel="distance: 0 is the same picture", ylabel="pairs", yticks=[])
    ax.set(xlim=(0, bins[-1]), ylim=(0, 1.32 * top))
    ax.grid(False)
    return ax


@styled
def plot_recall(first_positive_rank: FloatArray, ax: Axes | None = None) -> Axes:
    """Draw recall@k over k: the share of queries with an image of their class among the k nearest.

    Args:
        first_positive_rank: float array (queries,), `RetrievalMetrics.first_positive_rank`: the
            rank from 1 of the nearest image of the query's class; NaN for none is left out.
        ax: axes to draw on.

    Returns:
        The axes, with k on a logarithmic scale, at least up to where recall is 1.

    Raises:
        ValueError: if no rank is defined.
    """
    ranks = np.sort(first_positive_rank[~np.isnan(first_positive_rank)])
    if not len(ranks):
        raise ValueError("Recall needs a query with an image of its class. Received: only NaN.")
    ax = ax or new_axes()
    last = max(10, ranks[-1])
    depths = np.unique(np.concatenate([[1], ranks, [last]]))
    recall = np.searchsorted(ranks, depths, side="right") / len(ranks)
    ax.plot(depths, recall, color=ACCENT, drawstyle="steps-post")
    for depth in (1, 5, 10) if last <= 30 else (1, 10, 100)[: 3 if last >= 100 else 2]:
        value = float(np.searchsorted(ranks, depth, side="right") / len(ranks))
        ax.plot(depth, value, "o", color=ACCENT, clip_on=False)
        # To the right the curve is no lower, so there is room below it; but not at the bottom.
        side, above = ("top", -5) if value > 0.2 else ("bottom", 5)
        ax.annotate(in_percent(value), (depth, value), (3, above), textcoords="offset points",
                    va=side)  # fmt: skip
    # The last value is beside its point, so the axis goes on for its width.
    ax.set(xscale="log", xlim=(0.9, 1.9 * last), ylim=(0, 1.04))
    ax.set(xlabel="number of nearest pictures", ylabel="searches")
    ax.xaxis.set_major_locator(FixedLocator(DEPTH_TICKS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return ax


@styled
def plot_negatives(
    shares: Sequence[float],
    precisions: Sequence[Interval],
    *,
    in_class: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw similarity precision against the share of in-class negatives.

    Args:
        shares: share of the triplets whose negative is in-class, 0 to 1, rising.
        precisions: similarity precision at each share, with its interval.
        in_class: what counts as in-class, such as "of the query's category", for the axis label.
        ax: axes to draw on.

    Returns:
        The axes, with a band for the intervals.
    """
    ax = ax or new_axes()
    means, lows, highs = zip(*precisions, strict=True)
    ax.plot(shares, means, marker="o", color=ACCENT, clip_on=False)
    ax.fill_between(shares, lows, highs, alpha=0.2, color=ACCENT, linewidth=0)
    for end in (0, -1):
        side, above = ("top", -8) if means[end] > 0.2 else ("bottom", 8)
        ax.annotate(in_percent(means[end]), (shares[end], means[end]), (0, above), va=side,
                    textcoords="offset points", ha=("left", "right")[end])  # fmt: skip
    ax.set(xlabel=f"hard negatives: {in_class}", ylabel="triplets in order")
    ax.set(xlim=(shares[0], shares[-1]), ylim=(0, 1.02))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return ax


@styled
def plot_reliability(curves: Mapping[str, Reliability], ax: Axes | None = None) -> Axes:
    """Draw a reliability diagram: the share of right answers against the stated probability.

    Args:
        curves: name -> bins of stated probabilities; the first is drawn in colour, the others in
            grey.
        ax: axes to draw on.

    Returns:
        The axes: the diagonal, and for each curve a line through the bins that have answers, with
        a point for each bin whose area grows with its number of answers.
    """
    ax = ax or new_axes(height=4.5)
    ax.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.2, label="as promised")
    for number, (name, found) in reversed(list(enumerate(curves.items()))):
        color, style = (QUIET, "--") if number else (ACCENT, "-")
        there = found.counts > 0
        stated, right, counts = found.stated[there], found.right[there], found.counts[there]
        ax.plot(stated, right, style, color=color, label=name, linewidth=1.5)
        areas = LARGEST_POINT * counts / counts.max() + 8
        ax.scatter(stated, right, areas, color=color, alpha=0.6, linewidth=0, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="promised probability", ylabel="answers that are right")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    ax.figure.legend(loc="outside upper left", ncols=1, reverse=True)
    return ax


@styled
def plot_samplings(
    shares: Sequence[float],
    curves: Mapping[str, FloatArray],
    metric: str,
    *,
    before: float,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric of ways of sampling against their share of out-of-class negatives.

    Args:
        shares: share of the training triplets whose negative is out-of-class, 0 to 1, rising.
        curves: for each way of sampling the values of the metric, float array (runs, shares).
        metric: its name, for the axis label.
        before: the metric without training.
        ax: axes to draw on.

    Returns:
        The axes: a line for the mean of each way, with bars of one standard error over the runs.
    """
    ax = ax or new_axes()
    for number, (name, values) in enumerate(curves.items()):
        runs = len(values)
        errors = np.std(values, axis=0, ddof=1) / np.sqrt(runs) if runs > 1 else None
        style = "o-" if number % 2 == 0 else "s--"
        ax.errorbar(shares, np.mean(values, axis=0), errors, fmt=style, capsize=3, label=name)
    ax.axhline(before, color="black", linestyle=":", label="before training")
    ax.set(xlabel="share of out-of-class negatives in training", ylabel=metric)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
