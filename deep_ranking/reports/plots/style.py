"""How plots look: the colours of the page, thin axes without a box, and words of one size.

Plots are drawn in the colours of a light screen. `inline_svg` hands them over to the page's style
sheet, so that they follow a dark screen.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deep_ranking.files.design import light_color

INK, QUIET, LINE = light_color("ink"), light_color("quiet"), light_color("line")
ACCENT, WARN = light_color("accent"), light_color("warn")
WIDTH, HEIGHT = 4.8, 3.3  # inches: as wide as a telephone, so that its words are legible there
STYLE: Any = {
    "font.size": 11,
    "axes.labelsize": 10.5,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")


def styled(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Make a function draw in this style; Matplotlib's own settings stay as they are."""

    @functools.wraps(draw)
    def drawn(*args: Arguments.args, **options: Arguments.kwargs) -> Drawn:
        with rc_context(STYLE):
            return draw(*args, **options)

    return drawn


@styled
def new_axes(*, width: float = WIDTH, height: float = HEIGHT) -> Axes:
    """Return axes on a figure of their own, of a size in inches; pyplot is not involved."""
    return Figure(figsize=(width, height), layout="constrained").subplots()
