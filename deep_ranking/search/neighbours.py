"""Find the nearest images of other classes: the hard negatives that a model confuses."""

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
from deep_ranking.files.array_types import Int32Array, Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.stored_rows import Rows
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.base import Index, read_rows
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.index.kinds import open_index

QUERIES_AT_ONCE = 256
# With more images, comparing each with all others takes longer than clustering them.
MOST_COMPARED = 50_000
CLUSTER_RECALL, NUM_MEASURED = 0.95, 200


def nearest_of_other_classes(
    index: Index,
    embeddings: Rows,
    row_of: Int64Array,
    items: npt.NDArray[np.integer],
    count: int,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
    queries: Int64Array | None = None,
) -> Int32Array:
    """Find the K nearest images of other classes for each image.

    Args:
        index: index of the embeddings; one with clusters may miss some.
        embeddings: float (rows, dim), unit rows.
        row_of: int64 (images,), the row of each image; images of the same content share one.
        items: integers (images,), their classes.
        count: K.
        allowed: bool (images,), images that may be found; None for all.
        queries: int64 (queries,), images to find neighbours for; None for all.

    Returns:
        int32 (queries, K), image numbers, the nearest first, -1 where there are fewer.
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
        while len(todo):  # search further for queries with too many neighbours of their own class
            query = queries[todo]
            rows = index.search(read_rows(embeddings, row_of[query]), min(width, num_rows)).rows
            images = np.where(rows >= 0, image_of[rows], -1)
            good = (images >= 0) & (items[images] != items[query, None])
            rank = np.cumsum(good, axis=1) - 1
            row, column = np.nonzero(good & (rank < count))
            nearest[todo[row], rank[row, column]] = images[row, column]
            short = (rank[:, -1] + 1 < count) if rank.shape[1] else np.ones(len(todo), bool)
            # If many queries must search further, start the next block with that width.
            if short.mean() > 0.25 and width < num_rows:
                wanted = min(2 * width, num_rows)
            todo = todo[short] if width < num_rows else todo[:0]
            width *= 2
    return nearest


def find_neighbours(
    data: LabelledImages, count: int, source: Any, *, skip_broken: bool = False
) -> Int32Array:
    """Find the nearest images of other classes, in an index or by embedding the images.

    Up to 50,000 embedded images are compared exactly. More are clustered, and each is compared with
    enough clusters to find 95 % of the neighbours of 200 sampled images.

    Args:
        data: the images.
        count: neighbours of each image.
        source: path of an index's folder, which must have all of the images; path of a model file;
            an `Embedder`; or a network of `build_network` or `load_model`.
        skip_broken: leave out missing and broken images instead of raising an error; not for an
            index.

    Returns:
        int32 (images, count), as from `nearest_of_other_classes`; only positives if the data lists
        those.

    Raises:
        InputError: an image cannot be read, or is not in the index.
    """
    items = data.items.codes
    allowed = None if data.pairs is None else np.isin(np.arange(len(data)), data.pairs[:, 1])
    if isinstance(source, Path) and source.is_dir():
        collection = Collection.open(source)
        row_of, embeddings = _rows_of(data, collection), collection.embeddings()
        index = open_index(collection)
        return nearest_of_other_classes(index, embeddings, row_of, items, count, allowed=allowed)
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.embedding.embedder import opened_embedder

    model = opened_embedder(source)
    with embedded_images(model, data.files(), skip_broken=skip_broken) as rows:
        whole = ~np.isnan(rows[:, 0])
        rows[~whole] = 0

        def find(index: Index, queries: Int64Array | None = None) -> Int32Array:
            row_of = np.arange(len(rows))
            return nearest_of_other_classes(
                index, rows, row_of, items, count, allowed=allowed, queries=queries
            )

        with _temporary_index(rows, np.flatnonzero(whole), find) as index:
            nearest = find(index)
    nearest[~whole] = -1
    return nearest


@contextmanager
def _temporary_index(
    embeddings: Rows, rows: Int64Array, find: Callable[[Index, Int64Array], Int32Array]
) -> Iterator[Index]:
    """Yield an index of some rows: exact, or one with which `find` finds nearly the same."""
    exact = ExactIndex(embeddings, rows)
    if len(rows) <= MOST_COMPARED:
        yield exact
        return
    with tempfile.TemporaryDirectory() as folder:
        index = ClusterIndex(Path(folder) / "clusters.faiss")
        index.update(embeddings, rows, np.empty(0, np.int64))
        # `fewest_probes` would count the nearest images of any class; those of other classes are
        # farther away, and need more probes.
        queries = np.random.default_rng(0).choice(rows, min(NUM_MEASURED, len(rows)), replace=False)
        wanted = find(exact, queries)
        while index.probes < index.num_clusters:
            found = find(index, queries)
            if (found[:, :, None] == wanted[:, None]).any(axis=1).mean() >= CLUSTER_RECALL:
                break
            index.probes = min(2 * index.probes, index.num_clusters)
        yield index


def _rows_of(data: LabelledImages, collection: Collection) -> Int64Array:
    """Return the row of each image in a collection: int64 (images,)."""
    root = collection.settings.root
    with closing(collection.images()) as images:
        rows = {os.path.join(root, each.path): each.row for each in images.images()}
    files = [os.path.abspath(file) for file in data.files()]
    row_of = np.array([rows.get(file, -1) for file in files])
    if (row_of < 0).any():
        missing = files[int(np.argmax(row_of < 0))]
        raise InputError(
            f"{collection.folder}: {(row_of < 0).sum():,} of {len(files):,} images are not in this "
            f"index, such as {missing}; index the folder that has them all, or use --model"
        )
    return row_of
