"""`index_table`: make a collection of a table of paths and vectors; nothing is embedded."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep_ranking.config import FolderConfig
from deep_ranking.datasets.labels import FIRST
from deep_ranking.files import InputError
from deep_ranking.files.addresses import is_address
from deep_ranking.model.header import ModelHeader, read_header
from deep_ranking.search.collection import (
    DTYPES,
    Collection,
    Settings,
    SyncReport,
    fitting_batch_size,
    locked,
)
from deep_ranking.search.collection.own_files import IMAGES, MODEL, PARTS, SETTINGS, STORE
from deep_ranking.search.collection.precision import FLOAT32
from deep_ranking.search.index.kinds import index_settings
from deep_ranking.search.indexing import folder_settings, update_index
from deep_ranking.search.smoothed_collection import Smooth, check_smoothing, update_smoothing
from deep_ranking.search.table.format import TableOrigin
from deep_ranking.search.table.parts import Known, TableParts, read_known, write_known
from deep_ranking.search.table.report import TableReport, TakenRows
from deep_ranking.search.table.taking import ByContent, ByFile, Finder, take_rows

OTHER_FOLDER = "choose another --output"


def index_table(
    table: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    index: str | dict[str, Any] | None = None,
    clusters: int | None = None,
    probes: int | None = None,
    target_recall: float | None = None,
    dtype: str | None = None,
    folders: FolderConfig | None = None,
    checksum: bool = False,
    smooth: Smooth = None,
    smooth_power: float | None = None,
    when_synced: Callable[[SyncReport], None] | None = None,
) -> TableReport:
    """Make a collection of a Parquet table of paths and vectors, without embedding anything.

    The table comes from `export_table`, from `embed` or from another program. It needs a column
    `path`, relative to the folder of the images, and a column `vector` of unit length; `class` may
    be there. With a column `content`, the SHA-256 of each image file, no image is opened. Later
    runs of `index_images` embed only images that are new or have changed since.

    A collection that there is gets what is new in the table; nothing is removed. Parts that it has
    are not read again. The memory needed does not grow with the rows of a table with `content`;
    SQLite sorts them in TMPDIR, where they take some 500 bytes a row for a while.

    Args:
        table: the Parquet file, or a folder of them.
        output: folder of the collection; made if it does not exist.
        model: the model that the vectors were made by; it embeds later images. Needed only to make
            a collection.
        images: folder of the images; None for the one that the table names.
        index: as for `index_images`.
        clusters: as for `index_images`.
        probes: as for `index_images`.
        target_recall: as for `index_images`.
        dtype: as for `index_images`.
        folders: what the classes of the images are; None for the column `class` or, without one,
            the first folder.
        checksum: read parts again that are as they were when they were taken in.
        smooth: as for `index_images`.
        smooth_power: as for `index_images`.
        when_synced: as for `index_images`.

    Example:
        >>> done = export_table("photos.index", "photos.parquet")
        >>> made = index_table("photos.parquet", "again.index", model="model.h5", images="photos")
        >>> made.collection.search("photos/cat/0.png", top=1)[0][0].label
        'cat'

    Raises:
        InputError: the table is damaged, of another model, or has rows that cannot be taken, with
            the number of the first; a file or folder is missing; or none of the images is there.
            Then no collection is made, and one that there is stays as it was.
    """
    folder = Path(output)
    wanted = index_settings(index) if isinstance(index, str) else index
    given = _Given(
        Path(table),
        None if model is None else Path(model),
        None if images is None else Path(images),
        dtype,
        folders,
    )
    is_new = not (folder / SETTINGS).exists()
    if is_new:  # before anything is written
        parts, settings = given.of_new_collection()
        _check_smoothing(Collection(folder, settings), smooth, smooth_power, wanted)
    with locked(folder):
        known: Known = {}
        if is_new:
            if (folder / SETTINGS).exists():
                raise InputError(f"{folder}: was made meanwhile; run the same command again")
            _remove_parts(folder)  # of a run that was stopped
            with _removed_on_failure(folder):
                collection = Collection.make(folder, settings, given.made_by, is_complete=False)
                taken = given.take(collection, parts)
                collection.change()
        else:
            collection = Collection.open(folder)
            _check_smoothing(collection, smooth, smooth_power, wanted)
            known = {} if checksum else read_known(folder)
            parts = given.of_collection(collection, known)
            taken = given.take(collection, parts)
        write_known(folder, parts.now_known(known))
        with closing(collection.images()) as held:
            num_images = len(held)
        report = SyncReport(
            num_images=num_images,
            num_embedded=0,
            num_known=0,
            num_removed=0,
            lines=[collection.describe()],
            num_damaged=0,
            broken=taken.broken,
        )
        if when_synced is not None:
            when_synced(report)
        updated, recall = update_index(
            collection, wanted=wanted, clusters=clusters, probes=probes, target_recall=target_recall
        )
        smoothing = update_smoothing(collection, updated, smooth=smooth, power=smooth_power)
    return TableReport(
        collection,
        report,
        updated,
        recall,
        smoothing,
        table=parts.path,
        taken=taken,
        is_of_model=parts.origin is not None or not parts.parts,
        labelled_by=collection.settings.folder_config().label or FIRST,
    )


@dataclass(frozen=True)
class _Given:
    """What the caller gives, to be checked against the table and the collection."""

    table: Path
    model: Path | None
    images: Path | None
    dtype: str | None
    folders: FolderConfig | None

    @property
    def made_by(self) -> Path:
        """The model file that a new collection needs."""
        if self.model is None:
            raise InputError(
                f"{self.table}: give the model that its vectors were made by, to make an index"
            )
        return self.model

    def of_new_collection(self) -> tuple[TableParts, Settings]:
        """Open the table, and return the settings of the collection to make of it."""
        header = read_header(self.made_by)
        parts = TableParts(self.table, header.network.embedding_size)
        self._check_model(parts.origin, header.fingerprint, self.made_by)
        root = self._root(parts)
        folders = self.folders
        if folders is None:
            folders = FolderConfig() if parts.origin is None else parts.origin.folder_config()
        return parts, Settings(
            fingerprint=header.fingerprint,
            dimension=header.network.embedding_size,
            image_size=header.network.image_size,
            dtype=self.dtype or DTYPES[0],
            batch_size=fitting_batch_size(header.network.seen_size),
            root=root,
            folders=folder_settings(folders),
            precision=FLOAT32 if parts.origin is None else parts.origin.precision,
        )

    def of_collection(self, collection: Collection, known: Known) -> TableParts:
        """Open the table; refuse it if it does not fit a collection that there is."""
        settings, folder = collection.settings, collection.folder
        header: ModelHeader | None = None if self.model is None else read_header(self.model)
        if header is not None:
            collection.check_model(header.fingerprint)
        parts = TableParts(self.table, settings.dimension, known=known)
        self._check_model(parts.origin, settings.fingerprint, collection.model)
        if settings.shard is not None:
            raise InputError(f"{folder}: is a shard of a folder of images; {OTHER_FOLDER}")
        if self.dtype not in (None, settings.dtype):
            raise InputError(f"{folder}: made with --dtype {settings.dtype}; {OTHER_FOLDER}")
        if self.folders is not None:
            raise InputError(
                f"{folder}: is an index already, whose classes a table does not change; run `index "
                f"--output {folder}` with these flags, without --from_parquet"
            )
        if not parts.parts:
            return parts
        precision = FLOAT32 if parts.origin is None else parts.origin.precision
        if parts.origin is not None and precision != settings.precision:
            raise InputError(
                f"{self.table}: was computed in {precision}, and {folder} in {settings.precision}; "
                f"{OTHER_FOLDER}"
            )
        if (root := self._root(parts)) != settings.root:
            raise InputError(
                f"{self.table}: of images in {root}, and {folder} of those in {settings.root}; if "
                f"these are the same, give --images {settings.root}, or {OTHER_FOLDER}"
            )
        return parts

    def take(self, collection: Collection, parts: TableParts) -> TakenRows:
        """Take the rows of the table into the collection."""
        taken = TakenRows(parts.num_rows, num_parts_known=parts.num_known)
        if not parts.parts:
            return taken
        settings = collection.settings
        finder: Finder
        if parts.has_contents:
            finder = ByContent(settings.folder_config())
        else:
            data = settings.folder_config().read(settings.root, keep_outside=True)
            finder = ByFile(data, taken, by_table=self.folders is None)
        take_rows(collection, parts, finder, taken)
        if not taken.num_taken:
            rows = "1 row" if parts.num_rows == 1 else f"{parts.num_rows:,} rows"
            raise InputError(
                f"{parts.path}: none of its {rows} names an image below {settings.root} that can "
                "be read; check --images"
            )
        return taken

    def _check_model(self, origin: TableOrigin | None, fingerprint: str, model: Path) -> None:
        if origin is not None and origin.fingerprint != fingerprint:
            raise InputError(
                f"{self.table}: made by the model {origin.fingerprint}, not by {model}, "
                f"{fingerprint}, whose embeddings do not compare; give its own model"
            )

    def _root(self, parts: TableParts) -> str:
        """Return the folder of the images, absolute, or their address."""
        if self.images is None and parts.origin is None:
            raise InputError(
                f"{parts.path}: does not say where its images are; give their folder as --images"
            )
        root = str(self.images) if self.images is not None or parts.origin is None else ""
        root = root or (parts.origin.root if parts.origin else "")
        if parts.has_contents:
            if self.folders is not None:
                raise InputError(
                    f"{parts.path}: states the contents of images, which are not looked at, so "
                    "--label, --classes, --corrections, --splits and --by_content have no effect: "
                    "its column 'class' has the classes"
                )
            return root if is_address(root) else os.path.abspath(root)
        if is_address(root):
            raise InputError(
                f"{parts.path}: has no column 'content', so its images must be read, and {root} "
                "cannot; make the table with `embed`, which writes that column"
            )
        if not Path(root).is_dir():
            found = "" if self.images is not None else f", which {parts.path} names"
            raise InputError(f"{root}: no such folder{found}; check --images")
        return str(Path(root).absolute())


def _check_smoothing(
    collection: Collection, smooth: Smooth, power: float | None, wanted: dict[str, Any] | None
) -> None:
    kind = (wanted or collection.settings.index)["kind"]
    check_smoothing(collection, smooth, power, kind)


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _remove_parts(folder)
        raise


def _remove_parts(folder: Path) -> None:
    """Remove the files of a collection that was never complete."""
    for name in (*STORE, IMAGES, f"{IMAGES}-journal", MODEL, PARTS):
        with suppress(FileNotFoundError):
            (folder / name).unlink()
