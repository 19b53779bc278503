"""Pictures made of images: rows of nearest images; and the places of images on a map."""

import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deep_ranking.files.array_types import UInt8Array
from deep_ranking.files.words import shortened
from deep_ranking.reports.plots.style import ACCENT, QUIET, WARN

HIT, MISS, QUERY = ACCENT, WARN, QUIET
LINE_HEIGHT = 0.16
LONGEST_LINE = 16  # characters
MOST_LINES = 4  # of one text; the middle of a longer one is cut out


class _NameWrapper(textwrap.TextWrapper):
    wordsep_re = re.compile(r"(\s+|(?<=[/_-])(?=\w))")


class Neighbours(NamedTuple):
    """A query and its nearest images.

    Attributes:
        caption: text below the query, such as its class.
        query: uint8 (height, width, 3), RGB.
        images: the nearest images, likewise, nearest first.
        hits: whether each of them is of the query's class; None if that is not known.
        distances: distance of each from the query.
        details: more about each, such as its class, a line of text each; or none.
        about_query: more text below the query.
    """

    caption: str
    query: UInt8Array
    images: Sequence[UInt8Array]
    hits: Sequence[bool] | None
    distances: Sequence[float]
    details: Sequence[Sequence[str]] = ()
    about_query: str = ""


def neighbours_figure(rows: Sequence[Neighbours]) -> Figure:
    """Draw queries with their nearest images, hits framed in green and misses in orange dashes.

    Where hits are not known, all frames are grey. Below each image is its distance, after a tick or
    a cross for readers and printers that cannot tell the colours apart.

    Args:
        rows: one or more queries; those with fewer images than others leave places empty.

    Returns:
        The figure, with one row a query.
    """
    columns = 1 + max(len(row.images) for row in rows)
    below = [_lines_below(row) for row in rows]  # of the query, then of each image
    num_lines = max(len(lines) for row in below for lines in row)
    height = 1.1 + LINE_HEIGHT * num_lines
    figure = Figure(figsize=(1.1 * columns, height * len(rows)), layout="constrained")
    ax = figure.subplots()  # separate axes for each image would take seconds
    for number, (row, lines_below) in enumerate(zip(rows, below, strict=True)):
        top = number * height
        frames = [QUERY] * len(row.images)
        if row.hits is not None:
            frames = [HIT if hit else MISS for hit in row.hits]
        images = zip([row.query, *row.images], [QUERY, *frames], lines_below, strict=True)
        for column, (image, color, lines) in enumerate(images):
            _draw_framed(ax, image, column, top, color)
            for line, text in enumerate(lines):
                size = 8 if column and not line else 6  # the distance
                where = column + 0.5, top + 1.04 + LINE_HEIGHT * line
                ax.text(*where, text, fontsize=size, ha="center", va="top", parse_math=False)
    downwards = len(rows) * height, 0
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


def _lines_below(row: Neighbours) -> list[list[str]]:
    """Return the lines below the query, and below each image: its distance, then its details."""
    marks = [""] * len(row.images)
    if row.hits is not None:
        marks = ["✓ " if hit else "✗ " for hit in row.hits]
    details = row.details or [[]] * len(row.images)
    return [
        [*_wrapped(row.caption), *_wrapped(row.about_query)],
        *(
            [f"{mark}{distance:.3f}", *(line for text in texts for line in _wrapped(text))]
            for mark, distance, texts in zip(marks, row.distances, details, strict=True)
        ),
    ]


def _wrapped(text: str) -> list[str]:
    """Return a text in lines, broken at spaces and after marks in names if possible."""
    return _NameWrapper(LONGEST_LINE).wrap(shortened(text, LONGEST_LINE * MOST_LINES))


def _draw_framed(ax: Axes, image: UInt8Array, column: int, top: float, color: str) -> None:
    """Draw a framed image, 0.9 wide and high, in the middle of a cell of side 1."""
    ax.imshow(image, extent=(column + 0.05, column + 0.95, top + 0.95, top + 0.05))
    style = "--" if color == MISS else "-"
    frame = Rectangle((column + 0.05, top + 0.05), 0.9, 0.9, fill=False, lw=3, ec=color, ls=style)
    ax.add_patch(frame)
