"""Plots: each function draws one figure, on the axes it is given or on its own.

Figures are made without pyplot, so nothing is global and no display is needed. Names of classes are
drawn as they are: "$" starts no formula.
"""

from deep_ranking.reports.plots.metrics import (
    plot_distances,
    plot_negatives,
    plot_recall,
    plot_reliability,
    plot_samplings,
)
from deep_ranking.reports.plots.style import new_axes
from deep_ranking.reports.plots.thumbnails import (
    Neighbours,
    missing_image,
    neighbours_figure,
)

__all__ = [
    "Neighbours",
    "missing_image",
    "neighbours_figure",
    "new_axes",
    "plot_distances",
    "plot_negatives",
    "plot_recall",
    "plot_reliability",
    "plot_samplings",
]
