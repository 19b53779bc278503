"""`embed_table`: embed many images into a table in parts, by one of the engines; and resume it."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deep_ranking.config import FolderConfig
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.embedding.compiled.places import compiled_precisions
from deep_ranking.embedding.embedder import Embedder, compiled_embedder
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.addresses import is_address, local_path
from deep_ranking.files.csv_lines import write_lines
from deep_ranking.files.html import paragraph
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.words import broken_lines, counted
from deep_ranking.model.header import read_header
from deep_ranking.search.bulk_embedding.listing import (
    images_of_table,
    listed_images,
    write_list,
)
from deep_ranking.search.bulk_embedding.parts import KINDS, LeftOutImage, PartMaker, PartReport
from deep_ranking.search.bulk_embedding.path_table import PathTable, is_table
from deep_ranking.search.bulk_embedding.record import Record, writing_to
from deep_ranking.search.bulk_embedding.sources import open_source
from deep_ranking.search.collection import fitting_batch_size
from deep_ranking.search.collection.precision import WORTH_COMPILING
from deep_ranking.search.indexing import folder_settings
from deep_ranking.search.table.format import check_pyarrow

FLOAT32 = PRECISIONS[0]
LOCAL, RAY = ENGINES = ("local", "ray")
PART_SIZE = 1_000
LEFT_OUT = "_left_out.csv"


@dataclass(frozen=True)
class EmbeddedTable:
    """What `embed_table` did.

    Attributes:
        path: folder of the table.
        num_rows: images in it.
        num_parts: files of the table.
        num_made: of these, those that this run made; the others were there.
        left_out: images that are not in it.
        lines: what was listed, in words.

    Example:
        >>> embed_table("photos", "embedded.parquet", model="model.h5")
        12 images, 3 classes (the first folder).
        embedded.parquet: 12 images in 1 part.
    """

    path: Path
    num_rows: int
    num_parts: int
    num_made: int
    left_out: tuple[LeftOutImage, ...]
    lines: tuple[str, ...]

    @property
    def conclusion(self) -> str:
        """One line: the rows, the parts, and what was left out."""
        images, parts = counted(self.num_rows, "image"), counted(self.num_parts, "part")
        line = f"{self.path}: {images} in {parts}"
        if self.num_made < self.num_parts:
            line += f", {self.num_made:,} of them embedded now"
        if self.left_out:
            counts = Counter(each.kind for each in self.left_out)
            kinds = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS if counts[kind])
            line += f"; {len(self.left_out):,} left out ({kinds}), named in {self.path / LEFT_OUT}"
        return f"{line}."

    def __repr__(self) -> str:
        lines = list(self.lines)
        if self.left_out:
            lines.append(f"{counted(len(self.left_out), 'image')} left out:")
            named = [(each.path, f"{each.kind}: {each.problem}") for each in self.left_out]
            lines += broken_lines(named, indent="  ")
        return "\n".join([*lines, self.conclusion])

    def _repr_html_(self) -> str:
        return "\n".join(paragraph(line) for line in repr(self).splitlines())


def embed_table(
    images: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    part_size: int = PART_SIZE,
    precision: str | None = None,
    folders: FolderConfig | None = None,
    engine: str = LOCAL,
    address: str | None = None,
    workers: int | None = None,
    when_listed: Callable[[str], None] | None = None,
) -> EmbeddedTable:
    """Embed images into a folder of Parquet files, on this machine or on a cluster.

    The folder is a table in parts, for `index_table` and other programs. Each part is written
    whole, once its images are embedded. After a stop, the same call goes on: parts that are there
    are kept, and the images are those that the first call listed. Images that cannot be read, are
    gone or have changed since then are left out, and named in `_left_out.csv` there.

    Args:
        images: a folder; the address of an object store, such as s3://bucket/photos, for which
            fsspec needs its plug-in; or a Parquet file, or the address of one, with a column `path`
            and perhaps a column `class`.
        output: folder to write, ending in .parquet. Workers of a cluster must reach it, the model
            and a folder of images under the same paths.
        model: the model file.
        root: folder or address that the paths of a Parquet file start from; None for what it names
            itself, or else its own folder.
        part_size: images of a part, 1 or more.
        precision: "float32" or "int8", which the model must be compiled in; None for "float32".
        folders: what the classes of the images are; None for the first folder.
        engine: "local", this process; or "ray", actors of Ray Data.
        address: of a Ray cluster; None for one on this machine, for as long as it takes.
        workers: actors of Ray; None for one for each machine of the cluster.
        when_listed: called with each line about the images before they are embedded.

    Returns:
        An `EmbeddedTable`.

    Example:
        >>> done = embed_table("photos", "parts.parquet", model="model.h5", part_size=5)
        >>> done.num_rows, done.num_parts
        (12, 3)

    Raises:
        InputError: a file, folder, bucket, credential or package is missing; a setting is out of
            range; `output` is of another model, other images, or other settings; no image can be
            embedded; the disk is full; or the cluster fails.
    """
    folder = Path(output)
    if part_size < 1:
        raise InputError(f"part_size must be 1 or more. Received: {part_size}")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 or more. Received: {workers}")
    if engine not in ENGINES:
        raise InputError(f"engine must be one of {', '.join(ENGINES)}. Received: {engine}")
    check_pyarrow()
    if engine == RAY:
        from deep_ranking.search.bulk_embedding.ray_engine import check_ray

        check_ray()
    tell = when_listed or (lambda _: None)
    with writing_to(folder):
        record = _record(
            folder,
            os.fspath(images),
            Path(model),
            root=root,
            part_size=part_size,
            precision=precision or FLOAT32,
            folders=folders or FolderConfig(),
            tell=tell,
        )
        maker = PartMaker(
            folder,
            record,
            open_source(record.root),
            _embedder(Path(model), record.precision, record.num_images),
        )
        reports = [maker.report(number) for number in range(record.num_parts)]
        missing = [number for number, report in enumerate(reports) if report is None]
        if len(missing) < record.num_parts:
            kept = record.num_parts - len(missing)
            tell(f"{kept:,} of {counted(record.num_parts, 'part')} are there.")
        for made in _made(maker, missing, engine=engine, address=address, workers=workers):
            reports[made.number] = made
        return _done(folder, record, [each for each in reports if each], len(missing))


def _record(
    folder: Path,
    images: str,
    model: Path,
    *,
    root: str | os.PathLike[str] | None,
    part_size: int,
    precision: str,
    folders: FolderConfig,
    tell: Callable[[str], None],
) -> Record:
    """Return the record of a table: that of an earlier run, or a new one once images are listed."""
    header = read_header(model)
    if not is_address(images):
        images = os.path.abspath(local_path(images))
    table = None
    if is_table(images):
        table = PathTable(images, None if root is None else os.fspath(root))
    elif root is not None:
        raise InputError(f"root is for a Parquet file of paths. Received: {root}, with {images}")
    source = open_source(images if table is None else table.root)
    wanted: dict[str, Any] = {
        "fingerprint": header.fingerprint,
        "precision": precision,
        "images": images,
        "root": source.root,
        "part_size": part_size,
        "folders": folder_settings(folders),
    }
    record = Record.read(folder)
    if record is not None:
        record.check_same(folder, **wanted)
        tell(f"{counted(record.num_images, 'image')}, as listed {record.listed}.")
        return record
    listed = datetime.now().astimezone().isoformat(" ", "seconds")
    if table is None:
        found, lines = listed_images(source, folders)
        num_images = write_list(folder, found, part_size)
    else:
        num_images = write_list(folder, images_of_table(table), part_size)
        lines = [f"{counted(num_images, 'image')} of {images}."]
    for line in lines:
        tell(line)
    record = Record(
        **wanted,
        dimension=header.network.embedding_size,
        image_size=header.network.image_size,
        batch_size=fitting_batch_size(header.network.seen_size),
        num_images=num_images,
        listed=listed,
        lines=lines,
    )
    record.write(folder)
    return record


def _embedder(model: Path, precision: str, num_images: int) -> Embedder:
    """Return what embeds many images; compile the model first where that pays.

    Raises:
        InputError: it is not compiled in int8, if that is asked for.
    """
    if precision != FLOAT32:
        return compiled_embedder(model, precision)
    can_compile = find_spec("tensorflow") is not None and find_spec("ai_edge_litert") is not None
    is_compiled = FLOAT32 in compiled_precisions(model, read_header(model))
    if num_images >= WORTH_COMPILING and can_compile and not is_compiled:
        from deep_ranking.embedding.compiled.compiling import compile_model

        compile_model(model, precision=FLOAT32)
    return Embedder(model, precision=FLOAT32)


def _made(
    maker: PartMaker,
    missing: list[int],
    *,
    engine: str,
    address: str | None,
    workers: int | None,
) -> Iterator[PartReport]:
    """Yield a report of each part that was missing, in any order, as it is made."""
    record = maker.record
    last = record.num_images - (record.num_parts - 1) * record.part_size
    sizes = {number: record.part_size for number in missing}
    if record.num_parts - 1 in sizes:
        sizes[record.num_parts - 1] = last
    total = sum(sizes.values())
    done = record.num_images - total
    with progress_bar(
        total=record.num_images, initial=done, title="embedding", unit="images", shown=bool(missing)
    ) as bar:
        if engine == LOCAL:
            for number in missing:
                yield maker.make(number, bar.update)
        elif missing:
            from deep_ranking.search.bulk_embedding.ray_engine import make_with_ray

            for report in make_with_ray(maker, missing, address=address, workers=workers):
                bar.update(sizes[report.number])
                yield report


def _done(
    folder: Path, record: Record, reports: Iterable[PartReport], num_made: int
) -> EmbeddedTable:
    """Name what was left out in a file, and return what was done.

    Raises:
        InputError: the table has no row.
    """
    reports = list(reports)
    left_out = tuple(each for report in reports for each in report.left_out)
    (folder / LEFT_OUT).unlink(missing_ok=True)
    if left_out:
        with atomic_path(folder / LEFT_OUT) as temporary:
            write_lines(temporary, [LeftOutImage._fields, *left_out])
    num_rows = sum(report.num_rows for report in reports)
    if not num_rows:
        images = counted(record.num_images, "image")
        raise InputError(
            f"{record.root}: none of its {images} can be embedded; {folder / LEFT_OUT} says why"
        )
    return EmbeddedTable(
        folder, num_rows, record.num_parts, num_made, left_out, tuple(record.lines)
    )
