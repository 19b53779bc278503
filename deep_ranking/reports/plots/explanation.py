"""The picture of an `Explanation`: heatmaps over both images, and the share of each part."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from deep_ranking.files.words import in_percent, shortened
from deep_ranking.reports.explain import Explanation
from deep_ranking.reports.likeness_words import BIAS, MEANINGS, MIN_COSINE, parts_in_words
from deep_ranking.reports.plots.style import ACCENT, INK, QUIET, styled

# From no colour to yellow: both stand out on grey, and for eyes that see no red or no green.
HEAT = LinearSegmentedColormap.from_list("heat", ["#8f4a12", "#f08c1e", "#ffe14d"])
LINE_LENGTH, MOST_LINES = 27, 3  # characters below an image
TITLE_LENGTH = 11.5  # characters an inch


@styled
def explanation_figure(
    explanation: Explanation, names: Sequence[str] = ("image 1", "image 2")
) -> Figure:
    """Draw each image, a heatmap of each part over it, and bars of the parts.

    Args:
        explanation: result of `explain_pixels`.
        names: names of the two images.

    Returns:
        The figure.
    """
    columns = 1 + len(explanation.heatmaps)
    widths = [1] * columns + [1.5]
    figure = Figure(figsize=(2.6 * sum(widths), 6.4), layout="constrained")
    words = parts_in_words(explanation.parts, explanation.part_names, explanation.cosine)
    words = [f"Distance {explanation.distance:.3f}, 0 for the same picture.", *words]
    title = textwrap.fill(" ".join(words), int(TITLE_LENGTH * figure.get_figwidth()))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    grid = figure.add_gridspec(2, columns + 1, width_ratios=widths)
    overlays = []
    for row, (image, name) in enumerate(zip(explanation.images, names, strict=True)):
        ax = figure.add_subplot(grid[row, 0], xticks=[], yticks=[])
        ax.imshow(image)
        ax.set_xlabel(_printable(name), parse_math=False)
        for column, (part, heatmaps) in enumerate(explanation.heatmaps.items(), start=1):
            ax = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
            heatmap, adds = heatmaps[row], float(explanation.parts_of_image[part][row])
            ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255, alpha=0.75)
            # The square root keeps weak places visible without hiding the image below the strong.
            ax.imshow(heatmap, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * np.sqrt(heatmap))
            if row == 0:
                ax.set_title(_meaning(explanation.part_names[part]), fontsize=11)
            no_place = "" if heatmap.any() else ",\nno place for it"
            ax.set_xlabel(f"{_share(adds, explanation.cosine)}{no_place}")
            overlays.append(ax)
    bar = figure.colorbar(
        ScalarMappable(cmap=HEAT),
        ax=overlays,
        location="bottom",
        shrink=0.7,
        aspect=40,
        ticks=[],
        label="yellow: the places that add most to the likeness; orange: some;\n"
        "grey: nothing, or against it",
    )
    bar.outline.set_visible(False)
    _draw_parts(explanation, figure.add_subplot(grid[:, columns]))
    for ax in figure.axes[:-1]:
        ax.spines[:].set_visible(False)
    return figure


def _draw_parts(explanation: Explanation, ax: Axes) -> None:
    parts = explanation.parts
    labels = [_meaning(explanation.part_names[name]) for name in parts]
    colors = [QUIET if name == BIAS else ACCENT for name in parts]
    bars = ax.barh(labels, list(parts.values()), color=colors, height=0.5)
    shares = [_share(value, explanation.cosine) for value in parts.values()]
    ax.bar_label(bars, [each.replace(" (", "\n(") for each in shares], padding=4, fontsize=10)
    ax.invert_yaxis()
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.margins(x=0.45)  # room for the words beside the bars
    ax.set(xticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_title("share of each part,\nmean of both pictures", fontsize=11)


def _share(adds: float, cosine: float) -> str:
    """Return what a part adds: its share of the cosine, and the number."""
    share = f"{in_percent(adds / cosine)} " if cosine >= MIN_COSINE else ""
    return f"{share}({adds:+z.3f})"


def _meaning(name: str) -> str:
    return textwrap.fill(MEANINGS[name].replace(" (", "\n("), 22, replace_whitespace=False)


def _printable(name: str) -> str:
    """Return a file name in a few lines, with "?" for characters that matplotlib's font lacks."""
    known = name.encode("latin-1", "replace").decode("latin-1")
    known = "".join(sign if sign.isprintable() else "?" for sign in known)
    return "\n".join(textwrap.wrap(shortened(known, LINE_LENGTH * MOST_LINES), LINE_LENGTH))
