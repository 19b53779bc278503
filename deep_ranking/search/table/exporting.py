"""`export_table`: write a collection as a table, a block of rows at a time."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import atomic_path
from deep_ranking.files.array_types import Float32Array, Float64Array, FloatArray
from deep_ranking.files.html import paragraph
from deep_ranking.files.stored_rows import StoredRows
from deep_ranking.files.words import byte_size, counted
from deep_ranking.model.calibration import Calibration, probability_of_same
from deep_ranking.search.collection import Collection, GalleryImage
from deep_ranking.search.table.format import (
    CLASS,
    TableOrigin,
    check_table_name,
    table_schema,
)

BYTES_AT_ONCE = 1 << 24  # of the vectors of a block, which becomes a row group
MOST_AT_ONCE = 1 << 16
BY_FOLDERS = ("label", "splits", "by_content")
SHORTEST_MEAN = 1e-6  # of unit rows; a shorter mean has no direction

by_label = attrgetter("label")


@dataclass(frozen=True)
class ExportedTable:
    """What `export_table` wrote.

    Attributes:
        path: the table.
        num_rows: images in it.
        num_labelled: those that have a class.
        is_calibrated: whether the distances to the mean of a class have a probability.
        num_left_out: images whose name or class is no Unicode text, which Parquet cannot hold.
        num_bytes: size of the file.

    Example:
        >>> export_table("photos.index", "photos.parquet")
        photos.parquet: 12 images, 12 with a class, ... KiB. ...
    """

    path: Path
    num_rows: int
    num_labelled: int
    is_calibrated: bool
    num_left_out: int
    num_bytes: int

    def __repr__(self) -> str:
        line = (
            f"{self.path}: {counted(self.num_rows, 'image')}, {self.num_labelled:,} with a class, "
            f"{byte_size(self.num_bytes)}."
        )
        if self.num_labelled and not self.is_calibrated:
            line += " No probabilities: the model is not calibrated (`calibrate`)."
        if self.num_left_out:
            images = counted(self.num_left_out, "image")
            line += f" Left out: {images} with a name that is no Unicode text; rename them."
        return line

    def _repr_html_(self) -> str:
        return paragraph(repr(self))


def export_table(
    collection: Collection | str | os.PathLike[str], path: str | os.PathLike[str]
) -> ExportedTable:
    """Write the images of a collection as a Parquet table: path, class, vector and more.

    The rows are ordered by class, then as they were embedded. A smoothed collection gives its plain
    rows. The memory holds a block of rows, 16 MiB of vectors.

    Args:
        collection: an open collection, or its folder.
        path: file to write, ending in .parquet; an earlier one is replaced once the new one is
            complete.

    Returns:
        An `ExportedTable`.

    Example:
        >>> done = export_table(Collection.open("photos.index"), "photos.parquet")
        >>> done.num_rows
        12

    Raises:
        InputError: pyarrow is missing, the collection is damaged, or the file cannot be written.
    """
    path = Path(path)
    check_table_name(path)
    if not isinstance(collection, Collection):
        collection = Collection.open(collection)
    import pyarrow.parquet as pq

    settings = collection.settings
    origin = TableOrigin(
        settings.fingerprint,
        settings.dimension,
        settings.image_size,
        settings.root,
        {name: value for name, value in settings.folders.items() if name in BY_FOLDERS},
        settings.precision,
    )
    schema = table_schema(origin)
    num_rows = num_labelled = num_left_out = 0
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, use_dictionary=[CLASS], write_page_checksum=True
        ) as writer,
    ):
        for block, vectors, distances in _blocks(collection):
            kept = np.array([_is_text(each.path) and _is_text(each.label) for each in block])
            num_left_out += int((~kept).sum())
            if not kept.any():
                continue
            images = [image for image, keeps in zip(block, kept, strict=True) if keeps]
            chances = _probabilities(distances[kept], collection.calibration)
            batch = _batch(images, vectors[kept], distances[kept], chances, schema)
            writer.write_batch(batch, row_group_size=len(images))
            num_rows += len(images)
            num_labelled += sum(bool(image.label) for image in images)
    return ExportedTable(
        path,
        num_rows,
        num_labelled,
        collection.calibration is not None,
        num_left_out,
        path.stat().st_size,
    )


def _blocks(
    collection: Collection,
) -> Iterator[tuple[list[GalleryImage], Float32Array, Float64Array]]:
    """Yield the images, some thousands at a time, their rows, and the distances to class means.

    A distance is NaN where there is no mean. Two readers go through the images: one is a class
    ahead.
    """
    rows = collection.embeddings()
    count = max(1, min(MOST_AT_ONCE, BYTES_AT_ONCE // (4 * rows.shape[1])))
    with (
        closing(collection.images()) as table,
        table.snapshot(),
        closing(table.by_class()) as ahead,
        closing(table.by_class()) as images,
    ):
        means = _class_means(ahead, rows, count)
        label, mean = None, None
        while block := list(islice(images, count)):
            vectors = _vectors(block, rows)
            distances = np.full(len(block), np.nan)
            begin = 0
            for name, group in groupby(block, by_label):
                end = begin + sum(1 for _ in group)
                if name != label:
                    label, mean = next(means)
                if mean is not None:
                    distances[begin:end] = np.linalg.norm(vectors[begin:end] - mean, axis=1)
                begin = end
            yield block, vectors, distances


def _class_means(
    images: Iterator[GalleryImage], rows: StoredRows, count: int
) -> Iterator[tuple[str, Float64Array | None]]:
    """Yield each class in order, and the mean of its rows: float64 (dim,), of unit length.

    Images of the same content, which share a row, count once. The mean is None for images without a
    class, and for a class whose rows cancel each other.
    """
    for label, group in groupby(images, by_label):
        total: Float64Array = np.zeros(rows.shape[1])
        distinct = (next(same) for _, same in groupby(group, attrgetter("row")))
        while label and (block := list(islice(distinct, count))):
            total += _vectors(block, rows).sum(axis=0, dtype=np.float64)
        length = float(np.linalg.norm(total))
        yield label, total / length if length > SHORTEST_MEAN else None


def _vectors(images: list[GalleryImage], rows: StoredRows) -> Float32Array:
    found: FloatArray = rows[np.array([image.row for image in images])]
    return found.astype(np.float32)


def _batch(
    images: list[GalleryImage],
    vectors: Float32Array,
    distances: Float64Array,
    chances: list[float | None],
    schema: Any,
) -> Any:
    """Return some rows of the table, a `pyarrow.RecordBatch`."""
    import pyarrow as pa

    return pa.record_batch(
        [
            pa.array([image.path for image in images], pa.string()),
            pa.array([image.label or None for image in images], pa.string()),
            pa.array(distances, pa.float32(), from_pandas=True),  # NaN becomes null
            pa.array(chances, pa.float32()),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        ],
        schema=schema,
    )


def _probabilities(distances: Float64Array, calibration: Calibration | None) -> list[float | None]:
    return [
        None if np.isnan(each) else probability_of_same(each, calibration)
        for each in distances.tolist()
    ]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of a file name that are no UTF-8
        return False
    return True
