"""Bring a collection up to date with its folder of images: embed only new contents.

A file keeps its embedding while its size, time of change, inode and time of change of the inode
are the same. Other files are hashed, and only new contents are embedded: not those of files that
were renamed, copied, or given other permissions. A sync can be stopped at any instant: the next one
neither hashes nor embeds again what this one did.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Collection as Container
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deep_ranking.datasets import LabelledImages
from deep_ranking.embedding.embed import embed_batches
from deep_ranking.embedding.engines import Engine
from deep_ranking.files import InputError, without_path
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.content_digest import content_digests, file_status
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.words import broken_lines, counted
from deep_ranking.images import decode_image, open_image
from deep_ranking.search.collection.folder import Collection, moved_hint
from deep_ranking.search.collection.image_table import ImageTable
from deep_ranking.search.collection.records import FoundFile
from deep_ranking.search.collection.settings import Settings

FILES_AT_ONCE = 2_000  # recorded in one transaction
NUM_FLOATS = 192  # that VGG16 keeps for a pixel at its widest: three layers of 64 channels
UNREADABLE = -1  # a size that no file has, so that the next sync tries the file again
LATER = "could not be read when it was to be embedded; touch it to try again"
NO_SPACE = "free some, choose another --output, or keep the embeddings in half with --dtype float16"


@dataclass(frozen=True)
class SyncReport:
    """What a sync did.

    Attributes:
        num_images: images that can be found now.
        num_embedded: embeddings that were computed.
        num_known: new or changed files with a known content: renamed, copied, touched.
        num_removed: images that are gone.
        lines: what was listed, in words: images, classes, and what was left out.
        num_damaged: embeddings that were damaged on disk, found with `checksum`; they are computed
            again.
        broken: path and problem of each image that cannot be read.
    """

    num_images: int
    num_embedded: int
    num_known: int
    num_removed: int
    lines: Sequence[str]
    num_damaged: int
    broken: list[tuple[str, str]]

    def __repr__(self) -> str:
        lines = [
            *self.lines,
            f"{counted(self.num_images, 'image')}: {self.num_embedded:,} embedded now, "
            f"{self.num_known:,} new or changed files with content known before, "
            f"{self.num_removed:,} gone.",
        ]
        if self.num_damaged:
            damaged = counted(self.num_damaged, "embedding")
            lines.append(f"{damaged} damaged on the disk: embedded again.")
        if self.broken:
            broken = counted(len(self.broken), "image")
            lines.append(f"{broken} left out because they cannot be read:")
            lines += broken_lines(self.broken, indent="  ")
        return "\n".join(lines)


def sync(
    collection: Collection,
    engine_for: Callable[[Sequence[Path]], Engine],
    *,
    checksum: bool = False,
) -> SyncReport:
    """Bring a collection up to date. The caller holds its lock.

    Args:
        collection: an open one, whose settings name the folder of images.
        engine_for: returns what embeds some images; called only if there are any.
        checksum: read every file and every embedding again, rather than trust size and times.

    Returns:
        A `SyncReport`.

    Raises:
        InputError: the folder of images is gone or empty, the embeddings are damaged, or the disk
            is full.
    """
    root = Path(collection.settings.root)
    if collection.settings.is_remote:
        raise InputError(
            f"{collection.settings.root}: an address, and images are only read from a folder here: "
            "embed what is new with `embed`, and take it in with `index --from_parquet`"
        )
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {moved_hint(collection)}")
    data = collection.settings.folder_config().read(root, keep_outside=True)
    if data.left_out.unreadable:
        raise InputError(
            f"{root / data.left_out.unreadable[0]}: may not be read, so its images would be lost "
            "from the index; allow reading it, or move it away"
        )
    damaged = collection.store.rows().damaged() if checksum else np.empty(0, np.int64)
    with closing(collection.images(writable=True)) as images:
        images.record_found(_files(data))
        changed = images.changed()
        found = images.changed(every=True) if checksum else changed
        _record_contents(images, root, found, trust_table=not checksum)
        with images.change():
            num_removed = images.remove_others()
            # A row that no image uses any more stays damaged, and nothing is embedded for it.
            num_damaged = len(np.intersect1d(damaged, images.rows())) if len(damaged) else 0
            images.forget_rows(damaged.tolist(), begin=len(collection.store))
        # For an earlier sync that was stopped, and for images that come back.
        assign_rows(images, collection, try_again=True, damaged=set(damaged.tolist()))
        num_known = images.count_known(changed)
        num_embedded = _embed(images, collection, engine_for)
        return SyncReport(
            num_images=len(images),
            num_embedded=num_embedded,
            num_known=num_known,
            num_removed=num_removed,
            lines=data.describe(),
            num_damaged=num_damaged,
            broken=images.broken(),
        )


def _files(data: LabelledImages) -> Iterator[FoundFile]:
    for path, code in zip(data.paths, data.items.codes.tolist(), strict=True):
        label = data.items.names[code]
        try:
            status = (data.root / path).stat()
        except OSError:
            yield FoundFile(path, UNREADABLE, 0, label)
            continue
        size, changed, *identity = file_status(status)
        if not stat.S_ISREG(status.st_mode):
            size = UNREADABLE
        yield FoundFile(path, size, changed, label, *identity)


def _record_contents(
    images: ImageTable, root: Path, files: list[FoundFile], *, trust_table: bool
) -> None:
    """Record the content of files, some thousands in a transaction."""
    paths = [root / file.path for file in files]
    contents = content_digests(paths, open_file=open_image, trust_table=trust_table)
    for begin in range(0, len(files), FILES_AT_ONCE):
        with images.change():
            for file, content in zip(files[begin : begin + FILES_AT_ONCE], contents, strict=False):
                if isinstance(content, bytes):
                    images.record(file, content)
                    continue
                name = hashlib.sha256(file.path.encode(errors="surrogateescape")).digest()
                images.record(FoundFile(file.path, UNREADABLE, 0, file.label), name)
                images.set_problem(name, _without_path(content, root / file.path))


def pending_of(images: ImageTable, settings: Settings) -> list[tuple[bytes, str]]:
    """Return the contents of a collection's shard that have no embedding yet, each with a path."""
    part, count = settings.shard or (1, 1)
    return [each for each in images.pending() if int.from_bytes(each[0][:8]) % count == part - 1]


def assign_rows(
    images: ImageTable,
    collection: Collection,
    *,
    try_again: bool = False,
    damaged: Container[int] = (),
) -> None:
    """Record for each pending image the row of its embedding, or what is wrong with the image.

    With `try_again`, an image that could not be read before and can be read now stays pending.
    Rows that are `damaged` count as missing.
    """
    pending = pending_of(images, collection.settings)
    rows = collection.store.find() if pending else {}
    embeddings = collection.store.rows()
    root = Path(collection.settings.root)
    with images.change():
        for content, path in pending:
            row = rows.get(content)
            if row is None or row in damaged:
                continue
            if not np.isnan(embeddings[row, 0]):
                images.set_row(content, row)
                continue
            problem = _problem(root / path)
            if problem is not None or not try_again:
                images.set_problem(content, problem or LATER)


def _problem(path: Path) -> str | None:
    """Return what is wrong with an image that could not be read; None if it can be read now."""
    try:
        decode_image(path, 32)
    except InputError as error:
        return _without_path(error, path)
    return None


def _without_path(error: InputError, path: Path) -> str:
    return without_path(error, path)


def _embed(
    images: ImageTable,
    collection: Collection,
    engine_for: Callable[[Sequence[Path]], Engine],
) -> int:
    """Embed what has no row yet; return the number of new embeddings."""
    pending = pending_of(images, collection.settings)
    if not pending:
        return 0
    store, root = collection.store, Path(collection.settings.root)
    store.check_space(len(pending), NO_SPACE)
    paths = [root / path for _, path in pending]
    engine = engine_for(paths)
    num_readable = 0

    def blocks() -> Iterator[tuple[list[bytes], Float32Array]]:
        nonlocal num_readable
        begin = 0
        with progress_bar(total=len(pending), title="embedding", unit="images") as bar:
            # A broken image keeps its place, as NaN, so that the sync after one that was stopped
            # goes on with the same batches.
            for batch in embed_batches(engine, paths, skip_broken=True):
                end = begin + len(batch.rows)
                num_readable += int(batch.readable.sum())
                yield [content for content, _ in pending[begin:end]], batch.rows
                begin = end
                bar.update(len(batch.rows))

    store.extend(blocks())
    assign_rows(images, collection)
    return num_readable


def fitting_batch_size(image_size: int) -> int:
    """Return how many images to embed at once, so that they take an eighth of the free memory.

    Args:
        image_size: side in pixels of the images that the network takes.

    Returns:
        A power of 2, from 8 to 64.
    """
    image_bytes = NUM_FLOATS * 4 * image_size**2
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = max(1, free // 8 // image_bytes)
    return int(min(64, max(8, 1 << (int(fitting).bit_length() - 1))))
