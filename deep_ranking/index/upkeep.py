"""Keep the index of a collection at what the collection holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from deep_ranking.collection import Collection
from deep_ranking.index.base import Index
from deep_ranking.index.choice import KINDS, index_file, open_index
from deep_ranking.index.tuning import Yardstick, fewest_probes

TARGET_RECALL = 0.95
RECHOSEN = 0.05  # share of new images from which on probes are chosen anew


@dataclass(frozen=True)
class Upkeep:
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
) -> Upkeep:
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
    if settings != before:
        collection.change(index=settings)
    index = open_index(collection)
    wanted, held = collection.rows(), index.rows()
    added, removed = np.setdiff1d(wanted, held), np.setdiff1d(held, wanted)
    if len(added) or len(removed):
        index.update(collection.embeddings(), added, removed)
    for kind in KINDS:
        if kind != settings["kind"]:
            index_file(collection, kind).unlink(missing_ok=True)
    recall = None
    if index.num_clusters:
        target = target_recall or settings.get("target_recall", TARGET_RECALL)
        if probes is not None:
            settings = settings | {"probes": min(probes, index.num_clusters)}
            settings.pop("target_recall", None)
        elif (
            target_recall
            or "probes" not in settings
            or (_chosen(settings) and len(added) > RECHOSEN * len(wanted))
        ):
            yardstick = Yardstick(collection.embeddings(), wanted)
            chosen, recall = fewest_probes(index, yardstick, target)
            settings = settings | {"probes": chosen, "target_recall": target}
        index.probes = settings["probes"]
    if settings != collection.settings.index:
        collection.change(index=settings)
    return Upkeep(index, len(added), len(removed), recall)


def _chosen(settings: dict[str, Any]) -> bool:
    """Whether the probes were chosen by a target, rather than given."""
    return "target_recall" in settings
