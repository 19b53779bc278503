"""`index_table`: make a collection of a table of paths and vectors; nothing is embedded."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deep_ranking.config import FolderConfig
from deep_ranking.datasets import LabelledImages
from deep_ranking.datasets.labels import FIRST, label_in_words
from deep_ranking.files import InputError, without_path
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.content_digest import content_digests, file_status
from deep_ranking.files.words import counted
from deep_ranking.images import open_header, open_image
from deep_ranking.model.header import read_header
from deep_ranking.search.collection import (
    DTYPES,
    Collection,
    ImageTable,
    Settings,
    SyncReport,
    fitting_batch_size,
    locked,
)
from deep_ranking.search.collection.own_files import IMAGES, MODEL, SETTINGS, STORE
from deep_ranking.search.collection.precision import FLOAT32
from deep_ranking.search.collection.records import FoundFile
from deep_ranking.search.collection.syncing import NO_SPACE
from deep_ranking.search.index.kinds import index_settings
from deep_ranking.search.indexing import IndexReport, folder_settings, update_index
from deep_ranking.search.smoothed_collection import Smooth, check_smoothing, update_smoothing
from deep_ranking.search.table.reading import TableFile, TableRows

OTHER_FOLDER = "choose another --output"


@dataclass
class TakenRows:
    """What became of the rows of a table.

    Attributes:
        num_rows: rows of the table.
        num_taken: those that are in the collection.
        num_missing: those whose path is no image below the folder.
        num_relabelled: those whose class is another one than by the folders.
        broken: path and problem of each image that cannot be read.
    """

    num_rows: int
    num_taken: int = 0
    num_missing: int = 0
    num_relabelled: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class TableReport(IndexReport):
    """What `index_table` did; beside what `IndexReport` has.

    Attributes:
        table: the table.
        taken: what became of its rows.
        is_of_model: whether the table names the model; if not, its vectors are taken on trust.
        labelled_by: the label of `FolderConfig` that the next `index` takes the classes by.

    Example:
        >>> done = export_table("photos.index", "photos.parquet")
        >>> index_table("photos.parquet", "copy.index", model="model.h5").taken.num_taken
        12
    """

    table: Path = Path()
    taken: TakenRows = field(default_factory=lambda: TakenRows(0))
    is_of_model: bool = True
    labelled_by: str = FIRST

    @property
    def conclusion(self) -> str:
        """One line: the images, the index that has them, and what became of the table's rows."""
        taken = self.taken
        line = f"{super().conclusion} {taken.num_taken:,} of {counted(taken.num_rows, 'row')} of "
        line += f"{self.table} taken in"
        if taken.num_missing:
            line += f", {taken.num_missing:,} left out that name no image below the folder"
        if taken.broken:
            line += f", {len(taken.broken):,} left out whose file cannot be read"
        line += "."
        if not self.is_of_model:
            line += " It names no model: its vectors are taken on trust."
        if taken.num_relabelled:
            line += (
                f" {counted(taken.num_relabelled, 'image')} of another class than by "
                f"{label_in_words(self.labelled_by)}, which the next `index` goes by unless "
                "--classes names a file."
            )
        return line


def index_table(
    table: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    index: str | dict[str, Any] | None = None,
    clusters: int | None = None,
    probes: int | None = None,
    target_recall: float | None = None,
    dtype: str | None = None,
    folders: FolderConfig | None = None,
    smooth: Smooth = None,
    smooth_power: float | None = None,
    when_synced: Callable[[SyncReport], None] | None = None,
) -> TableReport:
    """Make a collection of a Parquet table of paths and vectors, without embedding anything.

    The table comes from `export_table` or from another program. It needs a column `path`, relative
    to the folder of the images, and a column `vector` of unit length; `class` may be there. Later
    runs of `index_images` embed only images that are new or have changed since.

    Args:
        table: the Parquet file.
        output: folder of the collection, which must not be one yet.
        model: the model that the vectors were made by; it embeds later images.
        images: folder of the images; None for the one that the table names.
        index: as for `index_images`.
        clusters: as for `index_images`.
        probes: as for `index_images`.
        target_recall: as for `index_images`.
        dtype: as for `index_images`.
        folders: what the classes of the images are; None for the column `class` or, without one,
            the first folder.
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
            the number of the first; a file or folder is missing; the output is a collection
            already; or none of the images is there. Then no collection is made.
    """
    folder, model = Path(output), Path(model)
    header = read_header(model)
    with TableFile(Path(table), header.network.embedding_size) as rows:
        if rows.origin is not None and rows.origin.fingerprint != header.fingerprint:
            raise InputError(
                f"{table}: made by the model {rows.origin.fingerprint}, not by {model}, "
                f"{header.fingerprint}, whose embeddings do not compare; give its own model"
            )
        root = _root(rows, images)
        settings = Settings(
            fingerprint=header.fingerprint,
            dimension=header.network.embedding_size,
            image_size=header.network.image_size,
            dtype=dtype or DTYPES[0],
            batch_size=fitting_batch_size(header.network.seen_size),
            root=str(root),
            folders=folder_settings(_folders(rows, folders)),
            precision=FLOAT32 if rows.origin is None else rows.origin.precision,
        )
        wanted = index_settings(index) if isinstance(index, str) else index
        kind = (wanted or settings.index)["kind"]
        check_smoothing(Collection(folder, settings), smooth, smooth_power, kind)
        with locked(folder):
            collection, taken = _made(folder, settings, model, rows, by_table=folders is None)
            report = SyncReport(
                num_images=taken.num_taken,
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
                collection,
                wanted=wanted,
                clusters=clusters,
                probes=probes,
                target_recall=target_recall,
            )
            smoothing = update_smoothing(collection, updated, smooth=smooth, power=smooth_power)
    return TableReport(
        collection,
        report,
        updated,
        recall,
        smoothing,
        table=rows.path,
        taken=taken,
        is_of_model=rows.origin is not None,
        labelled_by=_folders(rows, folders).label or FIRST,
    )


def _root(rows: TableFile, images: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the images, absolute."""
    if images is None and rows.origin is None:
        raise InputError(
            f"{rows.path}: does not say where its images are; give their folder as --images"
        )
    root = Path(rows.origin.root if images is None and rows.origin else images or "")
    if not root.is_dir():
        found = "" if images is not None else f", which {rows.path} names"
        raise InputError(f"{root}: no such folder{found}; check --images")
    return root.absolute()


def _folders(rows: TableFile, given: FolderConfig | None) -> FolderConfig:
    """Return what the classes are at the next sync."""
    if given is None:
        return FolderConfig() if rows.origin is None else rows.origin.folder_config()
    return given


def _made(
    folder: Path, settings: Settings, model: Path, rows: TableFile, *, by_table: bool
) -> tuple[Collection, TakenRows]:
    """Make the collection. It is one only when all rows are in it; the caller holds its lock."""
    if (folder / SETTINGS).exists():
        raise InputError(f"{folder}: is an index already; {OTHER_FOLDER}")
    data = settings.folder_config().read(settings.root, keep_outside=True)
    _remove_parts(folder)  # of a run that was stopped
    with _removed_on_failure(folder):
        collection = Collection.make(folder, settings, model, is_complete=False)
        collection.store.check_space(rows.num_rows, NO_SPACE)
        taken = TakenRows(rows.num_rows)
        with closing(collection.images(writable=True)) as images:
            taking = _Taking(rows, images, data, taken, by_table=by_table)
            collection.store.extend(map(taking.take, rows.blocks()))
        if not taken.num_taken:
            raise InputError(
                f"{rows.path}: none of its {counted(rows.num_rows, 'row')} names an image below "
                f"{settings.root} that can be read; check --images"
            )
        collection.change()
    return collection, taken


class _Taking:
    """Takes rows into the table of images, and says which vectors are to be stored."""

    def __init__(
        self,
        rows: TableFile,
        images: ImageTable,
        data: LabelledImages,
        taken: TakenRows,
        *,
        by_table: bool,
    ) -> None:
        self._rows = rows
        self._images = images
        self._root = data.root
        self._codes = dict(zip(data.paths, data.items.codes.tolist(), strict=True))
        self._names = data.items.names
        self._taken = taken
        self._by_table = by_table
        self._first_rows: dict[str, int] = {}
        self._num_stored = 0

    def take(self, block: TableRows) -> tuple[list[bytes], Float32Array]:
        """Record the images of some rows.

        Returns:
            The contents that are new, and their vectors: what `RowStore.extend` takes.

        Raises:
            InputError: a path is there twice.
        """
        found = []
        for number, path in enumerate(block.paths):
            first = self._first_rows.setdefault(path, block.begin + number)
            if first != block.begin + number:
                raise self._rows.refusal(
                    block.begin + number, f"has the path of row {first:,}, {path!r}; keep one"
                )
            file = self._found(path, None if block.labels is None else block.labels[number])
            if file is not None:
                found.append((number, file))
        contents = content_digests(
            [self._root / file.path for _, file in found], open_file=open_image
        )
        new: dict[bytes, int] = {}  # content -> number in the block
        with self._images.change():
            for (number, file), content in zip(found, contents, strict=True):
                if isinstance(content, InputError):
                    self._leave_out(file.path, content)
                    continue
                self._images.record(file, content)
                self._taken.num_taken += 1
                if not self._images.count_known([file]):
                    self._images.set_row(content, self._num_stored + len(new))
                    new[content] = number
        self._num_stored += len(new)
        return list(new), block.vectors[list(new.values())]

    def _found(self, path: str, label: str | None) -> FoundFile | None:
        """Return the file of a row; None, and a note, if it is no image that can be read."""
        code = self._codes.get(path)
        if code is None:
            self._taken.num_missing += 1
            return None
        file = self._root / path
        try:
            status = file_status(os.stat(file))
            with open_header(file):
                pass
        except OSError:
            self._taken.num_missing += 1
            return None
        except InputError as error:
            self._leave_out(path, error)
            return None
        by_folder = self._names[code]
        if not self._by_table or label is None:
            label = by_folder
        self._taken.num_relabelled += label != by_folder
        size, changed, *identity = status
        return FoundFile(path, size, changed, label, *identity)

    def _leave_out(self, path: str, error: InputError) -> None:
        self._taken.broken.append((path, without_path(error, self._root / path)))


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _remove_parts(folder)
        raise


def _remove_parts(folder: Path) -> None:
    """Remove the files of a collection that was never complete."""
    for name in (*STORE, IMAGES, f"{IMAGES}-journal", MODEL):
        with suppress(FileNotFoundError):
            (folder / name).unlink()
