"""The index in Milvus: a server or cluster by its URL, or Milvus Lite in this process by a path.

The Milvus collection has two fields: `row`, the row in the collection's matrix, which is the
primary key, and `embedding`. Its property `deep_ranking.model` is the fingerprint of the model. Its
name is drawn once and kept in the file milvus.name of the folder, so that a folder that is moved,
or searched from another machine, finds it, and one that is made anew does not find what is stale.
"""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.files import InputError, atomic_path, open_regular
from deep_ranking.files.array_types import Float32Array, FloatArray, Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.search.index.base import Found, Index, Within, distances_of, read_rows
from deep_ranking.search.index.milvus_connection import REPLY_SECONDS, MilvusConnection

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection

NAME_FILE = "milvus.name"
ROW, EMBEDDING, MODEL_PROPERTY = "row", "embedding", "deep_ranking.model"

# HNSW needs no training, so that it grows with the collection, and finds nearly everything at its
# defaults; Milvus and Milvus Lite both have it. It is held in memory: where that is too much, the
# index of the collection is replaced on the server (docs/scale.md), and kept as it is found here.
INDEX_TYPE, INDEX_PARAMETERS = "HNSW", {"M": 16, "efConstruction": 200}
DEFAULT_PROBES = 128

MOST_RESULTS = 16_384  # that Milvus gives for one query or filter
BATCH_BYTES = 4 << 20  # of vectors in a message; a server takes 64 MiB, and splits what is larger
RESULTS_AT_ONCE = 1 << 18  # of all queries of a message
FIRST_LIMIT = 64  # of the results that are looked through for those within a radius
FLUSH_SECONDS = 3600.0


class MilvusIndex(Index):
    """A collection of Milvus; its probes are HNSW's `ef`, or what the index of the server has.

    Args:
        collection: whose settings name the `uri`, and may name the Milvus collection (`name`) and
            the `probes`.
        retry_seconds: how long a server that does not answer is asked again.

    Raises:
        InputError: pymilvus is missing; the server cannot be reached, or refuses the token; or its
            collection is another model's.
    """

    kind = "milvus"

    def __init__(self, collection: "Collection", *, retry_seconds: float = 60.0) -> None:
        settings = collection.settings
        self.probes = settings.index.get("probes", DEFAULT_PROBES)
        self._collection = collection
        self._uri: str = settings.index["uri"]
        self._connection = MilvusConnection(self._uri, retry_seconds=retry_seconds)
        self._index_type = INDEX_TYPE
        self._is_current = False  # what was written has been seen by a read
        self._name = settings.index.get("name") or self._kept_name()
        self._is_ready: bool = self._connection.retried(self._open, self._name)

    def rows(self) -> Int64Array:
        """Give the rows that the Milvus collection holds."""
        if not self._is_ready:
            return np.empty(0, np.int64)
        self._is_current = False
        parts = [np.empty(0, np.int64)]
        for begin in range(0, len(self._collection.embeddings()), MOST_RESULTS):
            filters = f"{ROW} >= {begin} and {ROW} < {begin + MOST_RESULTS}"
            found = self._read("query", filter=filters, output_fields=[ROW], limit=MOST_RESULTS)
            parts.append(np.sort(np.fromiter((each[ROW] for each in found), np.int64)))
        return np.concatenate(parts)

    def update(self, embeddings: FloatArray, added: Int64Array, removed: Int64Array) -> None:
        """Add and remove, in batches: each that is answered is kept."""
        if not self._name:
            self._name = f"deep_ranking_{uuid.uuid4().hex[:16]}"
            with atomic_path(self._collection.folder / NAME_FILE) as temporary:
                temporary.write_text(self._name + "\n", encoding="utf-8")
        self._is_current = False
        self._connection.retried(self._make, self._name)
        total = len(removed) + len(added)
        with progress_bar(total=total, title="indexing", unit="images") as bar:
            for part in _parts(removed, MOST_RESULTS):
                self._connection.ask("delete", self._name, ids=part.tolist())
                bar.update(len(part))
            for part in _parts(added, BATCH_BYTES // (4 * embeddings.shape[1])):
                block = read_rows(embeddings, part)
                # A batch whose answer is lost is sent again: upserted, it is there once.
                values = [
                    {ROW: row, EMBEDDING: vector}
                    for row, vector in zip(part.tolist(), block, strict=True)
                ]
                self._connection.ask("upsert", self._name, data=values)
                bar.update(len(part))
        self._connection.ask("flush", self._name, timeout=FLUSH_SECONDS)

    def search(self, queries: Float32Array, count: int, *, probes: int | None = None) -> Found:
        """Find the nearest rows.

        Raises:
            InputError: the server is gone; or more are asked for, and there, than Milvus gives.
        """
        if count > MOST_RESULTS:
            self._check_count(count)
        limit = min(count, MOST_RESULTS)
        squared = np.full((len(queries), limit), np.inf, np.float32)
        rows = np.full((len(queries), limit), -1, np.int64)
        at_once = min(RESULTS_AT_ONCE // limit, BATCH_BYTES // (4 * queries.shape[1]))
        widest = 0
        if self._is_ready:
            for numbers in _parts(np.arange(len(queries)), at_once):
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
        return Found(distances_of(squared[:, :widest], rows), rows)

    def cost(self, queries: Float32Array, *, probes: int | None = None) -> None:
        """Milvus does not say."""

    def within(self, queries: Float32Array, radius: float) -> Within:
        """Find all rows nearer than `radius`: more and more, until the farthest is beyond.

        Raises:
            InputError: the server is gone; or there are more than Milvus gives.
        """
        distances = [np.empty(0, np.float32)] * len(queries)
        rows = [np.empty(0, np.int64)] * len(queries)
        pending, limit = np.arange(len(queries)), FIRST_LIMIT
        while len(pending):
            unfinished = []
            for numbers in _parts(pending, RESULTS_AT_ONCE // limit):
                found = self.search(queries[numbers], limit)
                near = found.distances < radius
                for number, is_near, *values in zip(numbers, near, *found[:2], strict=True):
                    distances[number], rows[number] = (each[is_near] for each in values)
                    if np.count_nonzero(is_near) == limit:
                        unfinished.append(number)
            if unfinished and limit == MOST_RESULTS:
                raise InputError(
                    f"{self._uri}: {MOST_RESULTS:,} or more images are nearer than {radius:g} to "
                    "one, and Milvus gives no more; choose a smaller distance, or another --index"
                )
            pending, limit = np.array(unfinished, np.int64), min(4 * limit, MOST_RESULTS)
        return Within(
            np.cumsum([0, *map(len, rows)]).astype(np.int64),
            np.concatenate([np.empty(0, np.float32), *distances]),
            np.concatenate([np.empty(0, np.int64), *rows]),
        )

    def _kept_name(self) -> str:
        file = self._collection.folder / NAME_FILE
        try:
            with open_regular(file) as handle:
                return handle.read(1000).decode(errors="replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise InputError(
                f"{file}: cannot be read ({error.strerror}); remove it and run `index` again"
            ) from None

    def _open(self) -> bool:
        """Check and load the Milvus collection; whether there is one, complete."""
        client = self._connection.client()
        if not self._name or not client.has_collection(self._name, timeout=REPLY_SECONDS):
            return False
        self._check(client.describe_collection(self._name, timeout=REPLY_SECONDS))
        if EMBEDDING not in client.list_indexes(self._name):
            return False
        index = client.describe_index(self._name, EMBEDDING, timeout=REPLY_SECONDS)
        self._index_type = index["index_type"]
        client.load_collection(self._name)  # of many vectors it takes long: no limit
        return True

    def _make(self) -> None:
        """Make what is missing of the Milvus collection: stopped at any instant, it goes on."""
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
                f"{self._uri}: its collection {self._name} is of the model {held}, with "
                f"{dimensions[0] if dimensions else 'no'} dimensions, not of this one, "
                f"{settings.fingerprint}, with {settings.dimension}; give another name or server"
            )

    def _check_count(self, count: int) -> None:
        found = self._read("query", output_fields=["count(*)"]) if self._is_ready else []
        held = found[0]["count(*)"] if found else 0
        if held > MOST_RESULTS:
            raise InputError(
                f"{self._uri}: Milvus gives at most {MOST_RESULTS:,} images for a query, not "
                f"{min(count, held):,}; ask for fewer, or choose another --index"
            )

    def _read(self, method: str, **arguments: Any) -> Any:
        """Ask for what is held, up to date: the first time it waits for all that was written.

        Every strong read waits for a tick of the server's clock, some 200 ms; what one of them has
        seen, the later ones see without.
        """
        level = "Bounded" if self._is_current else "Strong"
        self._is_current = False  # until it is answered: a server that comes back may lag behind
        answer = self._connection.ask(method, self._name, consistency_level=level, **arguments)
        self._is_current = True
        return answer


def search_parameters(index_type: str, probes: int, limit: int) -> dict[str, int]:
    """Give what Milvus calls the effort of a search.

    Args:
        index_type: of the Milvus collection.
        probes: effort asked for.
        limit: results asked for, which graphs need as much effort for.
    """
    if index_type == "HNSW":
        return {"ef": max(probes, limit)}
    if index_type == "DISKANN":
        return {"search_list": max(probes, limit)}
    if index_type.startswith("IVF") or index_type == "SCANN":
        return {"nprobe": probes}
    return {}


def _parts(values: Int64Array, size: int) -> Iterator[Int64Array]:
    size = max(1, size)
    for begin in range(0, len(values), size):
        yield values[begin : begin + size]
