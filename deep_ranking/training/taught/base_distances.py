"""The distances that answers weigh: of the whole features, of their axes, of parts of the picture.

A rule by which people compare pictures may be about colour, about shapes, about what is where, or
about what a thing is. Each base distance is one such guess: the squared Euclidean distance of a few
columns, linear in the features. The learned distance is their sum with weights of 0 or more, which
is again the distance of one linear map, as the head of a network is.

Base distances come in families. All members of a family together start with the same chance to
count as the one member of another: a family of many is divided by the root of its size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils.extmath import randomized_svd

from deep_ranking.files.array_types import Float32Array, Float64Array, IntArray
from deep_ranking.model.layout import COLOURS, DIRECTIONS, GRID

MOST_AXES = 64  # principal axes of the ConvNet's features, each a base distance
LEAST_SPREAD = 1e-6  # of a column, as a share of the largest of its part: below, it is rounding
# Brightness, red against green, and yellow against blue, of red, green and blue.
OPPONENT = np.array([[0.299, 0.587, 0.114], [1, -1, 0], [0.5, 0.5, -1]])
NUM_COARSE = 10  # regions of a quarter of the image or more; the others are finer


class Columns(NamedTuple):
    """Linear columns of the features, and which base distance is of which of them.

    Attributes:
        kernel: float32 (features, columns).
        members: float64 (columns, distances), 0 where a column is no part of a distance.
        typical: float64 (distances,), each base distance as a mean over pairs of images.
    """

    kernel: Float32Array
    members: Float64Array
    typical: Float64Array

    def differences(self, rows: Float32Array, questions: IntArray) -> Float64Array:
        """Return by how much the other image is farther than the chosen one.

        Args:
            rows: float32 (images, features).
            questions: integer (questions, 3), rows: query, chosen, other.

        Returns:
            float64 (questions, distances), of squared distances.
        """
        query, chosen, other = (rows @ self.kernel)[questions.T].astype(np.float64)
        differences: Float64Array = ((query - other) ** 2 - (query - chosen) ** 2) @ self.members
        return differences

    def weighted(self, weights: Float64Array) -> Float32Array:
        """Return the kernel (features, used columns) whose squared distance is the weighted sum."""
        squares = self.members @ weights
        used = squares > 0
        kernel: Float32Array = (self.kernel[:, used] * np.sqrt(squares[used])).astype(np.float32)
        return kernel


@dataclass(frozen=True)
class _Family:
    """Columns of one part of the features, and base distances that are sums of them."""

    kernel: Float64Array  # (features, columns)
    groups: Sequence[Sequence[int]]


def base_distances(parts: Sequence[Float32Array], pairs: IntArray) -> Columns:
    """Return the base distances for images.

    Args:
        parts: features of each part, the layout's before the last: float32 (images, size).
        pairs: integer (pairs, 2), images that are compared: the mean of each base distance over
            them is 1 before its family is divided.
    """
    ends = np.cumsum([0, *(part.shape[1] for part in parts)])
    kernels, members, typical = [], [], []
    for number, part in enumerate(parts):
        for family in _families(part, number - len(parts)):
            columns = part @ family.kernel.astype(np.float32)
            apart = np.mean((columns[pairs[:, 0]] - columns[pairs[:, 1]]) ** 2.0, axis=0)
            member = np.zeros((len(apart), len(family.groups)))
            for place, group in enumerate(family.groups):
                member[group, place] = 1
            means = apart @ member
            kept = means > 0
            if kept.any():
                member = member[:, kept] / means[kept] / np.sqrt(kept.sum())
                whole = np.zeros((ends[-1], len(apart)), np.float32)
                whole[ends[number] : ends[number + 1]] = family.kernel
                kernels.append(whole)
                members.append(member)
                typical.append(apart @ member)
    joined = np.zeros((sum(map(len, members)), sum(each.shape[1] for each in members)))
    row = column = 0
    for each in members:
        joined[row : row + each.shape[0], column : column + each.shape[1]] = each
        row, column = row + each.shape[0], column + each.shape[1]
    return Columns(np.concatenate(kernels, axis=1), joined, np.concatenate(typical))


def _families(part: Float32Array, from_last: int) -> Iterator[_Family]:
    size = part.shape[1]
    if from_last != -2:
        yield _Family(np.eye(size), [range(size)])
    if from_last == -1:
        yield _principal_axes(part)
    if from_last == -2:
        cells = GRID * GRID
        colours: Float64Array = np.kron(np.eye(cells), OPPONENT.T)
        directions: Float64Array = np.eye(cells * DIRECTIONS)
        for begin, kernel, count in (
            (0, colours, COLOURS),
            (cells * COLOURS, directions, DIRECTIONS),
        ):
            yield from _of_regions(part, begin, kernel, count)


def _of_regions(
    part: Float32Array, begin: int, kernel: Float64Array, count: int
) -> Iterator[_Family]:
    """Yield families of a grid: all cells, coarse and fine regions, the single channels of each.

    Args:
        part: float32 (images, size), the layout's features.
        begin: where the features of the grid begin.
        kernel: float64 (cells * count, cells * count), to the channels of each cell.
        count: channels of a cell.
    """
    regions = _regions()
    means = kernel @ np.kron(regions.T, np.eye(count))  # (cells * count, regions * count)
    whole = np.zeros((part.shape[1], means.shape[1]))
    whole[begin : begin + len(means)] = means
    spread = (part @ whole).std(axis=0)
    used = spread > LEAST_SPREAD * max(float(spread.max(initial=0)), 1e-12)
    scaled = np.where(used, whole / np.where(used, spread, 1), 0)
    of_region = np.arange(means.shape[1]).reshape(len(regions), count)
    yield _Family(scaled, [of_region[-GRID * GRID :].ravel().tolist()])
    for some in (of_region[:NUM_COARSE], of_region[NUM_COARSE:]):
        yield _Family(scaled, some.tolist())
        yield _Family(scaled, some.reshape(-1, 1).tolist())


def _regions() -> Float64Array:
    """Return the share of each cell in each region, float64 (regions, cells).

    Coarse regions come first, and single cells last.
    """
    row, column = np.mgrid[:GRID, :GRID]
    half = GRID // 2
    halves = [row < half, row >= half, column < half, column >= half]
    bands = [abs(2 * each - GRID + 1) < half for each in (row, column)]
    middle = bands[0] & bands[1]
    # Less and less towards the border, as cameras meter light.
    centred = np.outer(*[np.minimum(np.arange(GRID), np.arange(GRID)[::-1]) * 2 + 1] * 2)
    weights: list[npt.NDArray[Any]] = [
        np.ones((GRID, GRID)), centred, middle, ~middle, *bands, *halves,
        *(one & another for one in halves[:2] for another in halves[2:]),
        *(row * GRID + column == number for number in range(GRID * GRID)),
    ]  # fmt: skip
    return np.stack([each.ravel() / each.sum() for each in weights])


def _principal_axes(part: Float32Array) -> _Family:
    """Return the axes of largest variance, each scaled to the same spread."""
    count = min(MOST_AXES, *part.shape)
    _, lengths, axes = randomized_svd(part - part.mean(axis=0), count, random_state=0)
    count = int((lengths > LEAST_SPREAD * max(lengths[0], 1e-12)).sum())
    kernel = axes[:count].T / lengths[:count]
    return _Family(kernel.astype(np.float64), [[number] for number in range(count)])
