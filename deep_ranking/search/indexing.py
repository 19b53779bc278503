"""What `index` does to a collection: open it to write to it, or make it, and update its index."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from deep_ranking.config import FolderConfig
from deep_ranking.embedding.engines import Engine
from deep_ranking.files import InputError
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import counted
from deep_ranking.model.header import read_header
from deep_ranking.search.collection import (
    DTYPES,
    Collection,
    Settings,
    SyncReport,
    fitting_batch_size,
    locked,
    sync,
)
from deep_ranking.search.collection.own_files import SETTINGS
from deep_ranking.search.collection.precision import check_precision, chosen_engine
from deep_ranking.search.collection.settings import VERSION
from deep_ranking.search.hit_probability import learn_hits
from deep_ranking.search.index.base import Index
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.kinds import KINDS, index_settings, open_index
from deep_ranking.search.index.tuning import GroundTruth, fewest_probes
from deep_ranking.search.smoothed_collection import (
    Smooth,
    SmoothingReport,
    check_smoothing,
    update_smoothing,
)

TARGET_RECALL = 0.95
NEW_SHARE_TO_RETUNE = 0.05  # share of new images above which probes are chosen again


@dataclass(frozen=True)
class IndexReport:
    """What indexing did.

    Attributes:
        collection: the open collection, ready to search.
        synced: what was embedded.
        index: the collection's index.
        recall: share of the 20 nearest images that a search finds, as measured; None if this was
            not measured.
        smoothing: what was smoothed; None if the collection is not smoothed, as before.

    Example:
        >>> index_images("photos.index")
        12 images, 3 classes (the first folder).
        12 images: 0 embedded now, 0 new or changed files with content known before, 0 gone.
        photos.index: 12 images in index exact. p(hit) is learned from 11 searches with ...
    """

    collection: Collection
    synced: SyncReport
    index: Index
    recall: float | None
    smoothing: SmoothingReport | None = None

    @property
    def conclusion(self) -> str:
        """One line: the images, and the index that has them."""
        settings, index = self.collection.settings, self.index
        kind = settings.index.get("uri", index.kind)
        if index.num_clusters:
            clusters = counted(index.num_clusters, "cluster")
            kind += f", {clusters} of which a search visits {index.probes}"
        if self.recall is not None:
            kind += f" (finds {self.recall:.1%} of the 20 nearest, as measured)"
        part = ""
        if settings.shard is not None:
            part = f" (shard {settings.shard[0]} of {settings.shard[1]})"
        images = counted(self.synced.num_images, "image")
        return f"{self.collection.folder}: {images}{part} in index {kind}.{self._of_hits()}"

    def _of_hits(self) -> str:
        """Return what tells the probability of a hit, in a sentence."""
        found = self.collection.hit_calibration
        if found is None:
            if not any(self.collection.classes()):
                return " Its images have no classes, so searches tell distances, and no p(hit)."
            return (
                " Its classes are too few or too small to learn p(hit) from, so searches tell none."
            )
        searches = counted(found.num_queries, "search")
        behind = self.collection.settings.hits_behind
        since = f", before {behind:,} of them changed, too few to learn it again" if behind else ""
        return f" p(hit) is learned from {searches} with its own images{since}."

    def __repr__(self) -> str:
        lines = [repr(self.synced), self.conclusion]
        return "\n".join(lines if self.smoothing is None else [*lines, repr(self.smoothing)])

    def _repr_html_(self) -> str:
        return "\n".join(paragraph(line) for line in repr(self).splitlines())


def index_images(
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    index: str | dict[str, Any] | None = None,
    clusters: int | None = None,
    probes: int | None = None,
    target_recall: float | None = None,
    dtype: str | None = None,
    shard: tuple[int, int] | None = None,
    folders: FolderConfig | None = None,
    checksum: bool = False,
    precision: str | None = None,
    smooth: Smooth = None,
    smooth_power: float | None = None,
    when_synced: Callable[[SyncReport], None] | None = None,
) -> IndexReport:
    """Embed the images of a folder once, to search them; or bring an earlier index up to date.

    Args:
        output: folder of the collection; made if missing.
        model: model file; needed only the first time.
        images: folder of images, with or without subfolders; needed only the first time.
        index: "exact", "clusters", "hierarchy" or a Milvus collection, or settings of
            `index_settings`; None for the kind it has, "exact" at first.
        clusters: clusters to make; None to choose by the number of images.
        probes: clusters that a search visits.
        target_recall: share of the 20 nearest images that a search must find, instead of `probes`.
        dtype: type of the embeddings on disk, "float32" or "float16".
        shard: (i, n) to embed only the i-th of n parts of the images, from 1.
        folders: what the classes of the images are; None for what they were, the first folder at
            first.
        checksum: read every file again instead of trusting its size and modification time.
        precision: what to compute the embeddings in, "float32" or "int8"; "auto" to take int8 if it
            finds 95 % of the nearest images, as measured on these; None for what it was, "float32"
            at first. A collection's rows are all of one precision, and so are its queries.
        smooth: make each row, for searches, the weighted mean of its K nearest: K, itself among
            them, from 2 to 1,000; "choose" to choose K and the power by searches that leave an
            image out of the collection, by its classes; 0 to search the plain rows again; None for
            what it was. The plain rows are kept beside them.
        smooth_power: of the similarity, the weight of a neighbour; None for 2, or to choose it.
        when_synced: called with the `SyncReport` before the index is updated.

    Example:
        >>> made = index_images("new.index", model="model.h5", images="photos")
        >>> made.synced.num_images
        12

    Raises:
        InputError: a file or folder is missing or damaged, none of the images can be read, another
            process writes to the collection, it was made with other settings, or it cannot be
            smoothed: its index is in Milvus, or it is a shard.
    """
    folder = Path(output)
    given = {
        "model": None if model is None else Path(model),
        "images": None if images is None else Path(images),
    }
    wanted = index_settings(index) if isinstance(index, str) else index
    with writable_collection(
        folder, dtype=dtype, shard=shard, folders=folders, **given
    ) as collection:
        kind = (wanted or collection.settings.index)["kind"]
        check_smoothing(collection, smooth, smooth_power, kind)
        check_precision(collection, precision)
        is_new = not len(collection.store)

        def engine_for(paths: Sequence[Path]) -> Engine:
            return chosen_engine(collection, paths, precision=precision, is_new=is_new)

        synced = sync(collection, engine_for, checksum=checksum)
        if when_synced is not None:
            when_synced(synced)
        if not synced.num_images:
            raise InputError(f"{collection.settings.root}: none of its images can be searched")
        updated, recall = update_index(
            collection, wanted=wanted, clusters=clusters, probes=probes, target_recall=target_recall
        )
        smoothing = update_smoothing(collection, updated, smooth=smooth, power=smooth_power)
    return IndexReport(collection, synced, updated, recall, smoothing)


@contextmanager
def writable_collection(
    folder: Path,
    *,
    model: Path | None = None,
    images: Path | None = None,
    dtype: str | None = None,
    shard: tuple[int, int] | None = None,
    folders: FolderConfig | None = None,
) -> Iterator[Collection]:
    """Open a collection as its only writer; make it if it does not exist.

    Args:
        folder: folder of the collection.
        model: model file; needed to make a collection.
        images: folder of the images; needed to make a collection. For an existing one it says
            where the images are now.
        dtype: type of the embeddings on disk, one of `DTYPES`; None for the first of these.
        shard: (i, n) to embed only the i-th of n parts of the images, from 1.
        folders: what the classes of the images are; None for what they were.

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
                collection.take_compiled(model, header)
            if images is not None and str(images.absolute()) != collection.settings.root:
                collection.change(root=str(images.absolute()))
            if folders is not None and (given := folder_settings(folders)) != folder_settings(
                collection.settings.folder_config()
            ):
                collection.change(folders=given)
            if collection.settings.version < VERSION:
                collection.change()  # before its table gets the columns of this version
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
                folders=folder_settings(folders or FolderConfig()),
            )
            collection = Collection.make(folder, settings, model)
        yield collection


def folder_settings(folders: FolderConfig) -> dict[str, Any]:
    """Return settings that differ from the defaults, as JSON can hold them."""
    values = {each.name: getattr(folders, each.name) for each in fields(FolderConfig)}
    for name in ("classes", "corrections"):
        if values[name] is not None:
            values[name] = str(values[name].absolute())
    return {
        name: value
        for name, value in values.items()
        if value not in (None, False) or (name == "splits" and value is False)
    }


def update_index(
    collection: Collection,
    *,
    wanted: dict[str, Any] | None = None,
    clusters: int | None = None,
    probes: int | None = None,
    target_recall: float | None = None,
) -> tuple[Index, float | None]:
    """Add new rows to the index, remove rows that are gone, choose its probes; learn p(hit).

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
    changes = index.bring_up_to_date(collection)
    if reclustered and isinstance(index, ClusterIndex) and changes.num_held:
        index.rebuild(collection.embeddings())
    recall = None
    if probes is not None:
        index.probes = min(probes, index.num_clusters or probes)
        settings.pop("target_recall", None)
        settings["probes"] = index.probes
    elif index.num_clusters:
        rows = collection.rows()
        many_new = "target_recall" in settings and changes.num_added > NEW_SHARE_TO_RETUNE * len(
            rows
        )
        if target_recall is not None or "probes" not in settings or many_new:
            target = target_recall or settings.get("target_recall", TARGET_RECALL)
            truth = GroundTruth(collection.embeddings(), rows)
            index.probes, recall = fewest_probes(index, truth, target)
            settings |= {"probes": index.probes, "target_recall": target}
    elif target_recall is not None and settings["kind"] not in KINDS:
        raise InputError("--target_recall is for clusters and hierarchy; use --probes")
    if settings != before:
        collection.change(index=settings)
    is_changed = changes.num_added + changes.num_removed > 0
    learn_hits(collection, index, is_changed=is_changed, is_new=not keeps_kind)
    for kind in KINDS:
        if kind != settings["kind"]:
            (collection.folder / f"{kind}.faiss").unlink(missing_ok=True)
    return index, recall
