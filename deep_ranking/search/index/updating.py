"""Keep the index of a collection at what the collection holds."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.kinds import KINDS, index_file, open_index
from deep_ranking.search.index.tuning import GroundTruth, fewest_probes

TARGET_RECALL = 0.95
RECHOSEN = 0.05  # share of new images from which on probes are chosen anew


@dataclass(frozen=True)
class IndexUpdate:
    """What was done to an index.

    Attributes:
        index: the index, up to date.
        num_added: rows that came.
        num_removed: rows that went.
        recall: of the 20 nearest images, as measured when its probes were chosen; None if they
            were not chosen now.
    """

    index: Index
    num_added: int
    num_removed: int
    recall: float | None


def update_index(
    collection: Collection,
    settings: dict[str, Any],
    *,
    probes: int | None = None,
    target_recall: float | None = None,
) -> IndexUpdate:
    """Add what is new to the index, remove what is gone, and choose its probes.

    Args:
        collection: a synced one; the caller holds its lock.
        settings: of the index that it is to have, such as those that it has.
        probes: clusters that a query is to visit.
        target_recall: or share of the 20 nearest images to find, 0 to 1, by which they are chosen.
            With neither, they are chosen once, and again when many images are new.

    Returns:
        What was done.

    Raises:
        InputError: the index is damaged, cannot be written, or its server not be reached.
    """
    before = collection.settings.index
    reclustered = settings.get("clusters") != before.get("clusters")
    if reclustered:
        settings = {name: value for name, value in settings.items() if name != "probes"}
    # Until the new index is complete, the collection has the one that it had.
    changed = replace(collection.settings, index=settings)
    index = open_index(Collection(collection.folder, changed))
    wanted, held = collection.rows(), index.rows()
    added, removed = np.setdiff1d(wanted, held), np.setdiff1d(held, wanted)
    if len(added) or len(removed):
        index.update(collection.embeddings(), added, removed)
    if reclustered and isinstance(index, ClusterIndex) and len(held):
        index.rebuild(collection.embeddings())
    settings, recall = _with_probes(
        collection, index, settings, len(added), probes=probes, target_recall=target_recall
    )
    if settings != before:
        collection.change(index=settings)
    for kind in KINDS:
        if kind != settings["kind"]:
            index_file(collection, kind).unlink(missing_ok=True)
    return IndexUpdate(index, len(added), len(removed), recall)


def _with_probes(
    collection: Collection,
    index: Index,
    settings: dict[str, Any],
    num_added: int,
    *,
    probes: int | None,
    target_recall: float | None,
) -> tuple[dict[str, Any], float | None]:
    """Give the index its probes; the settings with them, and the recall if it was measured."""
    if probes is not None:
        index.probes = min(probes, index.num_clusters or probes)
        kept = {name: value for name, value in settings.items() if name != "target_recall"}
        return kept | {"probes": index.probes}, None
    if not index.num_clusters:
        if target_recall is not None and settings["kind"] not in KINDS:
            raise InputError("--target_recall is for clusters and hierarchy; give --probes")
        return settings, None
    rows = collection.rows()
    many_new = "target_recall" in settings and num_added > RECHOSEN * len(rows)
    if target_recall is None and "probes" in settings and not many_new:
        return settings, None
    target = target_recall or settings.get("target_recall", TARGET_RECALL)
    truth = GroundTruth(collection.embeddings(), rows)
    index.probes, recall = fewest_probes(index, truth, target)
    return settings | {"probes": index.probes, "target_recall": target}, recall
