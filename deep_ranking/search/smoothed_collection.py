"""Smooth a collection, and keep its smoothed rows and their index up to date.

Files of the folder, and the order in which they are written:

smoothed.bin           the smoothed rows: see `smoothed_rows`
smoothed-KIND.faiss    their index, if the collection's has clusters
collection.json        `smoothing`: K, the power, the `state` of smoothed.bin that the index is of,
                       and the settings of the index; null while the first smoothing is not complete

An update that is stopped leaves smoothed rows that are complete, new or old. Then the index may be
one of the old rows: a search measures what it finds by the smoothed rows themselves, and the next
update makes it anew, because the states differ.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.search.collection import Collection
from deep_ranking.search.collection.own_files import SMOOTHED
from deep_ranking.search.collection.settings import DEFAULT_POWER, MOST_NEIGHBOURS, MOST_POWER
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.index.kinds import KINDS, MILVUS, cluster_index
from deep_ranking.search.index.tuning import GroundTruth, fewest_probes
from deep_ranking.search.smoothed_rows import SmoothedRows, read_smoothed
from deep_ranking.search.smoothing import smoothing_in_words
from deep_ranking.search.smoothing_choice import SmoothingChoice, choose_smoothing
from deep_ranking.search.smoothing_updates import update_rows

CHOOSE: Literal["choose"] = "choose"
Smooth = int | Literal["choose"] | None
NEW_SHARE_TO_RETUNE = 0.05  # share of changed rows above which probes are chosen again


@dataclass(frozen=True)
class SmoothingReport:
    """What an update of the smoothed rows did.

    Attributes:
        num_neighbours: K; 0 if the rows are not smoothed.
        power: of the similarity.
        reason: why these, in words; "" if they are what they were.
        num_rows: smoothed rows.
        num_recomputed: those that were computed now.
        rows: the smoothed rows; None if the collection is not smoothed any more.
        index: their index, likewise.
        recall: share of the 20 nearest that a search of it finds, as measured; None if this was not
            measured.
    """

    num_neighbours: int
    power: float
    reason: str
    num_rows: int = 0
    num_recomputed: int = 0
    rows: SmoothedRows | None = None
    index: Index | None = None
    recall: float | None = None

    def __repr__(self) -> str:
        reason = self.reason and f", {self.reason}"
        if self.index is None:
            return f"Not smoothed{reason}."
        visits = ""
        if self.index.num_clusters:
            visits = f"; a search visits {self.index.probes} of {self.index.num_clusters} clusters"
            if self.recall is not None:
                visits += f" and finds {self.recall:.1%} of the 20 nearest, as measured"
        return (
            f"Smoothed {smoothing_in_words(self.num_neighbours, self.power)}{reason}: "
            f"{self.num_recomputed:,} of {self.num_rows:,} rows recomputed{visits}. "
            "`search --no-smooth` ranks by the plain rows."
        )


def check_smoothing(collection: Collection, smooth: Smooth, power: float | None, kind: str) -> None:
    """Refuse what cannot be smoothed, before the long work.

    Args:
        collection: the collection.
        smooth: as for `index_images`.
        power: likewise.
        kind: of the index that the collection will have.

    Raises:
        InputError: the reason, and what to do.
    """
    folder = collection.folder
    if power is not None and (smooth is None or smooth == 0):
        raise InputError("smooth_power: has no effect without the number of neighbours in smooth")
    if power is not None and not 0 < power <= MOST_POWER:
        raise InputError(
            f"smooth_power must be above 0 and at most {MOST_POWER:g}. Received: {power}"
        )
    is_count = isinstance(smooth, int | np.integer) and 2 <= smooth <= MOST_NEIGHBOURS
    if smooth not in (None, CHOOSE, 0) and not is_count:
        raise InputError(
            f"smooth must be {CHOOSE!r}, 0 for none, or 2 to {MOST_NEIGHBOURS:,} nearest rows, the "
            f"row itself among them. Received: {smooth}"
        )
    if smooth == 0 or (smooth is None and collection.settings.smoothing is None):
        return
    if kind == MILVUS:
        raise InputError(
            f"{folder}: an index in Milvus searches the rows that its server holds, which are the "
            "plain ones: smoothed rows need --index exact, clusters or hierarchy (and --smooth 0 "
            "gives them up)"
        )
    if collection.settings.shard is not None:
        raise InputError(
            f"{folder}: is a shard, so most neighbours of its images are elsewhere; `merge` the "
            "shards, and smooth the whole"
        )


def update_smoothing(
    collection: Collection, index: Index, *, smooth: Smooth = None, power: float | None = None
) -> SmoothingReport | None:
    """Smooth the rows of a collection, or bring them up to date.

    Args:
        collection: a synced one, whose index is up to date; the caller holds its lock.
        index: its index.
        smooth: the number of nearest rows, the row itself among them; "choose" to choose it by
            searches; 0 for no smoothing; None for what it was.
        power: of the similarity; None for 2, or to choose it as well.

    Returns:
        What was done; None if the collection is not smoothed, as before.

    Raises:
        InputError: as `check_smoothing`; the smoothed rows are damaged, or the disk is full.
    """
    settings = collection.settings
    check_smoothing(collection, smooth, power, settings.index["kind"])
    before = settings.smoothing
    if smooth is None and before is None:
        _remove_smoothed(collection.folder)  # of a first smoothing that was stopped
        return None
    choice = _choice(collection, smooth, power)
    if not choice.num_neighbours:
        if before is not None:
            collection.change(smoothing=None)
        _remove_smoothed(collection.folder)
        return SmoothingReport(0, choice.power, choice.reason)
    old = _same_smoothing(collection, choice)
    rows, recomputed = update_rows(
        collection, index, old, num_neighbours=choice.num_neighbours, power=choice.power
    )
    is_in_step = before is not None and old is not None and before["state"] == old.state
    updated, options, recall = _update_index(
        collection, rows, recomputed, before["index"] if before and is_in_step else None
    )
    after = {
        "neighbours": choice.num_neighbours,
        "power": choice.power,
        "state": rows.state,
        "index": options,
    }
    if after != before:
        collection.change(smoothing=after)
    _remove_smoothed(collection.folder, but=options["kind"])
    return SmoothingReport(
        choice.num_neighbours,
        choice.power,
        choice.reason,
        len(rows.in_use()),
        len(recomputed),
        rows,
        updated,
        recall,
    )


def open_smoothed_index(collection: Collection, rows: SmoothedRows) -> Index:
    """Open the index of the smoothed rows of a collection.

    Raises:
        InputError: it is damaged.
    """
    smoothing = collection.settings.smoothing
    options = {"kind": ExactIndex.kind} if smoothing is None else smoothing["index"]
    if options["kind"] == ExactIndex.kind:
        return ExactIndex(rows.rows, rows.in_use())
    return cluster_index(collection, options, _index_file(collection.folder, options["kind"]))


def _index_file(folder: Path, kind: str) -> Path:
    return folder / f"smoothed-{kind}.faiss"


def _remove_smoothed(folder: Path, *, but: str | None = None) -> None:
    """Remove the smoothed rows and their indexes; `but` keeps the rows, and the index of a kind."""
    if but is None:
        (folder / SMOOTHED).unlink(missing_ok=True)
    for kind in KINDS:
        if kind != but:
            _index_file(folder, kind).unlink(missing_ok=True)


def _choice(collection: Collection, smooth: Smooth, power: float | None) -> SmoothingChoice:
    """Return how to smooth; a guess names the flags that change it."""
    before = collection.settings.smoothing
    if smooth is None and before is not None:
        return SmoothingChoice(before["neighbours"], float(before["power"]), "")
    if smooth != CHOOSE:
        return SmoothingChoice(int(smooth or 0), power or DEFAULT_POWER, "as given")
    rows = collection.rows()
    first: dict[int, str] = {}
    with closing(collection.images()) as images:
        for image in images.images():
            first.setdefault(image.row, image.label)
    labels = np.array([first[row] for row in rows.tolist()])
    return choose_smoothing(collection.embeddings(), labels, rows=rows, power=power)


def _same_smoothing(collection: Collection, choice: SmoothingChoice) -> SmoothedRows | None:
    """Return the smoothed rows that there are, if they are of the same K and power."""
    try:
        old = read_smoothed(collection)
    except FileNotFoundError:
        return None
    is_same = (old.num_neighbours, old.power) == (choice.num_neighbours, choice.power)
    return old if is_same else None


def _update_index(
    collection: Collection,
    rows: SmoothedRows,
    recomputed: Int64Array,
    before: dict[str, Any] | None,
) -> tuple[Index, dict[str, Any], float | None]:
    """Bring the index of the smoothed rows up to date.

    Args:
        collection: its plain index is up to date.
        rows: the smoothed rows.
        recomputed: int64 (rows,), those that changed.
        before: settings of the index that has them as they were; None to make it anew.

    Returns:
        The index, its settings, and the recall that was measured; None if it was not.
    """
    plain = collection.settings.index
    if plain["kind"] == ExactIndex.kind:
        return ExactIndex(rows.rows, rows.in_use()), {"kind": ExactIndex.kind}, None
    asked = {name: plain[name] for name in ("kind", "clusters", "target_recall") if name in plain}
    file = _index_file(collection.folder, plain["kind"])
    is_new = before is None or any(
        before.get(name) != plain.get(name) for name in ("kind", "clusters")
    )
    before = {} if before is None or is_new else before
    index: ClusterIndex = cluster_index(collection, asked | before, file)
    wanted, held = rows.in_use(), index.rows()
    added = np.union1d(np.setdiff1d(wanted, held), recomputed)
    removed = np.union1d(np.setdiff1d(held, wanted), np.intersect1d(held, recomputed))
    if len(added) or len(removed):
        index.update(rows.rows, added, removed)
    if is_new and len(held):  # a file that is there serves searches until another replaces it
        index.rebuild(rows.rows)
    recall = None
    if "target_recall" not in plain:
        index.probes = min(plain.get("probes", 1), max(1, index.num_clusters))
    elif (
        "probes" not in before
        or before.get("target_recall") != plain["target_recall"]
        or len(added) > NEW_SHARE_TO_RETUNE * len(wanted)
    ):
        truth = GroundTruth(rows.rows, wanted, queries=collection.embeddings())
        index.probes, recall = fewest_probes(index, truth, plain["target_recall"])
    return index, asked | {"probes": index.probes}, recall
