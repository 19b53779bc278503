"""Curves, bars and histograms of what an evaluation measured."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from deep_ranking.files.array_types import FloatArray
from deep_ranking.files.words import shortened
from deep_ranking.metrics import Interval
from deep_ranking.metrics.reliability import Reliability

NUM_BINS = 60


def new_axes(*, width: float = 6.4, height: float = 4.8) -> Axes:
    """Return axes on a figure of their own, of a size in inches; pyplot is not involved."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


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
    bins = np.linspace(0, highest if highest > 0 else 1, NUM_BINS + 1).tolist()
    for distances, label, color in ((same, "same class", "C0"), (different, "different", "C1")):
        ax.hist(distances, bins=bins, density=True, alpha=0.6, color=color, label=label)
    ax.axvline(threshold, color="black", linestyle="--", label=f"equal error at {threshold:.3f}")
    ax.set(xlabel="distance", ylabel="density of pairs")
    ax.legend()
    return ax


def plot_recall(first_positive_rank: FloatArray, ax: Axes | None = None) -> Axes:
    """Draw recall@k over k: the share of queries with an image of their class among the k nearest.

    Args:
        first_positive_rank: float array (queries,), `RetrievalMetrics.first_positive_rank`: the
            rank from 1 of the nearest image of the query's class; NaN for none is left out.
        ax: axes to draw on.

    Returns:
        The axes, with k on a logarithmic scale up to where recall is 1.

    Raises:
        ValueError: if no rank is defined.
    """
    ranks = np.sort(first_positive_rank[~np.isnan(first_positive_rank)])
    if not len(ranks):
        raise ValueError("Recall needs a query with an image of its class. Received: only NaN.")
    ax = ax or new_axes()
    depths = np.unique(np.concatenate([[1], ranks]))
    recall = np.searchsorted(ranks, depths, side="right") / len(ranks)
    ax.plot(depths, recall, marker=".", drawstyle="steps-post")
    ax.set(xscale="log", xlim=(0.9, max(10, depths[-1]) * 1.1), ylim=(0, 1.02))
    ax.set(xlabel="k, number of nearest images", ylabel="recall@k")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(alpha=0.3)
    return ax


def plot_confusions(
    pairs: Sequence[tuple[str, str]], shares: Sequence[float], ax: Axes | None = None
) -> Axes:
    """Draw the most confused pairs of classes, in the given order from top to bottom.

    Args:
        pairs: a class, and the class that its images are taken for.
        shares: for each pair the share of the first class's images, 0 to 1.
        ax: axes to draw on; by default new ones, higher for more pairs.

    Returns:
        The axes.
    """
    ax = ax or new_axes(width=7.5, height=1 + 0.3 * len(pairs))
    names = [f"{shortened(first)} → {shortened(second)}" for first, second in pairs]
    bars = ax.barh(range(len(pairs)), shares, color="C3")
    ax.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3)
    ax.set_yticks(range(len(pairs)), names, parse_math=False)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlim(0, 1.1 * max([*shares, 0.1]))
    ax.set_xlabel("images whose nearest wrong image is of the second class")
    return ax


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
    ax.plot(shares, means, marker="o")
    ax.fill_between(shares, lows, highs, alpha=0.2)
    label = f"share of in-class negatives: {in_class}"
    ax.set(xlabel=label, ylabel="similarity precision", ylim=(0, 1.02))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(alpha=0.3)
    return ax


def plot_reliability(curves: Mapping[str, Reliability], ax: Axes | None = None) -> Axes:
    """Draw a reliability diagram: the share of right answers against the stated probability.

    Args:
        curves: name -> bins of stated probabilities; the first is drawn in colour, the others in
            grey.
        ax: axes to draw on.

    Returns:
        The axes: the diagonal, and for each curve a line through the bins that have answers, whose
        label gives the expected calibration error. A panel above has the counts.
    """
    ax = ax or new_axes(width=5.2, height=5.2)
    above = ax.inset_axes((0, 1.03, 1, 0.16), sharex=ax)
    ax.plot([0, 1], [0, 1], color="black", linestyle=":", label="as stated")
    for number, (name, found) in reversed(list(enumerate(curves.items()))):
        color, style = ("0.6", "s--") if number else ("C0", "o-")
        there = found.counts > 0
        label = f"{name}, error {found.calibration_error:.3f}"
        ax.plot(found.stated[there], found.right[there], style, color=color, label=label)
        edges = np.linspace(0, 1, len(found.counts) + 1)
        above.stairs(found.counts, edges, color=color, fill=not number, alpha=0.8)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set(xlabel="stated probability", ylabel="share that is right")
    above.tick_params(labelbottom=False)
    above.set_ylabel("count")
    above.locator_params(axis="y", nbins=2)
    ax.grid(alpha=0.3)
    ax.legend(loc="upper left")
    return ax


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
