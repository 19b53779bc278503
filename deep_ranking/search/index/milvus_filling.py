"""Fill a Milvus collection, a million rows at a time, and go on where a run was stopped.

Milvus stores each batch that it answers. What is there is counted by ranges of rows, so that a run
that goes on asks for the numbers of few of them. Milvus keeps two rows of one key apart, so a batch
that may be there already is upserted: the first of a run, which an earlier run may have sent before
it was stopped, and each that is sent again. The others are inserted, which takes less work.
"""

import time
import uuid
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.stored_rows import Rows
from deep_ranking.search.index.base import Changes, batches, read_blocks
from deep_ranking.search.index.kinds import HNSW
from deep_ranking.search.index.milvus_labels import (
    WINDOW,
    Labels,
    LabelState,
    digest_of,
    fields_of,
    labels_of_rows,
)
from deep_ranking.search.index.milvus_retry import REPLY_SECONDS
from deep_ranking.search.index.milvus_schema import (
    BATCH_BYTES,
    EMBEDDING,
    NAME_FILE,
    ROW,
    index_type,
    make_collection_in,
    partition_of,
)

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.index.milvus import MilvusIndex

MOST_DELETED = 16_384  # in a message
STALLED_SECONDS, POLL_SECONDS = 120.0, 0.5
LONG_SECONDS = 86_400.0  # to flush many rows


class MilvusFilling:
    """One run that fills the collection of an index.

    Args:
        index: the index; its name, its partitions and whether it is ready are brought up to date.
        collection: the collection, whose lock the caller holds.
    """

    def __init__(self, index: "MilvusIndex", collection: "Collection") -> None:
        self._index = index
        self._collection = collection
        self._is_first = True

    def bring_up_to_date(self) -> Changes:
        """Add and remove rows, and bring classes and folders up to date."""
        folder = self._collection.folder
        state, counter = LabelState.read(folder), self._collection.num_changes()
        embeddings = self._collection.embeddings()
        self._make()
        if state.counter == counter and self._index.has_labels:
            with closing(self._collection.images()) as table:
                if self._index.count() == (count := table.num_rows()):
                    return Changes(0, 0, count)
        state = LabelState(windows=state.windows if self._index.has_labels else [])
        num_added = num_removed = num_held = 0
        with progress_bar(total=len(embeddings), title="indexing", unit="images") as bar:
            for begin in range(0, len(embeddings), self._index.rows_at_once):
                end = min(len(embeddings), begin + self._index.rows_at_once)
                held = self._index.rows_between(begin, end)
                rows = self._rows(begin, end)
                added, removed = np.setdiff1d(rows, held), np.setdiff1d(held, rows)
                self._change(embeddings, added, removed, bar)
                if self._index.has_labels:
                    self._relabel(embeddings, begin, end, np.intersect1d(rows, held), state)
                    state.write(folder)
                num_added += len(added)
                num_removed += len(removed)
                num_held += len(held)
        state.counter = counter
        state.write(folder)
        return Changes(num_added, num_removed, num_held)

    def update(self, embeddings: Rows, added: Int64Array, removed: Int64Array) -> None:
        """Add and remove rows."""
        self._make()
        total = len(removed) + len(added)
        with progress_bar(total=total, title="indexing", unit="images") as bar:
            self._change(embeddings, added, removed, bar)

    def _rows(self, begin: int, end: int) -> Int64Array:
        """Return the rows in use from `begin` to `end`, rising."""
        query = "SELECT DISTINCT row FROM images WHERE row >= ? AND row < ? ORDER BY row"
        with closing(self._collection.images()) as table:
            return np.fromiter(
                (row for (row,) in table.base.execute(query, (begin, end))), np.int64
            )

    def _change(self, embeddings: Rows, added: Int64Array, removed: Int64Array, bar: Any) -> None:
        for partition, rows in self._by_partition(removed):
            for part in batches(rows, MOST_DELETED):
                self._index.connection.ask(
                    "delete", self._index.name, ids=part.tolist(), **self._in(partition)
                )
                bar.update(len(part))
        at_once = BATCH_BYTES // (4 * embeddings.shape[1])
        for partition, rows in self._by_partition(added):
            self._make_partition(partition)
            for part, block in read_blocks(embeddings, rows, at_once):
                labels = self._labels(part)
                values = [
                    {ROW: row, EMBEDDING: vector, **labels.get(row, {})}
                    for row, vector in zip(part.tolist(), block, strict=True)
                ]
                method = "upsert" if self._is_first else "insert"
                self._index.connection.ask(
                    method, self._index.name, again="upsert", data=values, **self._in(partition)
                )
                self._is_first = False
                bar.update(len(part))
        if len(added) or len(removed):
            self._index.connection.ask("flush", self._index.name, timeout=LONG_SECONDS)

    def _relabel(
        self, embeddings: Rows, begin: int, end: int, kept: Int64Array, state: LabelState
    ) -> None:
        """Send the rows anew whose classes or folders Milvus has otherwise.

        Args:
            embeddings: all rows.
            begin: the first row to look at.
            end: the end of these.
            kept: the rows among them that were there before; the others were just sent.
            state: gets the digests.
        """
        for first in range(begin, end, WINDOW):
            labels = labels_of_rows(self._collection, first, min(end, first + WINDOW))
            digest, window = digest_of(labels), first // WINDOW
            state.fits = state.fits and all(fields_of(each)[1] for each in labels.values())
            old = kept[(kept >= first) & (kept < first + WINDOW)]
            if len(old) and state.digest(window) != digest:
                self._change(embeddings, self._labelled_otherwise(old, labels), old[:0], _NoBar())
            state.set_digest(window, digest)

    def _labelled_otherwise(self, rows: Int64Array, labels: dict[int, Labels]) -> Int64Array:
        found = self._index.labels_between(int(rows[0]), int(rows[-1]) + 1)
        wrong = [row for row in rows.tolist() if found.get(row) != fields_of(labels[row])[0]]
        self._is_first = True  # these are there
        return np.array(wrong, np.int64)

    def _labels(self, rows: Int64Array) -> dict[int, dict[str, list[str]]]:
        """Return the fields of some rows, rising; none for a collection without these fields."""
        if not self._index.has_labels:
            return {}
        found = labels_of_rows(self._collection, int(rows[0]), int(rows[-1]) + 1)
        nothing: Labels = ((), ())
        return {row: fields_of(found.get(row, nothing))[0] for row in rows.tolist()}

    def _by_partition(self, rows: Int64Array) -> list[tuple[str, Int64Array]]:
        if not self._index.has_labels:
            return [("", rows)] if len(rows) else []
        names = groupby(rows.tolist(), partition_of)
        return [(name, np.array(list(part), np.int64)) for name, part in names]

    def _in(self, partition: str) -> dict[str, Any]:
        return {"partition_name": partition} if partition else {}

    def _make_partition(self, partition: str) -> None:
        partitions = self._index.partitions
        if partition and partitions is not None and partition not in partitions:
            self._index.connection.ask(
                "create_partition", self._index.name, partition_name=partition
            )
            partitions.add(partition)

    def _make(self) -> None:
        """Make the Milvus collection and its index, where they are missing, and open it."""
        index = self._index
        if not index.name:
            index.name = f"deep_ranking_{uuid.uuid4().hex[:16]}"
            with atomic_path(self._collection.folder / NAME_FILE) as temporary:
                temporary.write_text(index.name + "\n", encoding="utf-8")
        index.connection.retried(self._make_missing, index.name)
        index.open()

    def _make_missing(self) -> None:
        index, settings = self._index, self._collection.settings
        client = index.connection.client()
        if not client.has_collection(index.name, timeout=REPLY_SECONDS):
            make_collection_in(
                client,
                index.name,
                fingerprint=settings.fingerprint,
                dimension=settings.dimension,
                num_rows=len(self._collection.embeddings()),
                timeout=REPLY_SECONDS,
            )
        wanted = index_type(index.type or HNSW, settings.dimension)
        there = EMBEDDING in client.list_indexes(index.name)
        if there and index.type is not None:
            found = client.describe_index(index.name, EMBEDDING, timeout=REPLY_SECONDS)
            if found["index_type"] != wanted.name:
                client.release_collection(index.name)
                client.drop_index(index.name, EMBEDDING)
                there = False
        if not there:
            parameters = client.prepare_index_params()
            parameters.add_index(
                EMBEDDING,
                index_name=EMBEDDING,
                index_type=wanted.name,
                metric_type="L2",
                params=wanted.parameters,
            )
            client.create_index(index.name, parameters, timeout=REPLY_SECONDS, sync=False)


def wait_until_built(index: "MilvusIndex", *, stalled_seconds: float = STALLED_SECONDS) -> None:
    """Wait until the server has built the index of all rows; until then, it compares some of them.

    Args:
        index: the index.
        stalled_seconds: how long to wait without progress.

    Raises:
        InputError: it cannot build it, or makes no progress.
    """
    last, since = -1, time.monotonic()
    while True:
        found = index.connection.ask("describe_index", index.name, index_name=EMBEDDING)
        pending = int(found.get("pending_index_rows") or 0)
        reason = found.get("index_state_fail_reason") or found.get("fail_reason") or ""
        if reason:
            raise InputError(
                f"{index.uri}: cannot build the index {found['index_type']} ({reason})"
            )
        if not pending:
            index.connection.ask("refresh_load", index.name)
            return
        if pending != last:
            last, since = pending, time.monotonic()
        elif time.monotonic() - since > stalled_seconds:
            raise InputError(
                f"{index.uri}: {pending:,} rows wait for the index {found['index_type']}, and none "
                f"was added to it for {stalled_seconds:g} s: check that the server's index nodes "
                "run and have this type (diskann: a local disk), or choose another --milvus_index"
            )
        time.sleep(POLL_SECONDS)


class _NoBar:
    """In the place of a progress bar, for rows that were counted before."""

    def update(self, count: int) -> None:
        """Do nothing."""
