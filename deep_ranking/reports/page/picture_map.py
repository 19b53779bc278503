"""The report's map: images that the model finds alike lie together, as pieces of HTML.

The map is a grid. Names of classes take the cells that they cover, and each image gets a cell of
its own near its place, so nothing hides anything. The page's style sheet gives the map its size;
here, lengths are in cells.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from deep_ranking.files.array_types import BoolArray, Float64Array, FloatArray, UInt8Array
from deep_ranking.files.html import escaped
from deep_ranking.images.thumbnails import jpeg_uri

SHAPE = 13 / 22  # height of the map over its width
FEWEST_COLUMNS, MOST_COLUMNS = 8, 22
CELLS = 3  # for each image, unless that is more than the most
MOST_SEEN = 150  # images: the other cells are for names, and for gaps between groups
MOST_NAMED = 20  # classes
LONGEST_LINE = 18  # characters of a name
# Width and height of the largest with the font of the style sheet, in widths of the map.
CHARACTER, LINE = 0.0098, 0.0191
HIDING = 0.6  # what a name moves away to be over the places of one image less


class MapName(NamedTuple):
    """The name of a class on the map: its lines, and the block of cells that it takes."""

    lines: tuple[str, ...]
    corner: Float64Array
    size: Float64Array


class MapLayout(NamedTuple):
    """Where things lie on the map, in cells from its left and from its top.

    Attributes:
        corners: float64 (images, 2), the cell of each image: its upper left corner.
        names: names of the largest classes that have room.
        columns: cells across.
        rows: cells down.
    """

    corners: Float64Array
    names: list[MapName]
    columns: int
    rows: int


def lay_out(points: FloatArray, classes: Sequence[str]) -> MapLayout:
    """Return the layout of a map, in which images are near their points.

    Args:
        points: float array (images, 2), any unit; at most 150.
        classes: one an image.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # late: slow

    wanted = math.ceil(math.sqrt(CELLS * len(points) / SHAPE))
    columns = min(max(wanted, FEWEST_COLUMNS), MOST_COLUMNS)
    rows = round(columns * SHAPE)
    low, spread = points.min(axis=0), np.ptp(points, axis=0)
    shares = np.where(spread > 0, (points - low) / np.where(spread > 0, spread, 1), 0.5)
    places = shares * (columns - 1, rows - 1)  # of the corners
    free = np.ones((rows, columns), np.bool_)
    names = _place_names(places + 0.5, np.asarray(classes), free)
    cells = np.argwhere(free)[:, ::-1].astype(np.float64)
    # The cells for which all images together move least.
    moves = np.sum((places[:, np.newaxis] - cells) ** 2, axis=2)
    return MapLayout(cells[linear_sum_assignment(moves)[1]], names, columns, rows)


def map_html(
    layout: MapLayout, thumbnails: Sequence[UInt8Array], titles: Sequence[str], odd: BoolArray
) -> str:
    """Return the map as HTML.

    Args:
        layout: result of `lay_out`.
        thumbnails: uint8 (height, width, 3), RGB, one an image.
        titles: plain text to show when an image is pointed at, one an image.
        odd: bool (images,), images that are framed.
    """
    images = [
        f'<img{" class=odd" if is_odd else ""} src="{jpeg_uri(pixels)}" alt="" '
        f'title="{escaped(title)}" style="{_position(layout, corner)}">'
        for corner, pixels, title, is_odd in zip(
            layout.corners, thumbnails, titles, odd, strict=True
        )
    ]
    names = []
    for each in layout.names:
        lines = "<br>".join(map(escaped, each.lines))
        names.append(
            f'<span style="{_position(layout, each.corner + each.size / 2)}">{lines}</span>'
        )
    about = f"Map of {len(images):,} pictures, those alike near each other"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="The map">'
        f'<div class="map" role="img" aria-label="{about}" '
        f'style="--columns: {layout.columns}; --rows: {layout.rows}">'
        f"{''.join(images)}{''.join(names)}</div></div>"
    )


def _position(layout: MapLayout, place: Float64Array) -> str:
    left, top = 100 * place / (layout.columns, layout.rows)
    return f"left: {left:.2f}%; top: {top:.2f}%"


def _place_names(
    centers: Float64Array, classes: npt.NDArray[Any], free: BoolArray
) -> list[MapName]:
    """Place the names of the largest classes near their images, over few images and no name.

    Args:
        centers: float64 (images, 2), where the middles of the images would be.
        classes: (images,) of strings.
        free: bool (rows, columns), the cells; those of the names are taken. A cell is left for
            each image.
    """
    rows, columns = free.shape
    names, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    placed: list[MapName] = []
    for code in np.argsort(-sizes, kind="stable")[:MOST_NAMED]:
        lines = textwrap.wrap(str(names[code]).replace("/", " / "), LONGEST_LINE)
        widest = max(map(len, lines), default=0)
        width = math.ceil(columns * CHARACTER * (widest + 2))
        height = math.ceil(columns * LINE * len(lines) + 0.1)
        if (
            width > columns
            or height > rows
            or np.count_nonzero(free) - width * height < len(centers)
        ):
            continue
        blocks = sliding_window_view(free, (height, width)).all(axis=(2, 3))
        corners = np.argwhere(blocks)[:, ::-1].astype(np.float64)
        if not len(corners):
            continue
        size = np.array([width, height], np.float64)
        middles = corners + size / 2
        inside = np.abs(middles[:, np.newaxis] - centers) < size / 2 + 0.5
        moved = np.linalg.norm(middles - np.median(centers[codes == code], axis=0), axis=1)
        left, top = corner = corners[np.argmin(HIDING * inside.all(axis=2).sum(axis=1) + moved)]
        free[int(top) : int(top) + height, int(left) : int(left) + width] = False
        placed.append(MapName(tuple(lines), corner, size))
    return placed
