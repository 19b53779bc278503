"""What a Milvus collection is made of: fields, types of index, channels and partitions.

row        the primary key: the row in the collection's matrix
embedding  the vector
classes    the classes of the images that share the row
folders    all folders that they lie below, relative to the root: "a" and "a/b" for a/b/1.jpg

Collections of earlier versions have the first two fields, and one partition.
"""

from dataclasses import dataclass
from typing import Any

from deep_ranking.files import InputError
from deep_ranking.search.index.kinds import DISKANN, HNSW, IVF_PQ, MILVUS_TYPES

NAME_FILE = "milvus.name"
ROWS_AT_ONCE = 1 << 20
BATCH_BYTES = 4 << 20  # vectors in a message; a server accepts 64 MiB, and splits larger ones
ROW, EMBEDDING, CLASSES, FOLDERS = "row", "embedding", "classes", "folders"
MODEL_PROPERTY, LAYOUT_PROPERTY, LAYOUT = "deep_ranking.model", "deep_ranking.layout", "2"

MOST_CLASSES, MOST_FOLDERS, MOST_NAME_BYTES = 64, 256, 1024
"""Of a row. Where there is more, class and folder are not looked for by the server."""

ROWS_OF_CHANNEL, MOST_CHANNELS = 100_000_000, 16
"""A channel is one stream of inserts; 16 is the most that Milvus makes by default."""

ROWS_OF_PARTITION = 1 << 26
"""Rows of one partition, by their numbers: asking which rows are there, or removing one, visits
the segments of its partition alone. A billion rows are 15; Milvus has 4,096 at most."""

SEGMENT_BYTES = 512 << 20  # Milvus' default; an index is built for each
PROBES = {HNSW: 128, IVF_PQ: 64, DISKANN: 128}


@dataclass(frozen=True)
class IndexType:
    """A type of index: Milvus' name of it, and what it is built with."""

    name: str
    parameters: dict[str, int]


def index_type(name: str, dimension: int) -> IndexType:
    """Return what an index is made with.

    HNSW finds nearly everything, and keeps all vectors and their graph in memory. IVF_PQ keeps a
    byte for each 4 numbers of a vector, in four times the root of a segment's rows clusters, as
    faiss recommends. DISKANN keeps an eighth of each vector in memory, and the rest on the disk.

    Args:
        name: one of `MILVUS_TYPES`.
        dimension: floats of a vector.

    Raises:
        InputError: there is no such type.
    """
    if name == IVF_PQ:
        per_segment = SEGMENT_BYTES // (4 * dimension)
        clusters = 1 << max(6, round(4 * per_segment**0.5).bit_length() - 1)
        parts = next(each for each in range(max(1, dimension // 4), 0, -1) if not dimension % each)
        return IndexType("IVF_PQ", {"nlist": min(65_536, clusters), "m": parts, "nbits": 8})
    if name == DISKANN:
        return IndexType("DISKANN", {})
    if name == HNSW:
        return IndexType("HNSW", {"M": 16, "efConstruction": 200})
    raise InputError(f"Milvus index {name}: expected {', '.join(MILVUS_TYPES)}")


def num_channels(num_rows: int) -> int:
    """Return the channels of a new collection, which cannot change later: 1 for each 10^8 rows."""
    return max(1, min(MOST_CHANNELS, -(-num_rows // ROWS_OF_CHANNEL)))


def partition_of(row: int) -> str:
    """Return the name of the partition that a row belongs to."""
    number = row // ROWS_OF_PARTITION
    return f"rows_{number}" if number else "_default"


def make_collection_in(
    client: Any, name: str, *, fingerprint: str, dimension: int, num_rows: int, timeout: float
) -> None:
    """Make a Milvus collection without an index.

    Args:
        client: of pymilvus.
        name: its name.
        fingerprint: of the model.
        dimension: floats of a vector.
        num_rows: rows that it is to hold, which decide its channels.
        timeout: seconds to wait for the answer.
    """
    from pymilvus import DataType

    schema = client.create_schema(
        auto_id=False,
        enable_dynamic_field=False,
        description=f"Embeddings of deep ranking's model {fingerprint}",
    )
    schema.add_field(ROW, DataType.INT64, is_primary=True)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=dimension)
    for field, most in ((CLASSES, MOST_CLASSES), (FOLDERS, MOST_FOLDERS)):
        schema.add_field(
            field,
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=most,
            max_length=MOST_NAME_BYTES,
        )
    client.create_collection(
        name,
        schema=schema,
        consistency_level="Strong",
        num_shards=num_channels(num_rows),
        properties={MODEL_PROPERTY: fingerprint, LAYOUT_PROPERTY: LAYOUT},
        timeout=timeout,
    )


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
