"""The picture of an `Explanation`: heatmaps over both images, and the share of each part."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from deep_ranking.reports.explain import Explanation

COLORMAP = "plasma"
MAX_NAME = 40


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
    widths = [1] * columns + [1.25]
    figure = Figure(figsize=(2.5 * sum(widths), 5.6), layout="constrained")
    figure.suptitle(
        f"distance {explanation.distance:.4f}, cosine {explanation.cosine:.4f}: "
        "where the similarity of the two images comes from"
    )
    grid = figure.add_gridspec(2, columns + 1, width_ratios=widths)
    overlays = []
    for row, (image, name) in enumerate(zip(explanation.images, names, strict=True)):
        ax = figure.add_subplot(grid[row, 0], xticks=[], yticks=[])
        ax.imshow(image)
        ax.set_xlabel(_printable(name), parse_math=False)
        for column, (part, heatmaps) in enumerate(explanation.heatmaps.items(), start=1):
            ax = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
            heatmap, adds = heatmaps[row], explanation.parts_of_image[part][row]
            ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
            # The square root keeps weak places visible without hiding the image below the strong.
            ax.imshow(heatmap, cmap=COLORMAP, vmin=0, vmax=1, alpha=0.7 * np.sqrt(heatmap))
            if row == 0:
                ax.set_title(explanation.part_names[part])
            ax.set_xlabel(f"adds {adds:+z.3f}" + ("" if heatmap.any() else ", no place for it"))
            overlays.append(ax)
    figure.colorbar(
        ScalarMappable(cmap=COLORMAP),
        ax=overlays,
        location="bottom",
        shrink=0.6,
        label="what a place adds to the similarity, as a share of the strongest\n"
        "place in the same heatmap; grey: nothing, or against it",
    )
    _draw_parts(explanation, figure.add_subplot(grid[:, columns]))
    return figure


def _draw_parts(explanation: Explanation, ax: Axes) -> None:
    parts = explanation.parts
    labels = [f"{explanation.part_names[name]}\n{value:+z.3f}" for name, value in parts.items()]
    ax.barh(labels, list(parts.values()), color="C0")
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.grid(axis="x", alpha=0.3)
    ax.set(title="share of each part", xlabel="adds to the cosine (mean of both)")


def _printable(name: str) -> str:
    """Return a short file name, with "?" for characters that matplotlib's font lacks."""
    known = name.encode("latin-1", "replace").decode("latin-1")
    known = "".join(sign if sign.isprintable() else "?" for sign in known)
    return known if len(known) <= MAX_NAME else "..." + known[3 - MAX_NAME :]
