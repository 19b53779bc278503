"""A collection taken over to a new model: its rows are given, and no image is read.

The rows come from a model that shares its frozen layers with the old one, so that cached features
and its head are enough to compute them. The new collection is one like any other: `index` brings it
up to date, and `search` and `serve` open it.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.words import counted
from deep_ranking.model.header import read_header
from deep_ranking.search.collection import Collection, locked
from deep_ranking.search.index.kinds import MILVUS
from deep_ranking.search.indexing import update_index
from deep_ranking.search.out_of_date import out_of_date
from deep_ranking.search.smoothed_collection import update_smoothing

ROWS_AT_ONCE = 4096
PRECISION = "float32"  # what a head computes in, whatever the rows before were computed in
PROBLEM = "its file was gone or had changed when a new model took the collection over"


@dataclass(frozen=True)
class RowFiles:
    """A file for each row of a collection that still holds what was embedded.

    Attributes:
        rows: int64 (rows,), rising.
        files: a file of each.
        num_left_out: rows in use without such a file: gone, or changed since.
    """

    rows: Int64Array
    files: list[Path]
    num_left_out: int


def files_of_rows(collection: Collection) -> RowFiles:
    """Find a file for each row in use; several files of one content share a row.

    Args:
        collection: an open one.

    Example:
        >>> found = files_of_rows(Collection.open("photos.index"))
        >>> len(found.files), found.num_left_out
        (11, 0)

    Raises:
        InputError: the collection is damaged.
    """
    with closing(collection.images()) as table:
        images = list(table.images())
    problems = out_of_date(collection, [image.path for image in images])
    root = Path(collection.settings.root)
    found: dict[int, Path] = {}
    for image in images:
        if image.path not in problems:
            found.setdefault(image.row, root / image.path)
    rows = sorted(found)
    in_use = {image.row for image in images}
    return RowFiles(
        np.array(rows, np.int64), [found[row] for row in rows], len(in_use) - len(found)
    )


@dataclass(frozen=True)
class ReembeddingReport:
    """What taking a collection over to a new model did.

    Attributes:
        collection: the new collection, ready to search.
        num_images: images that can be found in it.
        num_left_out: images of the old one that cannot, because their row was not given.
    """

    collection: Collection
    num_images: int
    num_left_out: int

    def __repr__(self) -> str:
        images = counted(self.num_images, "image")
        left_out = ""
        if self.num_left_out:
            left_out = (
                f"; {self.num_left_out:,} left out, as their files are gone or have changed: run "
                f"`index --output {self.collection.folder}`"
            )
        return f"{self.collection.folder}: {images} by the new model{left_out}."


def reembed_collection(
    source: Collection,
    output: Path,
    model: Path,
    *,
    rows: Int64Array,
    embeddings: Float32Array,
) -> ReembeddingReport:
    """Make a collection of the same images by another model, from embeddings that are given.

    Classes, root, dtype, kind of index and smoothing are those of the source; clusters are made
    anew, and probes and p(hit) are learned anew. The precision becomes float32, in which the rows
    were computed and queries will be. The source is not changed.

    Args:
        source: the collection.
        output: folder of the new one; empty or missing.
        model: the new model's file.
        rows: int64 (rows,), rows of the source, as of `files_of_rows`.
        embeddings: float32 (rows, dim), the embedding of each by the new model, unit rows; NaN for
            one that is not known.

    Example:
        >>> old = Collection.open("photos.index")
        >>> rows = files_of_rows(old).rows
        >>> same = np.asarray(old.embeddings()[rows])
        >>> reembed_collection(old, Path("new"), old.model, rows=rows, embeddings=same)
        new: 12 images by the new model.

    Raises:
        InputError: the source's index is in Milvus, the embeddings are not of the model's length,
            none is known, or the disk is full.
    """
    check_reembedding(source)
    header = read_header(model)
    expected = (len(rows), header.network.embedding_size)
    if embeddings.shape != expected:
        raise InputError(
            f"{model}: expected embeddings of shape {expected}, one for each row of "
            f"{source.folder}. Received: {embeddings.shape}"
        )
    is_known = np.isfinite(embeddings).all(axis=1)
    if not is_known.any():
        raise InputError(f"{source.folder}: no embedding of its images is known")
    settings = replace(
        source.settings,
        fingerprint=header.fingerprint,
        dimension=header.network.embedding_size,
        image_size=header.network.image_size,
        precision=PRECISION,
        index={"kind": "exact"},
        hits=None,
        hits_of="",
        hits_sizes=[],
        hits_behind=0,
        smoothing=None,
    )
    with locked(output):
        made = Collection.make(output, settings, model, is_complete=False)
        made.store.check_space(int(is_known.sum()), "free some, or remove earlier models")
        made.store.extend(_blocks(source, rows[is_known], embeddings[is_known]))
        num_left_out = _take_images(source, made)
        made.change()
        index, _ = update_index(made, **_index_options(source))
        smoothing = source.settings.smoothing
        if smoothing is not None:
            update_smoothing(
                made, index, smooth=smoothing["neighbours"], power=float(smoothing["power"])
            )
    with closing(made.images()) as table:
        return ReembeddingReport(made, len(table), num_left_out)


def check_reembedding(collection: Collection) -> None:
    """Refuse a collection that cannot be taken over to another model.

    Raises:
        InputError: its index is in Milvus.
    """
    if collection.settings.index["kind"] == MILVUS:
        raise InputError(
            f"{collection.folder}: its index is in Milvus, which holds the rows of one model; "
            "teaching needs one of its own: run `index` with --index exact, clusters or hierarchy, "
            "and another --output"
        )


def _blocks(
    source: Collection, rows: Int64Array, embeddings: Float32Array
) -> Iterator[tuple[list[bytes], Float32Array]]:
    keys = source.store.keys()
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        yield [keys[row] for row in rows[part].tolist()], embeddings[part]


def _take_images(source: Collection, made: Collection) -> int:
    """Record the images of the source with their new rows; return how many have none now."""
    known = made.store.find()
    with closing(source.images()) as old, closing(made.images(writable=True)) as new:
        with old.snapshot(), new.change():
            count, found = len(old), [content for _, content in old.of_content(b"")]
            new.clear()
            new.add_from(old)
            for content in set(found):
                if content in known:
                    new.set_row(content, known[content])
                else:
                    new.set_problem(content, PROBLEM)
        return count - len(new)


def _index_options(source: Collection) -> dict[str, Any]:
    """Return how `update_index` makes an index as the source's; clusters and probes are its own."""
    index = source.settings.index
    wanted = {name: index[name] for name in ("kind", "clusters") if name in index}
    if "target_recall" in index:
        return {"wanted": wanted, "target_recall": index["target_recall"]}
    return {"wanted": wanted, "probes": index.get("probes")}
