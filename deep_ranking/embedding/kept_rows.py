"""Rows of images (embeddings, or hand-made features) that are kept between runs.

They are kept in `embeddings/` of the cache folder (`DEEP_RANKING_CACHE`), a `RowStore` for each way
to compute them, by the content of the images. So work that was cut goes on from there, and a moved
file is known. The stores take `MAX_BYTES` at most: the least recently used one goes first. They
only save time: where they cannot be read or written, all rows are computed.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deep_ranking.embedding.embed import BATCH_SIZE, embed_batches, engine_of
from deep_ranking.files import InputError, make_folder
from deep_ranking.files.array_types import Float32Array, IntArray
from deep_ranking.files.cache_folder import cache_folder
from deep_ranking.files.content_digest import content_digests
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.row_store import RowStore, temporary_rows
from deep_ranking.images import open_image
from deep_ranking.images.hand_made_features import BASELINES, baseline_features

if TYPE_CHECKING:
    import keras

    from deep_ranking.embedding.embedder import Embedder

FOLDER = "embeddings"
MAX_BYTES = 2 << 30
VERSION = 1
"""Of the pixels that a file is read as. Raise it when `images` reads some file differently."""

Compute = Callable[[Sequence[str]], Iterator[Float32Array]]


@contextmanager
def kept_embeddings(
    model: "keras.Model | Embedder", paths: Sequence[str]
) -> Iterator[Float32Array]:
    """Embed image files as `embedded_images`, but compute only rows that are not kept yet.

    Args:
        model: a network of `build_network` or `load_model`; or an `Embedder`.
        paths: image files.

    Yields:
        float32 (images, dim), memory-mapped; deleted when the block ends.

    Raises:
        InputError: an image is missing or broken.
    """
    # The size of a whole run also for the rest of it: the last bits of a row depend on it.
    engine = engine_of(model, max(1, min(BATCH_SIZE, len(paths))))

    def compute(missing: Sequence[str]) -> Iterator[Float32Array]:
        return (batch.rows for batch in embed_batches(engine, missing))

    with _kept_rows(paths, engine.key, engine.dimension, compute, "embedding") as rows:
        yield rows


@contextmanager
def kept_baseline_features(name: str, paths: Sequence[str]) -> Iterator[Float32Array]:
    """Compute hand-made features of image files, but only those that are not kept yet.

    Args:
        name: one of `BASELINES`.
        paths: image files.

    Yields:
        float32 (images, dim), memory-mapped; deleted when the block ends.

    Raises:
        InputError: an image is missing or broken.
    """

    def compute(missing: Sequence[str]) -> Iterator[Float32Array]:
        for begin in range(0, len(missing), BATCH_SIZE):
            yield baseline_features(name, missing[begin : begin + BATCH_SIZE])

    feature, size = BASELINES[name]
    width = len(feature(np.zeros((size, size, 3), np.uint8)))
    with _kept_rows(paths, f"hand-made, {name}, {size}", width, compute, name) as rows:
        yield rows


@contextmanager
def _kept_rows(
    paths: Sequence[str], key: str, width: int, compute: Compute, title: str
) -> Iterator[Float32Array]:
    """Yield a row for each path: one that is kept, or a computed one, which is kept at once."""
    contents = [
        each if isinstance(each, bytes) else None  # what is broken shows when it is computed
        for each in content_digests(paths, open_file=open_image)
    ]
    with temporary_rows(len(paths), width) as rows, ExitStack() as held:
        store = _open_store(hashlib.sha256(f"{VERSION} {key}".encode()).hexdigest()[:32], width)
        is_known = _read_known(store, contents, rows)
        if store is not None:
            try:
                held.enter_context(store.lock.acquire(timeout=0))
            except OSError:  # another process keeps the same rows, or it is read-only
                store = None
        missing = np.flatnonzero(~is_known)
        blocks = compute([paths[number] for number in missing.tolist()]) if len(missing) else ()
        with progress_bar(
            total=len(paths), initial=len(paths) - len(missing), title=title, unit="images"
        ) as bar:
            begin = 0
            for block in blocks:
                part = missing[begin : begin + len(block)]
                begin += len(block)
                rows[part] = block
                store = _keep(store, contents, part, block)
                bar.update(len(block))
        held.close()
        yield rows


def _open_store(key: str, width: int) -> RowStore | None:
    """Open the store of a way to compute rows, after making room for it; None if it cannot be."""
    folder = cache_folder()
    if folder is None:
        return None
    with suppress(InputError, OSError):
        _make_room(make_folder(folder / FOLDER), key)
        store = RowStore(folder / FOLDER / key, "rows", width, np.float32)
        os.utime(store.folder)  # the time of the last use
        return store
    return None


def _make_room(folder: Path, but: str) -> None:
    """Remove the least recently used stores until the others take `MAX_BYTES` at most."""
    stores = sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
    total = 0
    for each in stores:
        total += sum(file.stat().st_size for file in each.iterdir())
        if total > MAX_BYTES and each.name != but:
            shutil.rmtree(each, ignore_errors=True)


def _read_known(
    store: RowStore | None, contents: Sequence[bytes | None], rows: Float32Array
) -> IntArray:
    """Fill in the rows that are kept; return which: bool (images,)."""
    is_known = np.zeros(len(contents), bool)
    if store is None:
        return is_known
    try:
        found = store.find()
        numbers = np.array([found.get(each, -1) if each else -1 for each in contents], np.int64)
        kept = store.rows()
        for begin in range(0, len(numbers), BATCH_SIZE):
            part = begin + np.flatnonzero(numbers[begin : begin + BATCH_SIZE] >= 0)
            if len(part):
                rows[part] = kept[numbers[part]]
                is_known[part] = True
    except (InputError, OSError):  # damaged: begin it anew
        shutil.rmtree(store.folder, ignore_errors=True)
        with suppress(OSError):
            store.folder.mkdir()
        is_known[:] = False
    return is_known


def _keep(
    store: RowStore | None,
    contents: Sequence[bytes | None],
    part: IntArray,
    block: Float32Array,
) -> RowStore | None:
    """Append rows that were computed; return the store, or None if it cannot be written."""
    if store is None:
        return None
    named = [(contents[number], row) for number, row in zip(part, block, strict=True)]
    whole = {
        content: row for content, row in named if content is not None and np.isfinite(row).all()
    }
    try:
        if whole:
            store.extend([(list(whole), np.stack(list(whole.values())))])
    except (InputError, OSError):
        return None
    return store
