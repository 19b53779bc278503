"""The nearest images of other classes: what a model takes for alike, and is not."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.datasets import LabelledImages
from deep_ranking.files import InputError
from deep_ranking.files.array_types import FloatArray, Int32Array, Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.base import Index, read_rows
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.index.kinds import open_index

QUERIES_AT_ONCE = 256
# Beyond so many images, comparing each with all takes longer than making clusters of them.
MOST_COMPARED = 50_000
CLUSTER_RECALL, NUM_MEASURED = 0.95, 200


def nearest_of_other_classes(
    index: Index,
    embeddings: FloatArray,
    row_of: Int64Array,
    items: npt.NDArray[np.integer],
    count: int,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
    queries: Int64Array | None = None,
) -> Int32Array:
    """Find the nearest images of other classes of each image.

    Args:
        index: of the embeddings; one of clusters may miss some.
        embeddings: float (rows, dim), unit rows.
        row_of: int64 (images,), the row of each image; images of the same content share one.
        items: integers (images,), their classes.
        count: K.
        allowed: bool (images,), those that may be found; None for all.
        queries: int64 (queries,), the images to find them for; None for all.

    Returns:
        int32 (queries, K), the nearest first, -1 where there are fewer.
    """
    image_of = np.full(len(embeddings), -1)
    found_at = np.flatnonzero(np.ones(len(row_of), bool) if allowed is None else allowed)
    image_of[row_of[found_at[::-1]]] = found_at[::-1]  # the first image of each row
    if queries is None:
        queries = np.arange(len(row_of))
    nearest = np.full((len(queries), count), -1, np.int32)
    num_rows = len(index.rows())
    wanted = 2 * count
    for begin in progress_bar(
        range(0, len(queries), QUERIES_AT_ONCE), title="neighbours", unit="blocks"
    ):
        todo = np.arange(begin, min(begin + QUERIES_AT_ONCE, len(queries)))
        width = wanted
        while len(todo):  # those that have too many of their own class before others look further
            query = queries[todo]
            rows = index.search(read_rows(embeddings, row_of[query]), min(width, num_rows)).rows
            images = np.where(rows >= 0, image_of[rows], -1)
            good = (images >= 0) & (items[images] != items[query, None])
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


def neighbours_by_model(
    model: Any, data: LabelledImages, count: int, *, skip_broken: bool = False
) -> Int32Array:
    """Find the nearest images of other classes by a model, with which all are embedded.

    Up to 50,000 images, each is compared with all; of more, with those of so many clusters that
    95 % of the nearest of other classes are found for 200 of them.

    Args:
        model: a network of `build_network` or `load_model`.
        data: the images.
        count: how many of each.
        skip_broken: leave out a missing or broken image, rather than stop.

    Returns:
        int32 (images, count), as `nearest_of_other_classes`; only positives, where those are given.

    Raises:
        InputError: an image cannot be read.
    """
    from deep_ranking.embedding.embed import embedded_images

    with embedded_images(model, data.files(), skip_broken=skip_broken) as rows:
        whole = ~np.isnan(rows[:, 0])
        rows[~whole] = 0

        def find(index: Index, queries: Int64Array | None = None) -> Int32Array:
            return nearest_of_other_classes(
                index,
                rows,
                np.arange(len(rows)),
                data.items.codes,
                count,
                allowed=_allowed(data),
                queries=queries,
            )

        with _index_of(rows, np.flatnonzero(whole), find) as index:
            nearest = find(index)
    nearest[~whole] = -1
    return nearest


@contextmanager
def _index_of(
    embeddings: FloatArray, rows: Int64Array, find: Callable[[Index, Int64Array], Int32Array]
) -> Iterator[Index]:
    """Give an index of some rows; `find` gives the neighbours of some of them by an index."""
    exact = ExactIndex(embeddings, rows)
    if len(rows) <= MOST_COMPARED:
        yield exact
        return
    with tempfile.TemporaryDirectory() as folder:
        index = ClusterIndex(Path(folder) / "clusters.faiss")
        index.update(embeddings, rows, np.empty(0, np.int64))
        # Images of other classes lie farther away than the nearest of all, by which the probes of
        # an index are chosen elsewhere.
        queries = np.random.default_rng(0).choice(rows, min(NUM_MEASURED, len(rows)), replace=False)
        wanted = find(exact, queries)
        while index.probes < index.num_clusters:
            found = find(index, queries)
            if (found[:, :, None] == wanted[:, None]).any(axis=1).mean() >= CLUSTER_RECALL:
                break
            index.probes = min(2 * index.probes, index.num_clusters)
        yield index


def _allowed(data: LabelledImages) -> npt.NDArray[np.bool_]:
    """Images that may be negatives: all, or the positives where those are given."""
    if data.pairs is None:
        return np.ones(len(data), bool)
    allowed = np.zeros(len(data), bool)
    allowed[data.pairs[:, 1]] = True
    return allowed


def _indexed(folder: Path, data: LabelledImages) -> tuple[Index, FloatArray, Int64Array]:
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
    data: LabelledImages,
    count: int,
    *,
    model: Path | None = None,
    index: Path | None = None,
    skip_broken: bool = False,
) -> Int32Array:
    """Find the nearest images of other classes by a model, or by an index that has them.

    Args:
        data: the images.
        count: how many of each.
        model: model file, as for `neighbours_by_model`.
        index: folder of an index that `index` made, which holds all of the images.
        skip_broken: as for `neighbours_by_model`.

    Returns:
        int32 (images, count), as `nearest_of_other_classes`; only positives, where those are given.

    Raises:
        InputError: an image cannot be read, or is not in the index.
    """
    if index is not None:
        found = _indexed(index, data)
        return nearest_of_other_classes(*found, data.items.codes, count, allowed=_allowed(data))
    from deep_ranking.model.file import load_model

    assert model is not None  # the command checks it
    return neighbours_by_model(load_model(model), data, count, skip_broken=skip_broken)
