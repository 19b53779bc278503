"""Bring the index of a collection up to date with the collection."""

from dataclasses import replace
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.kinds import KINDS, index_file, open_index
from deep_ranking.search.index.tuning import GroundTruth, fewest_probes

TARGET_RECALL = 0.95
NEW_SHARE_TO_RETUNE = 0.05  # share of new images above which probes are chosen again


def update_index(
    collection: Collection,
    settings: dict[str, Any],
    *,
    probes: int | None = None,
    target_recall: float | None = None,
) -> tuple[Index, float | None]:
    """Add new rows to the index, remove rows that are gone, and choose its probes.

    Args:
        collection: a synced one; the caller holds its lock.
        settings: index settings that the collection shall have.
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
    reclustered = settings.get("clusters") != before.get("clusters")
    if reclustered:
        settings = {name: value for name, value in settings.items() if name != "probes"}
    # The collection keeps its old index until the new one is complete.
    changed = replace(collection.settings, index=settings)
    index = open_index(Collection(collection.folder, changed))
    wanted, held = collection.rows(), index.rows()
    added, removed = np.setdiff1d(wanted, held), np.setdiff1d(held, wanted)
    if len(added) or len(removed):
        index.update(collection.embeddings(), added, removed)
    if reclustered and isinstance(index, ClusterIndex) and len(held):
        index.rebuild(collection.embeddings())
    settings, recall = _choose_probes(
        collection, index, settings, len(added), probes=probes, target_recall=target_recall
    )
    if settings != before:
        collection.change(index=settings)
    for kind in KINDS:
        if kind != settings["kind"]:
            index_file(collection, kind).unlink(missing_ok=True)
    return index, recall


def _choose_probes(
    collection: Collection,
    index: Index,
    settings: dict[str, Any],
    num_added: int,
    *,
    probes: int | None,
    target_recall: float | None,
) -> tuple[dict[str, Any], float | None]:
    """Set the probes of the index; return its settings, and the recall if it was measured."""
    if probes is not None:
        index.probes = min(probes, index.num_clusters or probes)
        kept = {name: value for name, value in settings.items() if name != "target_recall"}
        return kept | {"probes": index.probes}, None
    if not index.num_clusters:
        if target_recall is not None and settings["kind"] not in KINDS:
            raise InputError("--target_recall is for clusters and hierarchy; use --probes")
        return settings, None
    rows = collection.rows()
    many_new = "target_recall" in settings and num_added > NEW_SHARE_TO_RETUNE * len(rows)
    if target_recall is None and "probes" in settings and not many_new:
        return settings, None
    target = target_recall or settings.get("target_recall", TARGET_RECALL)
    truth = GroundTruth(collection.embeddings(), rows)
    index.probes, recall = fewest_probes(index, truth, target)
    return settings | {"probes": index.probes, "target_recall": target}, recall
