"""The nearest images of other classes: what a model takes for alike, and is not."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from deep_ranking.collection import Collection
from deep_ranking.errors import InputError
from deep_ranking.index.base import Index, Int64Array, Rows, read_rows
from deep_ranking.index.choice import open_index
from deep_ranking.index.exact import ExactIndex
from deep_ranking.listing import LabelledImages

Int32Array = npt.NDArray[np.int32]

QUERIES_AT_ONCE = 256


def nearest_of_other_classes(
    index: Index,
    embeddings: Rows,
    row_of: Int64Array,
    items: npt.NDArray[np.integer],
    count: int,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> Int32Array:
    """Find the nearest images of other classes of each image.

    Args:
        index: of the embeddings; one of clusters may miss some.
        embeddings: float (rows, dim), unit rows.
        row_of: int64 (images,), the row of each image; images of the same content share one.
        items: integers (images,), their classes.
        count: K.
        allowed: bool (images,), those that may be found; None for all.

    Returns:
        int32 (images, K), the nearest first, -1 where there are fewer.
    """
    image_of = np.full(len(embeddings), -1)
    found_at = np.flatnonzero(np.ones(len(row_of), bool) if allowed is None else allowed)
    image_of[row_of[found_at[::-1]]] = found_at[::-1]  # the first image of each row
    nearest = np.full((len(row_of), count), -1, np.int32)
    num_rows = len(index.rows())
    wanted = 2 * count
    for begin in tqdm(
        range(0, len(row_of), QUERIES_AT_ONCE), desc="neighbours", unit=" blocks", disable=None
    ):
        todo = np.arange(begin, min(begin + QUERIES_AT_ONCE, len(row_of)))
        width = wanted
        while len(todo):  # those that have too many of their own class before others look further
            rows = index.search(read_rows(embeddings, row_of[todo]), min(width, num_rows)).rows
            images = np.where(rows >= 0, image_of[rows], -1)
            good = (images >= 0) & (items[images] != items[todo, None])
            rank = np.cumsum(good, axis=1) - 1
            row, column = np.nonzero(good & (rank < count))
            nearest[todo[row], rank[row, column]] = images[row, column]
            short = (rank[:, -1] + 1 < count) if rank.shape[1] else np.ones(len(todo), bool)
            # Where many must look further, the next block looks so far at once.
            if short.mean() > 0.25 and width < num_rows:
                wanted = min(2 * width, num_rows)
            todo = todo[short] if width < num_rows else todo[:0]
            width *= 2
    return nearest


@contextmanager
def _embedded(model_path: Path, data: LabelledImages) -> Iterator[tuple[Index, Rows, Int64Array]]:
    from deep_ranking.embedding import embedded_images
    from deep_ranking.model_file import load_model

    with embedded_images(load_model(model_path), data.files()) as rows:
        numbers = np.arange(len(rows))
        yield ExactIndex(rows, numbers), rows, numbers


def _indexed(folder: Path, data: LabelledImages) -> tuple[Index, Rows, Int64Array]:
    collection = Collection.open(folder)
    root = collection.settings.root
    with closing(collection.images()) as images:
        rows = {os.path.join(root, each.path): each.row for each in images.images()}
    files = [os.path.abspath(file) for file in data.files()]
    row_of = np.array([rows.get(file, -1) for file in files])
    if (row_of < 0).any():
        missing = files[int(np.argmax(row_of < 0))]
        raise InputError(
            f"{folder}: {(row_of < 0).sum():,} of {len(files):,} images are not in this index, "
            f"such as {missing}; index the folder that holds them all, or use --model"
        )
    return open_index(collection), collection.embeddings(), row_of


def find_neighbours(
    data: LabelledImages, count: int, *, model: Path | None = None, index: Path | None = None
) -> Int32Array:
    """Find the nearest images of other classes by a model, or by an index that has them.

    Args:
        data: the images.
        count: how many of each.
        model: model file, with which the images are embedded and compared, each with all.
        index: folder of an index that `index` made, which holds all of the images.

    Returns:
        int32 (images, count), as `nearest_of_other_classes`; only positives, where those are given.

    Raises:
        InputError: an image cannot be read, or is not in the index.
    """
    allowed = None
    if data.pairs is not None:
        allowed = np.zeros(len(data), bool)
        allowed[data.pairs[:, 1]] = True
    if index is not None:
        found = _indexed(index, data)
        return nearest_of_other_classes(*found, data.items.codes, count, allowed=allowed)
    assert model is not None  # the command checks it
    with _embedded(model, data) as embedded:
        return nearest_of_other_classes(*embedded, data.items.codes, count, allowed=allowed)
