"""Pictures made of images: rows of nearest images, and a map of embeddings."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deep_ranking.files.array_types import Float64Array, FloatArray, UInt8Array
from deep_ranking.files.words import shortened
from deep_ranking.reports.plots.metrics import new_axes
from deep_ranking.search.planar_map import map_points

HIT, MISS, QUERY = "#2e7d32", "#c62828", "#888888"
ROW_HEIGHT, LINE_HEIGHT = 1.4, 0.16
LONGEST_CAPTION = 18  # characters, with room on both sides
LONGEST_LINE = 16  # beside others
THUMBNAIL_SHARE = 0.045
MOST_NAMED_CLASSES = 20
NAME_SIZE = np.array([3.0, 0.7])  # width and height of a class's name on the map, in thumbnails


class Neighbours(NamedTuple):
    """A query and its nearest images.

    Attributes:
        caption: text above the query, such as its class.
        query: uint8 (height, width, 3), RGB.
        images: the nearest images, likewise, nearest first.
        hits: whether each of them is of the query's class; None if that is not known.
        distances: distance of each from the query.
        details: more about each, such as its class, a line of text each; or none.
        about_query: a line of text below the query.
    """

    caption: str
    query: UInt8Array
    images: Sequence[UInt8Array]
    hits: Sequence[bool] | None
    distances: Sequence[float]
    details: Sequence[Sequence[str]] = ()
    about_query: str = ""


def neighbours_figure(rows: Sequence[Neighbours]) -> Figure:
    """Draw queries with their nearest images, hits framed green and misses red, or all in grey.

    Below each image is its distance, after a tick or a cross for readers and printers that cannot
    tell the colours apart.

    Args:
        rows: one or more queries; those with fewer images than others leave places empty.

    Returns:
        The figure, with one row a query.
    """
    columns = 1 + max(len(row.images) for row in rows)
    num_lines = max(len(lines) for row in rows for lines in ((), *row.details))
    height = ROW_HEIGHT + LINE_HEIGHT * max(num_lines, *(bool(row.about_query) for row in rows))
    figure = Figure(figsize=(1.1 * columns, height * len(rows)), layout="constrained")
    ax = figure.subplots()  # separate axes for each image would take seconds
    for number, row in enumerate(rows):
        top = number * height
        _draw_framed(ax, row.query, 0, top, QUERY)
        caption = shortened(row.caption, LONGEST_CAPTION)
        ax.text(0.5, top - 0.04, caption, fontsize=7, ha="center", va="bottom", parse_math=False)
        _write(ax, 0, top + 1.04, row.about_query)
        marks = [("", QUERY)] * len(row.images)
        if row.hits is not None:
            marks = [("✓ ", HIT) if hit else ("✗ ", MISS) for hit in row.hits]
        shown = zip(row.images, marks, row.distances, strict=True)
        for column, (image, (mark, color), distance) in enumerate(shown, start=1):
            _draw_framed(ax, image, column, top, color)
            words = f"{mark}{distance:.3f}"
            ax.text(column + 0.5, top + 1.04, words, fontsize=8, ha="center", va="top")
            lines = row.details[column - 1] if row.details else ()
            for line, text in enumerate(lines, start=1):
                _write(ax, column, top + 1.04 + LINE_HEIGHT * line, text)
    downwards = len(rows) * height - 0.08, -0.2
    ax.set(xlim=(0, columns), ylim=downwards, aspect="equal")
    ax.set_axis_off()
    return figure


def missing_image(size: int) -> UInt8Array:
    """Return the picture of an image that is gone or cannot be read: a cross on grey.

    Args:
        size: side of the square in pixels.

    Returns:
        uint8 (size, size, 3), RGB.
    """
    pixels = np.full((size, size, 3), 225, np.uint8)
    steps = np.arange(size)
    for thickness in (0, 1):
        pixels[steps, np.minimum(steps + thickness, size - 1)] = 140
        pixels[steps, np.maximum(size - 1 - steps - thickness, 0)] = 140
    return pixels


def embedding_map(
    embeddings: FloatArray,
    thumbnails: Sequence[UInt8Array],
    classes: Sequence[str],
    *,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw a map that puts images with similar embeddings near each other.

    Every image is a dot in the colour of its class, below its thumbnail where there is room. Up to
    20 classes have their name in the middle of their dots. Only nearness has a meaning: large
    distances and the axes have none.

    Args:
        embeddings: float array (images, dim), finite; more than about 500 images hide each other.
        thumbnails: uint8 (height, width, 3), RGB, one an image.
        classes: one an image.
        seed: seed of the map.
        ax: axes to draw on.

    Returns:
        The axes.
    """
    ax = ax or new_axes(width=9, height=9)
    points = map_points(embeddings, seed=seed)
    names, codes = np.unique(np.asarray(classes), return_inverse=True)
    # The first two colormaps have a colour a class: numbers choose among them, without blending.
    colormap = "tab10" if len(names) <= 10 else "tab20" if len(names) <= 20 else "gist_rainbow"
    values = np.arange(len(names)) if len(names) <= 20 else np.linspace(0, 1, len(names))
    colors = matplotlib.colormaps[colormap](values)
    low, high = points.min(axis=0), points.max(axis=0)
    side = THUMBNAIL_SHARE * (float((high - low).max()) or 1.0)
    ax.scatter(points[:, 0], points[:, 1], s=12, c=colors[codes], zorder=1)
    shown: list[int] = []
    for row, (x, y) in enumerate(points):
        if shown and (np.abs(points[shown] - (x, y)).max(axis=1) < side).any():
            continue
        shown.append(row)
        left, bottom = x - side / 2, y - side / 2
        extent = (left, left + side, bottom, bottom + side)
        ax.imshow(thumbnails[row], extent=extent, zorder=2)
        frame = Rectangle((left, bottom), side, side, fill=False, lw=2, ec=colors[codes[row]])
        ax.add_patch(frame).set_zorder(3)
    if len(names) <= MOST_NAMED_CLASSES:
        middles = np.stack([np.median(points[codes == code], axis=0) for code in range(len(names))])
        for code, (x, y) in enumerate(_without_overlap(middles, side * NAME_SIZE)):
            box = {"facecolor": "white", "edgecolor": colors[code], "alpha": 0.8, "pad": 2}
            name = shortened(str(names[code]))
            ax.text(x, y, name, bbox=box, ha="center", zorder=4, parse_math=False)
    (left, bottom), (right, top) = low - side, high + side
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    return ax


def _without_overlap(centers: Float64Array, size: FloatArray) -> Float64Array:
    """Move each box down until it overlaps none before it; all are of one size."""
    placed = np.empty_like(centers)
    for number, center in enumerate(centers):
        placed[number] = center
        while (np.abs(placed[:number] - placed[number]) < size).all(axis=1).any():
            placed[number, 1] -= size[1] / 2
    return placed


def _write(ax: Axes, column: int, height: float, text: str) -> None:
    """Write a line in the middle of a column, cut to its width; nothing if it is empty."""
    if words := shortened(text, LONGEST_LINE):
        ax.text(column + 0.5, height, words, fontsize=6, ha="center", va="top", parse_math=False)


def _draw_framed(ax: Axes, image: UInt8Array, column: int, top: float, color: str) -> None:
    """Draw a framed image, 0.9 wide and high, in the middle of a cell of side 1."""
    ax.imshow(image, extent=(column + 0.05, column + 0.95, top + 0.95, top + 0.05))
    ax.add_patch(Rectangle((column + 0.05, top + 0.05), 0.9, 0.9, fill=False, lw=3, ec=color))
