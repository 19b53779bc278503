"""Embed the images of a part, and write it as one Parquet file: what every engine calls.

A part is there whole or not at all. What it left out is in its own metadata, under
`deep_ranking_part`: a JSON object with `part`, its number, and `left_out`, lists of path, kind and
problem. So a part that is made again, after a worker was killed, counts nothing twice.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deep_ranking.embedding.embed import embed_batches
from deep_ranking.embedding.embedder import Embedder
from deep_ranking.files import InputError, atomic_path, without_path
from deep_ranking.files.addresses import UnreachableError
from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.files.content_digest import data_digest
from deep_ranking.images import read_image
from deep_ranking.search.bulk_embedding.listing import ImageList, ListedImage
from deep_ranking.search.bulk_embedding.record import Record
from deep_ranking.search.bulk_embedding.sources import (
    ChangedError,
    GoneError,
    Source,
)
from deep_ranking.search.table.format import CLASS, METADATA_KEY, table_schema

PART_KEY = b"deep_ranking_part"
BROKEN, GONE, CHANGED = "broken", "gone", "changed"
KINDS = (BROKEN, GONE, CHANGED)


class LeftOutImage(NamedTuple):
    """An image that is not in the table: its path, one of `KINDS`, and what is wrong with it."""

    path: str
    kind: str
    problem: str


class PartReport(NamedTuple):
    """What a part has: its number, its rows, and what it left out."""

    number: int
    num_rows: int
    left_out: tuple[LeftOutImage, ...]


@dataclass
class PartMaker:
    """Makes the parts of a table, one at a time; it can be pickled, for other processes.

    Attributes:
        folder: of the table, which holds the list of its images.
        record: what the table is made of.
        source: what the images are read from.
        embedder: what embeds them.
    """

    folder: Path
    record: Record
    source: Source
    embedder: Embedder

    def __getstate__(self) -> dict[str, Any]:
        names = self.__dataclass_fields__
        return {name: value for name, value in vars(self).items() if name in names}

    @cached_property
    def _list(self) -> ImageList:
        return ImageList(self.folder)

    def make(self, number: int, embedded: Callable[[int], object] | None = None) -> PartReport:
        """Embed a part and write it.

        Args:
            number: of the part, from 0.
            embedded: called with a number of images, as often as some more are embedded.

        Raises:
            InputError: the model or the list cannot be read, the store of the images does not
                answer, or the file cannot be written.
        """
        images = self._list.part(number)
        reading = _Reading(self.source, images)
        engine = self.embedder.engine(self.record.batch_size)
        rows = np.empty((len(images), engine.dimension), np.float32)
        begin = 0
        for batch in embed_batches(
            engine,
            range(len(images)),
            skip_broken=True,
            read_pixels=reading.pixels,
            num_readers=self.source.num_readers,
        ):
            if reading.failure is not None:
                raise reading.failure
            rows[begin : begin + len(batch.rows)] = batch.rows
            begin += len(batch.rows)
            if embedded is not None:
                embedded(len(batch.rows))
        return self._write(number, reading, rows)

    def report(self, number: int) -> PartReport | None:
        """Return what a part has that was made before; None if it is yet to be made.

        Raises:
            InputError: its file is damaged, or is no part of this table.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.record.part_path(self.folder, number)
        try:
            read = pq.read_metadata(path)
            found = json.loads(read.metadata[PART_KEY])
            left_out = tuple(LeftOutImage(*each) for each in found["left_out"])
            is_of_table = read.metadata[METADATA_KEY] == self.record.origin.to_json()
            if is_of_table and found["part"] == number:
                return PartReport(number, read.num_rows, left_out)
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, ValueError, TypeError, LookupError):
            pass
        raise InputError(
            f"{path}: damaged, or no part {number} of this table; remove it, and run the same "
            "command again to embed it anew"
        )

    def _write(self, number: int, reading: "_Reading", rows: Float32Array) -> PartReport:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kept = [place for place, digest in enumerate(reading.digests) if digest is not None]
        images = [reading.images[place] for place in kept]
        left_out = tuple(reading.left_out[place] for place in sorted(reading.left_out))
        schema = table_schema(self.record.origin, has_content=True)
        about = json.dumps({"part": number, "left_out": left_out}).encode()
        schema = schema.with_metadata({**schema.metadata, PART_KEY: about})
        unknown = pa.nulls(len(kept), pa.float32())
        table = pa.table(
            [
                pa.array([image.path for image in images], pa.string()),
                pa.array([image.label for image in images], pa.string()),
                unknown,
                unknown,
                pa.FixedSizeListArray.from_arrays(pa.array(rows[kept].ravel()), rows.shape[1]),
                pa.array([reading.digests[place] for place in kept], pa.string()),
            ],
            schema=schema,
        )
        with atomic_path(self.record.part_path(self.folder, number)) as temporary:
            pq.write_table(table, temporary, use_dictionary=[CLASS], write_page_checksum=True)
        return PartReport(number, len(kept), left_out)


@dataclass
class _Reading:
    """Reads the images of a part, on threads, and notes what cannot be read.

    Attributes:
        source: what they are read from.
        images: of the part.
        digests: SHA-256 of each image that could be read, in hexadecimal digits; else None.
        left_out: by the place of each image that cannot be embedded.
        failure: the error of a store that does not answer; it is none of an image.
    """

    source: Source
    images: list[ListedImage]
    digests: list[str | None] = field(init=False)
    left_out: dict[int, LeftOutImage] = field(default_factory=dict)
    failure: UnreachableError | None = None

    def __post_init__(self) -> None:
        self.digests = [None] * len(self.images)

    def pixels(self, place: int, size: int) -> UInt8Array:
        """Return the pixels of an image, by its place in the part.

        Raises:
            InputError: it cannot be embedded.
        """
        if self.failure is not None:
            raise self.failure
        image = self.images[place]
        try:
            data = self.source.read(image.path, image.stamp)
            pixels = read_image(data, size)
        except UnreachableError as error:
            self.failure = error
            raise
        except InputError as error:
            kinds: dict[type, str] = {GoneError: GONE, ChangedError: CHANGED}
            kind = kinds.get(type(error), BROKEN)
            problem = str(error)
            for what in (f"{self.source.root.rstrip('/')}/{image.path}", "the bytes of an image"):
                problem = without_path(InputError(problem), what)
            self.left_out[place] = LeftOutImage(image.path, kind, problem)
            raise
        self.digests[place] = data_digest(data).hex()
        return pixels
