"""What `index` does to a collection: open it to write to it, or make it, and update its index."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.model.header import read_header
from deep_ranking.search.collection import DTYPES, Collection, Settings, fitting_batch_size, locked
from deep_ranking.search.collection.folder import SETTINGS
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.kinds import KINDS, open_index
from deep_ranking.search.index.tuning import GroundTruth, fewest_probes

TARGET_RECALL = 0.95
NEW_SHARE_TO_RETUNE = 0.05  # share of new images above which probes are chosen again


@contextmanager
def writable_collection(
    folder: Path,
    *,
    model: Path | None = None,
    images: Path | None = None,
    dtype: str | None = None,
    shard: tuple[int, int] | None = None,
) -> Iterator[Collection]:
    """Open a collection as its only writer; make it if it does not exist.

    Args:
        folder: folder of the collection.
        model: model file; needed to make a collection.
        images: folder of the images; needed to make a collection. For an existing one it says
            where the images are now.
        dtype: type of the embeddings on disk, one of `DTYPES`; None for the first of these.
        shard: (i, n) to embed only the i-th of n parts of the images, from 1.

    Yields:
        The collection.

    Raises:
        InputError: a file or folder is missing or damaged, another process writes to the
            collection, or it was made with another model, dtype or shard.
    """
    if images is not None and not images.is_dir():
        raise InputError(f"{images}: no such folder; check --images")
    header = None if model is None else read_header(model)
    with locked(folder):
        if (folder / SETTINGS).exists():
            collection = Collection.open(folder)
            for name, wanted in (("shard", shard), ("dtype", dtype)):
                found = getattr(collection.settings, name)
                if wanted not in (None, found):
                    text = "/".join(map(str, found)) if isinstance(found, tuple) else found
                    raise InputError(
                        f"{folder}: made with --{name} {text}, which cannot change; choose another "
                        "--output"
                    )
            if model is not None and header is not None:
                collection.check_model(header.fingerprint)
                collection.take_calibration(model)
            if images is not None and str(images.absolute()) != collection.settings.root:
                collection.change(root=str(images.absolute()))
        elif model is None or header is None or images is None:
            raise InputError(f"{folder}: no index here; give --model and --images to make one")
        else:
            settings = Settings(
                fingerprint=header.fingerprint,
                dimension=header.network.embedding_size,
                image_size=header.network.image_size,
                dtype=dtype or DTYPES[0],
                batch_size=fitting_batch_size(header.network.seen_size),
                root=str(images.absolute()),
                shard=shard,
            )
            collection = Collection.make(folder, settings, model)
        yield collection


def update_index(
    collection: Collection,
    *,
    wanted: dict[str, Any] | None = None,
    clusters: int | None = None,
    probes: int | None = None,
    target_recall: float | None = None,
) -> tuple[Index, float | None]:
    """Add new rows to the index, remove rows that are gone, and choose its probes.

    Args:
        collection: a synced one; the caller holds its lock.
        wanted: settings of the wanted kind, from `index_settings`; None for the kind it has. Other
            settings are kept if the kind stays the same.
        clusters: clusters to make; None to keep the number.
        probes: clusters that a query shall visit.
        target_recall: share of the 20 nearest images to find, 0 to 1; chooses the probes. With
            neither, the probes are chosen once, and again when many images are new.

    Returns:
        The index, and the recall that the update measured when it chose the probes; None if it did
        not choose them.

    Raises:
        InputError: the index is damaged or cannot be written, its server does not answer, or it has
            no clusters to reach a `target_recall` with.
    """
    before = collection.settings.index
    keeps_kind = wanted is None or wanted["kind"] == before["kind"]
    settings = (before if keeps_kind else {}) | (wanted or {})
    if clusters is not None:
        settings["clusters"] = clusters
    reclustered = settings.get("clusters") != before.get("clusters")
    if reclustered:
        settings.pop("probes", None)
    # The collection keeps its old index until the new one is complete.
    changed = replace(collection.settings, index=settings)
    index = open_index(Collection(collection.folder, changed))
    rows, held = collection.rows(), index.rows()
    added, removed = np.setdiff1d(rows, held), np.setdiff1d(held, rows)
    if len(added) or len(removed):
        index.update(collection.embeddings(), added, removed)
    if reclustered and isinstance(index, ClusterIndex) and len(held):
        index.rebuild(collection.embeddings())
    recall = None
    if probes is not None:
        index.probes = min(probes, index.num_clusters or probes)
        settings.pop("target_recall", None)
        settings["probes"] = index.probes
    elif index.num_clusters:
        many_new = "target_recall" in settings and len(added) > NEW_SHARE_TO_RETUNE * len(rows)
        if target_recall is not None or "probes" not in settings or many_new:
            target = target_recall or settings.get("target_recall", TARGET_RECALL)
            truth = GroundTruth(collection.embeddings(), rows)
            index.probes, recall = fewest_probes(index, truth, target)
            settings |= {"probes": index.probes, "target_recall": target}
    elif target_recall is not None and settings["kind"] not in KINDS:
        raise InputError("--target_recall is for clusters and hierarchy; use --probes")
    if settings != before:
        collection.change(index=settings)
    for kind in KINDS:
        if kind != settings["kind"]:
            (collection.folder / f"{kind}.faiss").unlink(missing_ok=True)
    return index, recall
