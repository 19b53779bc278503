"""The index in Milvus: a URL means a server or cluster, a path means Milvus Lite in this process.

The Milvus collection has the fields of `milvus_schema`; the primary key is the row in the
collection's matrix. Its property `deep_ranking.model` is the fingerprint of the model. Its name is
random, drawn once and stored in the folder's file milvus.name. So a folder that is moved, or
searched from another machine, finds it, and a new folder does not find stale rows. `milvus_retry`
repeats requests that fail; `milvus_filling` fills it.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.files import InputError, read_text_file
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.stored_rows import Rows
from deep_ranking.search.index.base import (
    Changes,
    Index,
    Nearest,
    RowsWithin,
    batches,
    distances_from_squared,
    read_rows,
)
from deep_ranking.search.index.kinds import HNSW
from deep_ranking.search.index.milvus_filling import MilvusFilling
from deep_ranking.search.index.milvus_labels import LabelState, expression_of
from deep_ranking.search.index.milvus_retry import REPLY_SECONDS, MilvusConnection
from deep_ranking.search.index.milvus_schema import (
    BATCH_BYTES,
    CLASSES,
    EMBEDDING,
    FOLDERS,
    LAYOUT,
    LAYOUT_PROPERTY,
    MODEL_PROPERTY,
    NAME_FILE,
    PROBES,
    ROW,
    ROWS_AT_ONCE,
    partition_of,
    search_parameters,
)

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.subset import Subset

MOST_RESULTS = 16_384  # Milvus's limit for one query or filter
RESULTS_AT_ONCE = 1 << 18  # for all queries in a message
FIRST_LIMIT = 64  # results of a first search within a radius
PARTS = 16  # that a range of rows is divided into, to find which are there
LOSSY = ("IVF_PQ", "IVF_SQ8", "SCANN")
MORE_OF_LOSSY = 4  # times as many results, which are measured by the embeddings


class MilvusIndex(Index):
    """An index in a Milvus collection; `probes` is HNSW's `ef`, or the server's equivalent.

    Args:
        collection: its index settings have the `uri`, and may have the Milvus collection's `name`,
            the `type` of its index and the `probes`.
        retry_seconds: how long to retry when the server does not answer; None: as the collection
            says.

    Attributes:
        type: of the index that it is to have; None to leave it as it is.
        uri: address of the server, or path of the file.
        connection: to it.
        name: of the Milvus collection; "" before there is one.
        partitions: those that it has; None for a collection of an earlier version, which has one,
            and neither classes nor folders.
        rows_at_once: rows whose presence is asked for, and that are filled before a flush.

    Raises:
        InputError: pymilvus is missing, the server does not answer or refuses the token, or the
            Milvus collection belongs to another model.
    """

    kind = "milvus"
    rows_at_once = ROWS_AT_ONCE

    def __init__(self, collection: "Collection", *, retry_seconds: float | None = None) -> None:
        settings = collection.settings
        self.type: str | None = settings.index.get("type")
        self.probes = settings.index.get("probes", PROBES.get(self.type or HNSW, PROBES[HNSW]))
        self._collection = collection
        self.uri: str = settings.index["uri"]
        if retry_seconds is None:
            retry_seconds = collection.retry_seconds
        self.connection = MilvusConnection(self.uri, retry_seconds=retry_seconds)
        self._index_type = HNSW.upper()
        self.partitions: set[str] | None = None  # None: of an earlier version, without labels
        self._is_current = False  # whether a read has seen everything that was written
        self.name = settings.index.get("name") or self._stored_name()
        self._is_ready = False
        self.open()

    @property
    def has_labels(self) -> bool:
        """Whether the Milvus collection has classes and folders."""
        return self.partitions is not None

    def count(self) -> int:
        """Return the number of rows in the Milvus collection."""
        self._is_current = False
        found = self._read("query", output_fields=["count(*)"]) if self._is_ready else []
        return int(found[0]["count(*)"]) if found else 0

    def labels_between(self, begin: int, end: int) -> dict[int, dict[str, list[str]]]:
        """Return the classes and folders of the rows from `begin` to `end`, of one partition."""
        found = self._read(
            "query",
            filter=f"{ROW} >= {begin} and {ROW} < {end}",
            output_fields=[ROW, CLASSES, FOLDERS],
            limit=MOST_RESULTS,
            partition_names=[partition_of(begin)],
        )
        return {
            each[ROW]: {name: list(each[name]) for name in (CLASSES, FOLDERS)} for each in found
        }

    def rows(self) -> Int64Array:
        """Return the rows in the Milvus collection."""
        end = len(self._collection.embeddings())
        begins = range(0, end, self.rows_at_once)
        parts = [self.rows_between(each, min(end, each + self.rows_at_once)) for each in begins]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def rows_between(self, begin: int, end: int) -> Int64Array:
        """Return the rows from `begin` to `end`, of one partition, that are there.

        Where all or none are, which it counts first, their numbers are not sent.
        """
        if not self._is_ready:
            return np.empty(0, np.int64)
        self._is_current = False
        return np.concatenate([np.empty(0, np.int64), *self._rows_between(begin, end)])

    def _rows_between(self, begin: int, end: int) -> list[Int64Array]:
        where: dict[str, Any] = {"filter": f"{ROW} >= {begin} and {ROW} < {end}"}
        if self.partitions is not None:
            if (partition := partition_of(begin)) not in self.partitions:
                return []
            where["partition_names"] = [partition]
        count = self._read("query", output_fields=["count(*)"], **where)[0]["count(*)"]
        if not count:
            return []
        if count == end - begin:
            return [np.arange(begin, end)]
        if end - begin <= MOST_RESULTS:
            found = self._read("query", output_fields=[ROW], limit=MOST_RESULTS, **where)
            return [np.sort(np.fromiter((each[ROW] for each in found), np.int64))]
        step = -(-(end - begin) // PARTS)
        begins = range(begin, end, step)
        return [rows for each in begins for rows in self._rows_between(each, min(end, each + step))]

    def bring_up_to_date(self, collection: "Collection") -> Changes:
        """Add and remove rows, and bring classes and folders up to date, a million rows at a time.

        Nothing is asked of the server where nothing has changed since the last time.
        """
        return MilvusFilling(self, collection).bring_up_to_date()

    def update(self, embeddings: Rows, added: Int64Array, removed: Int64Array) -> None:
        """Add and remove rows in batches; Milvus stores each batch that it answers."""
        MilvusFilling(self, self._collection).update(embeddings, added, removed)

    def search_subset(
        self, queries: Float32Array, count: int, subset: "Subset", *, probes: int | None = None
    ) -> Nearest | None:
        """Let the server find the nearest rows of a class and a folder.

        Returns:
            The rows; None if the images have changed since its classes and folders were brought up
            to date, or these do not fit its fields.
        """
        state = LabelState.read(self._collection.folder)
        expression = expression_of(subset)
        if self.partitions is None or not state.fits or expression is None:
            return None
        if state.counter != self._collection.num_changes():
            return None
        return self._search(queries, count, probes, filter=expression)

    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Nearest:
        """Find the nearest rows.

        What an index finds that keeps codes of the vectors is measured by the collection's own
        embeddings, and four times as much is looked for.

        Raises:
            InputError: the server does not answer, or `count` and the rows exceed Milvus's limit.
        """
        if count > MOST_RESULTS:
            self._check_count(count)
        return self._search(queries, count, probes)

    def _search(
        self, queries: Float32Array, count: int, probes: int | None, **options: Any
    ) -> Nearest:
        is_lossy = self._index_type in LOSSY
        wanted = min(count, MOST_RESULTS)
        limit = min(MORE_OF_LOSSY * wanted, MOST_RESULTS) if is_lossy else wanted
        found = self._nearest(queries, limit, probes, options)
        return self._measured(queries, found, wanted) if is_lossy else found

    def _measured(self, queries: Float32Array, found: Nearest, count: int) -> Nearest:
        """Return the nearest of some rows by the collection's embeddings."""
        distances = np.full(found.rows.shape, np.inf, np.float32)
        embeddings = self._collection.embeddings()
        for number, rows in enumerate(found.rows):
            there = rows >= 0
            near = read_rows(embeddings, rows[there])
            distances[number, there] = np.linalg.norm(near - queries[number], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        return Nearest(
            np.take_along_axis(distances, order, 1), np.take_along_axis(found.rows, order, 1)
        )

    def _nearest(
        self, queries: Float32Array, limit: int, probes: int | None, options: dict[str, Any]
    ) -> Nearest:
        """Return what the server finds."""
        squared = np.full((len(queries), limit), np.inf, np.float32)
        rows = np.full((len(queries), limit), -1, np.int64)
        at_once = min(RESULTS_AT_ONCE // limit, BATCH_BYTES // (4 * queries.shape[1]))
        widest = 0
        if self._is_ready:
            for numbers in batches(np.arange(len(queries)), at_once):
                answers = self._read(
                    "search",
                    data=list(queries[numbers]),
                    limit=limit,
                    output_fields=[ROW],
                    search_params={
                        "metric_type": "L2",
                        "params": search_parameters(self._index_type, probes or self.probes, limit),
                    },
                    **options,
                )
                for number, hits in zip(numbers, answers, strict=True):
                    widest = max(widest, len(hits))
                    rows[number, : len(hits)] = hits.ids
                    squared[number, : len(hits)] = hits.distances  # Milvus' L2 is squared
        rows = rows[:, :widest]
        return Nearest(distances_from_squared(squared[:, :widest], rows), rows)

    def cost(self, queries: Float32Array, *, probes: int | None = None) -> None:
        """Return None: Milvus does not tell."""

    def within(self, queries: Float32Array, radius: float) -> RowsWithin:
        """Find all rows nearer than `radius`: search for more until the farthest is beyond it.

        Raises:
            InputError: the server does not answer, or a query has more such rows than Milvus's
                limit.
        """
        distances = [np.empty(0, np.float32)] * len(queries)
        rows = [np.empty(0, np.int64)] * len(queries)
        pending, limit = np.arange(len(queries)), FIRST_LIMIT
        while len(pending):
            unfinished = []
            for numbers in batches(pending, RESULTS_AT_ONCE // limit):
                found = self.search(queries[numbers], limit)
                near = found.distances < radius
                for number, is_near, *values in zip(numbers, near, *found[:2], strict=True):
                    distances[number], rows[number] = (each[is_near] for each in values)
                    if np.count_nonzero(is_near) == limit:
                        unfinished.append(number)
            if unfinished and limit == MOST_RESULTS:
                raise InputError(
                    f"{self.uri}: {MOST_RESULTS:,} or more images are nearer than {radius:g} to "
                    "one image, and Milvus returns no more; choose a smaller distance, or another "
                    "--index"
                )
            pending, limit = np.array(unfinished, np.int64), min(4 * limit, MOST_RESULTS)
        return RowsWithin(
            np.cumsum([0, *map(len, rows)]).astype(np.int64),
            np.concatenate([np.empty(0, np.float32), *distances]),
            np.concatenate([np.empty(0, np.int64), *rows]),
        )

    def _stored_name(self) -> str:
        file = self._collection.folder / NAME_FILE
        try:
            return read_text_file(file, hint="remove it and run `index` again").strip()
        except FileNotFoundError:
            return ""

    def open(self) -> None:
        """Check and load the Milvus collection, if it is there."""
        self._is_current = False
        self._is_ready = self.connection.retried(self._open, self.name)

    def _open(self) -> bool:
        """Check and load the Milvus collection; return whether it exists and is complete."""
        client = self.connection.client()
        if not self.name or not client.has_collection(self.name, timeout=REPLY_SECONDS):
            return False
        about = client.describe_collection(self.name, timeout=REPLY_SECONDS)
        self._check(about)
        if about["properties"].get(LAYOUT_PROPERTY) == LAYOUT:
            self.partitions = set(client.list_partitions(self.name, timeout=REPLY_SECONDS))
        if EMBEDDING not in client.list_indexes(self.name):
            return False
        index = client.describe_index(self.name, EMBEDDING, timeout=REPLY_SECONDS)
        self._index_type = index["index_type"]
        client.load_collection(self.name)  # no timeout: many vectors take long
        return True

    def _check(self, about: dict[str, Any]) -> None:
        """Refuse a Milvus collection of another model."""
        settings = self._collection.settings
        held = about["properties"].get(MODEL_PROPERTY, "no deep ranking")
        dimensions = [
            field["params"].get("dim") for field in about["fields"] if field["name"] == EMBEDDING
        ]
        if held != settings.fingerprint or dimensions != [settings.dimension]:
            raise InputError(
                f"{self.uri}: its collection {self.name} belongs to the model {held}, with "
                f"{dimensions[0] if dimensions else 'no'} dimensions, not to this one, "
                f"{settings.fingerprint}, with {settings.dimension}; use another name or server"
            )

    def _check_count(self, count: int) -> None:
        """Refuse to find fewer images than asked for because of Milvus's limit."""
        held = self.count()
        if held > MOST_RESULTS:
            raise InputError(
                f"{self.uri}: Milvus returns at most {MOST_RESULTS:,} images for a query, not "
                f"{min(count, held):,}; ask for fewer, or choose another --index"
            )

    def _read(self, method: str, **arguments: Any) -> Any:
        """Read from the Milvus collection; the first read after a write waits for that write.

        Such a "strong" read waits for a tick of the server's clock, some 200 ms. Later reads see
        what it saw without waiting.
        """
        level = "Bounded" if self._is_current else "Strong"
        self._is_current = False  # until the answer: a restarted server may lag behind
        answer = self.connection.ask(method, self.name, consistency_level=level, **arguments)
        self._is_current = True
        return answer
