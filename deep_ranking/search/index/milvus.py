"""The index in Milvus: a URL means a server or cluster, a path means Milvus Lite in this process.

The Milvus collection has two fields: `row`, the primary key, is the row in the collection's matrix,
and `embedding`. Its property `deep_ranking.model` is the fingerprint of the model. Its name is
random, drawn once and stored in the folder's file milvus.name. So a folder that is moved, or
searched from another machine, finds it, and a new folder does not find stale rows. `milvus_retry`
repeats requests that fail.
"""

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.files import InputError, atomic_path, read_text_file
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.stored_rows import Rows
from deep_ranking.search.index.base import (
    Index,
    Nearest,
    RowsWithin,
    batches,
    distances_from_squared,
    read_blocks,
)
from deep_ranking.search.index.milvus_retry import REPLY_SECONDS, MilvusConnection

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection

NAME_FILE = "milvus.name"
ROW, EMBEDDING, MODEL_PROPERTY = "row", "embedding", "deep_ranking.model"

# HNSW needs no training, so it grows with the collection. It finds nearly everything with these
# parameters, and both Milvus and Milvus Lite have it. It stays in memory: if a collection is too
# large for that, replace the index on the server (docs/scale.md); this class uses what is there.
INDEX_TYPE, INDEX_PARAMETERS = "HNSW", {"M": 16, "efConstruction": 200}
DEFAULT_PROBES = 128

MOST_RESULTS = 16_384  # Milvus's limit for one query or filter
BATCH_BYTES = 4 << 20  # vectors in a message; a server accepts 64 MiB, and splits larger ones
RESULTS_AT_ONCE = 1 << 18  # for all queries in a message
FIRST_LIMIT = 64  # results of a first search within a radius
FLUSH_SECONDS = 3600.0


class MilvusIndex(Index):
    """An index in a Milvus collection; `probes` is HNSW's `ef`, or the server's equivalent.

    Args:
        collection: its index settings have the `uri`, and may have the Milvus collection's `name`
            and the `probes`.
        retry_seconds: how long to retry when the server does not answer; None: as the collection
            says.

    Raises:
        InputError: pymilvus is missing, the server does not answer or refuses the token, or the
            Milvus collection belongs to another model.
    """

    kind = "milvus"

    def __init__(self, collection: "Collection", *, retry_seconds: float | None = None) -> None:
        settings = collection.settings
        self.probes = settings.index.get("probes", DEFAULT_PROBES)
        self._collection = collection
        self._uri: str = settings.index["uri"]
        if retry_seconds is None:
            retry_seconds = collection.retry_seconds
        self._connection = MilvusConnection(self._uri, retry_seconds=retry_seconds)
        self._index_type = INDEX_TYPE
        self._is_current = False  # whether a read has seen everything that was written
        self._name = settings.index.get("name") or self._stored_name()
        self._is_ready: bool = self._connection.retried(self._open, self._name)

    def rows(self) -> Int64Array:
        """Return the rows in the Milvus collection."""
        if not self._is_ready:
            return np.empty(0, np.int64)
        self._is_current = False
        parts = [np.empty(0, np.int64)]
        for begin in range(0, len(self._collection.embeddings()), MOST_RESULTS):
            filters = f"{ROW} >= {begin} and {ROW} < {begin + MOST_RESULTS}"
            found = self._read("query", filter=filters, output_fields=[ROW], limit=MOST_RESULTS)
            parts.append(np.sort(np.fromiter((each[ROW] for each in found), np.int64)))
        return np.concatenate(parts)

    def update(self, embeddings: Rows, added: Int64Array, removed: Int64Array) -> None:
        """Add and remove rows in batches; Milvus stores each batch that it answers."""
        if not self._name:
            self._name = f"deep_ranking_{uuid.uuid4().hex[:16]}"
            with atomic_path(self._collection.folder / NAME_FILE) as temporary:
                temporary.write_text(self._name + "\n", encoding="utf-8")
        self._is_current = False
        self._connection.retried(self._make, self._name)
        total = len(removed) + len(added)
        with progress_bar(total=total, title="indexing", unit="images") as bar:
            for part in batches(removed, MOST_RESULTS):
                self._connection.ask("delete", self._name, ids=part.tolist())
                bar.update(len(part))
            at_once = BATCH_BYTES // (4 * embeddings.shape[1])
            for part, block in read_blocks(embeddings, added, at_once):
                # Upsert, because a batch is sent again if its answer is lost.
                values = [
                    {ROW: row, EMBEDDING: vector}
                    for row, vector in zip(part.tolist(), block, strict=True)
                ]
                self._connection.ask("upsert", self._name, data=values)
                bar.update(len(part))
        self._connection.ask("flush", self._name, timeout=FLUSH_SECONDS)

    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Nearest:
        """Find the nearest rows.

        Raises:
            InputError: the server does not answer, or `count` and the rows exceed Milvus's limit.
        """
        if count > MOST_RESULTS:
            self._check_count(count)
        limit = min(count, MOST_RESULTS)
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
                    f"{self._uri}: {MOST_RESULTS:,} or more images are nearer than {radius:g} to "
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

    def _open(self) -> bool:
        """Check and load the Milvus collection; return whether it exists and is complete."""
        client = self._connection.client()
        if not self._name or not client.has_collection(self._name, timeout=REPLY_SECONDS):
            return False
        self._check(client.describe_collection(self._name, timeout=REPLY_SECONDS))
        if EMBEDDING not in client.list_indexes(self._name):
            return False
        index = client.describe_index(self._name, EMBEDDING, timeout=REPLY_SECONDS)
        self._index_type = index["index_type"]
        client.load_collection(self._name)  # no timeout: many vectors take long
        return True

    def _make(self) -> None:
        """Make the missing parts of the Milvus collection, if any, and open it."""
        from pymilvus import DataType

        client, settings = self._connection.client(), self._collection.settings
        if not client.has_collection(self._name, timeout=REPLY_SECONDS):
            schema = client.create_schema(
                auto_id=False,
                enable_dynamic_field=False,
                description=f"Embeddings of deep ranking's model {settings.fingerprint}",
            )
            schema.add_field(ROW, DataType.INT64, is_primary=True)
            schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=settings.dimension)
            client.create_collection(
                self._name,
                schema=schema,
                consistency_level="Strong",
                properties={MODEL_PROPERTY: settings.fingerprint},
                timeout=REPLY_SECONDS,
            )
        if EMBEDDING not in client.list_indexes(self._name):
            index = client.prepare_index_params()
            index.add_index(
                EMBEDDING,
                index_name=EMBEDDING,
                index_type=INDEX_TYPE,
                metric_type="L2",
                params=INDEX_PARAMETERS,
            )
            client.create_index(self._name, index, timeout=REPLY_SECONDS)
        self._is_ready = self._open()

    def _check(self, about: dict[str, Any]) -> None:
        """Refuse a Milvus collection of another model."""
        settings = self._collection.settings
        held = about["properties"].get(MODEL_PROPERTY, "no deep ranking")
        dimensions = [
            field["params"].get("dim") for field in about["fields"] if field["name"] == EMBEDDING
        ]
        if held != settings.fingerprint or dimensions != [settings.dimension]:
            raise InputError(
                f"{self._uri}: its collection {self._name} belongs to the model {held}, with "
                f"{dimensions[0] if dimensions else 'no'} dimensions, not to this one, "
                f"{settings.fingerprint}, with {settings.dimension}; use another name or server"
            )

    def _check_count(self, count: int) -> None:
        """Refuse to find fewer images than asked for because of Milvus's limit."""
        found = self._read("query", output_fields=["count(*)"]) if self._is_ready else []
        held = found[0]["count(*)"] if found else 0
        if held > MOST_RESULTS:
            raise InputError(
                f"{self._uri}: Milvus returns at most {MOST_RESULTS:,} images for a query, not "
                f"{min(count, held):,}; ask for fewer, or choose another --index"
            )

    def _read(self, method: str, **arguments: Any) -> Any:
        """Read from the Milvus collection; the first read after a write waits for that write.

        Such a "strong" read waits for a tick of the server's clock, some 200 ms. Later reads see
        what it saw without waiting.
        """
        level = "Bounded" if self._is_current else "Strong"
        self._is_current = False  # until the answer: a restarted server may lag behind
        answer = self._connection.ask(method, self._name, consistency_level=level, **arguments)
        self._is_current = True
        return answer


def search_parameters(index_type: str, probes: int, limit: int) -> dict[str, int]:
    """Return Milvus's search parameters for a number of probes.

    Args:
        index_type: Milvus's name of the type.
        probes: the effort: clusters, or candidates of a graph.
        limit: results to find; a graph needs at least as many candidates.
    """
    if index_type == "HNSW":
        return {"ef": max(probes, limit)}
    if index_type == "DISKANN":
        return {"search_list": max(probes, limit)}
    if index_type.startswith("IVF") or index_type == "SCANN":
        return {"nprobe": probes}
    return {}
