"""Pictures: one figure a function; each takes the axes to draw on, or makes its own.

Figures are made without pyplot, so that nothing is global and no display is needed. Names of
classes are drawn as they are: "$" begins no formula.
"""

from deep_ranking.reports.plots.axes import new_axes
from deep_ranking.reports.plots.metrics import (
    plot_confusions,
    plot_distances,
    plot_negatives,
    plot_recall,
    plot_samplings,
)
from deep_ranking.reports.plots.thumbnails import (
    Neighbours,
    embedding_map,
    map_points,
    neighbours_figure,
)
from deep_ranking.training.history import History, plot_history, run_figure

__all__ = [
    "History",
    "Neighbours",
    "embedding_map",
    "map_points",
    "neighbours_figure",
    "new_axes",
    "plot_confusions",
    "plot_distances",
    "plot_history",
    "plot_negatives",
    "plot_recall",
    "plot_samplings",
    "run_figure",
]
