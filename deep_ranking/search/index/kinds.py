"""The kinds of index: read `--index`, and open the index of a collection."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_ranking.files import InputError
from deep_ranking.search.index.base import Index

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.index.clusters import ClusterIndex

KINDS = ("exact", "clusters", "hierarchy")
MILVUS = "milvus"
HNSW, IVF_PQ, DISKANN = MILVUS_TYPES = ("hnsw", "ivf_pq", "diskann")
TOKEN_VARIABLE = "DEEP_RANKING_MILVUS_TOKEN"


def index_settings(kind: str) -> dict[str, Any]:
    """Return the settings of the index that `--index` names.

    Args:
        kind: one of `KINDS`, a path that ends in .db, or http(s)://HOST:PORT.

    Raises:
        InputError: it is something else, or the address has a password.
    """
    if kind in KINDS:
        return {"kind": kind}
    if kind.startswith(("http://", "https://")):
        if "@" in kind:
            raise InputError(f"no password in an address: put it into {TOKEN_VARIABLE}")
        return {"kind": MILVUS, "uri": kind}
    if kind.endswith(".db"):
        return {"kind": MILVUS, "uri": str(Path(kind).absolute())}
    raise InputError(
        f"expected {', '.join(KINDS)}, or a Milvus collection: a path that ends in .db, or "
        f"http://HOST:PORT. Received: {kind}"
    )


def with_milvus_type(settings: dict[str, Any] | None, kind: str | None) -> dict[str, Any] | None:
    """Return settings of an index in Milvus with its type.

    Args:
        settings: of the index that it is to be; of another kind, they stay as they are.
        kind: one of `MILVUS_TYPES`; None to leave the type as it is.

    Raises:
        InputError: Milvus Lite does not have this type.
    """
    if kind is None or settings is None or settings["kind"] != MILVUS:
        return settings
    if kind != HNSW and not settings["uri"].startswith("http"):
        raise InputError(
            f"{settings['uri']}: Milvus Lite, in a file, has no {kind}: take hnsw, or a server"
        )
    return {**settings, "type": kind}


def open_index(collection: "Collection") -> Index:
    """Open the index of a collection; it has no rows if it is not built yet.

    Raises:
        InputError: it is damaged, or its server does not answer.
    """
    settings = collection.settings.index
    kind = settings["kind"]
    if kind == "exact":
        from deep_ranking.search.index.exact import ExactIndex

        return ExactIndex(collection.embeddings(), collection.rows())
    if kind == MILVUS:
        from deep_ranking.search.index.milvus import MilvusIndex

        return MilvusIndex(collection)
    return cluster_index(collection, settings, collection.folder / f"{kind}.faiss")


def cluster_index(collection: "Collection", settings: dict[str, Any], file: Path) -> "ClusterIndex":
    """Open an index with clusters; it has no rows if its file does not exist.

    Args:
        collection: the collection that it is of.
        settings: its `kind`, `clusters` and `probes`.
        file: its file.

    Raises:
        InputError: it is damaged, of another dimension than the collection, or of an unknown kind.
    """
    from deep_ranking.search.index import clusters

    kind = settings["kind"]
    known: dict[str, type[clusters.ClusterIndex]] = {
        each.kind: each for each in (clusters.ClusterIndex, clusters.HierarchyIndex)
    }
    if kind not in known:
        raise InputError(
            f"{collection.folder}: has an index of unknown kind {kind}; run `index` again with "
            "--index KIND"
        )
    index = known[kind](
        file, num_clusters=settings.get("clusters", 0), probes=settings.get("probes", 1)
    )
    if index.dimension not in (None, collection.settings.dimension):
        raise InputError(
            f"{file}: its embeddings have {index.dimension} numbers, and the collection's have "
            f"{collection.settings.dimension}; remove it and run `index` again"
        )
    return index
