"""What `index_table` did, in words."""

from dataclasses import dataclass, field
from pathlib import Path

from deep_ranking.datasets.labels import FIRST, label_in_words
from deep_ranking.files.words import counted
from deep_ranking.search.indexing import IndexReport


@dataclass
class TakenRows:
    """What became of the rows of a table.

    Attributes:
        num_rows: rows of the table, without the parts that were taken in before.
        num_taken: those that are in the collection.
        num_known: of these, images that were in it before, of the same content.
        num_missing: those whose path is no image below the folder.
        num_relabelled: those whose class is another one than by the folders.
        broken: path and problem of each image that cannot be read.
        num_parts_known: parts of the table that were taken in before and are as they were.
    """

    num_rows: int
    num_taken: int = 0
    num_known: int = 0
    num_missing: int = 0
    num_relabelled: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    num_parts_known: int = 0


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
        if taken.num_known:
            line += f", {taken.num_known:,} of them known before"
        if taken.num_missing:
            line += f", {taken.num_missing:,} left out that name no image below the folder"
        if taken.broken:
            line += f", {len(taken.broken):,} left out whose file cannot be read"
        if taken.num_parts_known:
            line += f"; {counted(taken.num_parts_known, 'part')} as at an earlier run"
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
