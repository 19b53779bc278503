"""A map of embeddings: positions in the plane that put similar images near each other.

t-SNE (van der Maaten and Hinton 2008) of all images of a large collection would take hours, so only
some images, the landmarks, are laid out by it. Every other image is placed among the landmarks that
are nearest to it. The rows of these images are read in blocks, so memory is bounded by the number
of images and never by that of their numbers.

Only nearness has a meaning on such a map: large distances and the axes have none.
"""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from deep_ranking.files.array_types import Float32Array, Float64Array, FloatArray, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.search.index.base import read_blocks, read_rows

NUM_COMPONENTS = 50
PERPLEXITY = 30
NUM_LANDMARKS = 2000
NUM_NEAREST = 5  # landmarks that place an image
ROWS_AT_ONCE = 4096
TOGETHER = 0.05  # share of the map's side; landmarks farther apart on it have no mean
ROUNDING = 1e-6  # of squared distances of unit rows


def map_points(embeddings: FloatArray, *, seed: int = 0) -> Float64Array:
    """Return positions of embeddings in the plane: 50 principal components, then t-SNE.

    Args:
        embeddings: float array (images, dim), finite; 2,000 take about 10 seconds.
        seed: seed of the map.

    Returns:
        Float64 array (images, 2). All zeros if all embeddings are equal. Fewer than 5 images are
        too few for t-SNE: these get their principal components.

    Example:
        >>> map_points(np.eye(3)).shape
        (3, 2)
    """
    from sklearn.decomposition import PCA  # a second to import
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    points = np.asarray(embeddings, np.float64)
    num_images = len(points)
    if not np.ptp(points, axis=0).any():
        return np.zeros((num_images, 2))
    components = min(NUM_COMPONENTS, *points.shape)
    # One thread gives the same map on any number of cores, and is as fast on busy ones.
    with threadpool_limits(1):
        points = PCA(components, random_state=seed).fit_transform(points)
        if num_images < 5 or components < 2:
            return np.pad(points, ((0, 0), (0, 2)))[:, :2]
        perplexity = min(PERPLEXITY, (num_images - 1) / 3)
        layout = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return np.asarray(layout, np.float64)


def planar_map(
    embeddings: Rows,
    rows: Int64Array,
    classes: Int64Array,
    *,
    num_landmarks: int = NUM_LANDMARKS,
    seed: int = 0,
    placed: Callable[[int], Any] = lambda _: None,
) -> Float64Array:
    """Return positions of any number of images in the plane.

    Every image that is no landmark is moved by up to half the distance between neighbouring
    landmarks, in a direction that the seed draws: images of one content, and many between the same
    landmarks, would lie on each other.

    Args:
        embeddings: float (all rows, dim), unit rows, memory-mapped.
        rows: int64 (images,), the row of each image, in any order; images may share one.
        classes: int64 (images,), their classes, which get equally many landmarks, as far as each
            has so many images.
        num_landmarks: images that t-SNE lays out; with up to so many images, it does so with all.
        seed: seed of the map; the same seed and rows give the same map.
        placed: called with the number of images that have their place, as it grows.

    Returns:
        Float64 array (images, 2).

    Example:
        >>> planar_map(np.eye(4, dtype=np.float32), np.array([0, 1, 2, 2]), np.zeros(4, int)).shape
        (4, 2)

    Raises:
        InputError: the rows are damaged.
    """
    _, once = np.unique(rows, return_index=True)  # copies are no landmarks
    landmarks = once[balanced_choice(classes[once], num_landmarks, seed=seed)]
    by_row = landmarks[np.argsort(rows[landmarks], kind="stable")]
    known = read_rows(embeddings, rows[by_row])
    layout = map_points(known, seed=seed)
    positions = np.empty((len(rows), 2))
    positions[by_row] = layout
    placed(len(by_row))
    others = np.setdiff1d(np.arange(len(rows)), landmarks)
    others = others[np.argsort(rows[others], kind="stable")]
    if len(others):
        spread = _scatter(len(rows), seed)[others]
        place = _Placing(known, layout)
        begin = 0
        for part, block in read_blocks(embeddings, rows[others], ROWS_AT_ONCE):
            end = begin + len(part)
            positions[others[begin:end]] = place(block, spread[begin:end])
            begin = end
            placed(len(by_row) + begin)
    return positions


def balanced_choice(classes: Int64Array, count: int, *, seed: int) -> Int64Array:
    """Choose items at random, equally many of each class as far as each has so many.

    Args:
        classes: int64 (items,).
        count: items to choose.
        seed: of the choice.

    Returns:
        int64, the numbers of `count` items, or of all if there are fewer; rising.

    Example:
        >>> chosen = balanced_choice(np.array([0] * 96 + [1, 1, 2, 2]), 8, seed=0)
        >>> np.bincount(np.array([0] * 96 + [1, 1, 2, 2])[chosen]).tolist()
        [4, 2, 2]
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(classes))
    drawn = drawn[np.argsort(classes[drawn], kind="stable")]
    # The classes take turns: each item's turn is its place among those of its class.
    turn = np.arange(len(drawn)) - np.searchsorted(classes[drawn], classes[drawn])
    chosen = drawn[np.lexsort((rng.random(len(drawn)), turn))[:count]]
    return np.sort(chosen).astype(np.int64)


class _Placing:
    """Places images among landmarks.

    Args:
        known: float32 (landmarks, dim), their embeddings.
        layout: float64 (landmarks, 2), their positions.
    """

    def __init__(self, known: Float32Array, layout: Float64Array) -> None:
        self._index = faiss.IndexFlatL2(known.shape[1])
        self._index.add(known)
        self._layout = layout
        self._together = TOGETHER * float(np.ptp(layout, axis=0).max())
        self._spacing = _spacing(layout)

    def __call__(self, block: Float32Array, spread: Float64Array) -> Float64Array:
        """Return positions: float64 (images, 2)."""
        count = min(NUM_NEAREST + 1, len(self._layout))
        squared, nearest = self._index.search(block, count)
        squared = np.maximum(squared.astype(np.float64), 0) + ROUNDING
        # By inverse distance, so that an image that equals a landmark lies on it, less the weight
        # at the distance of the next landmark, so that it fades out before another takes its place.
        weights = 1 / squared - 1 / squared[:, -1:]
        weights[:, 0] += ROUNDING  # if all are equally far
        around = self._layout[nearest]  # (images, nearest, 2)
        # The mean of landmarks of two groups would lie between the groups, where nothing like it is
        apart = np.linalg.norm(around - around[:, :1], axis=2)
        weights[apart > self._together] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        middle = np.einsum("ik,ikc->ic", weights, around)
        return np.asarray(middle + spread * self._spacing[nearest[:, 0], None])


def _spacing(layout: Float64Array) -> Float64Array:
    """Return half the distance of each landmark to its next ones on the map: float64 (landmarks,).

    It is at most that of most landmarks, so that a landmark that lies alone keeps its images near.
    """
    points = np.ascontiguousarray(layout, np.float32)
    squared, _ = faiss.knn(points, points, min(3, len(points)))
    distances = np.sqrt(np.maximum(squared[:, -1].astype(np.float64), 0))
    usual = float(np.median(distances)) or 1.0
    return np.asarray(np.clip(distances, usual / 4, usual) / 2)


def _scatter(count: int, seed: int) -> Float64Array:
    """Return points that are drawn evenly from the disc of radius 1: float64 (count, 2)."""
    radius, angle = np.random.default_rng((seed, 1)).random((2, count))
    angle = 2 * np.pi * angle
    return np.asarray(np.sqrt(radius)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
