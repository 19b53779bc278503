"""Bring a collection up to date with its folder of images: only what is new is embedded.

A file whose size and time of change are as before is taken to be as before; of others the content
decides, so that a file that was renamed or copied is not embedded again. Stopped at any instant,
the next sync goes on: what was hashed or embedded is not done twice.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images import class_of, decode_image, list_images, open_image
from deep_ranking.search.collection.folder import Collection, Settings
from deep_ranking.search.collection.image_table import FoundFile, ImageTable

if TYPE_CHECKING:
    import keras

FILES_AT_ONCE = 2_000  # hashed before they are entered
NUM_FLOATS = 192  # that VGG16 keeps for a pixel at its widest: three layers of 64 channels
UNREADABLE = -1  # size that no file has: it is tried again by the next sync
LATER = "could not be read when it was to be embedded; touch it to try again"
NO_SPACE = "free some, choose another --output, or keep the embeddings in half with --dtype float16"


@dataclass(frozen=True)
class SyncReport:
    """What a sync did.

    Attributes:
        num_images: images that can be found now.
        num_embedded: embeddings that were computed.
        num_known: new or changed files whose content was known already: renamed, copied, touched.
        num_removed: images that are gone.
        num_unlistable: files left out for a line break in their name.
        broken: path and problem of each image that cannot be read.
    """

    num_images: int
    num_embedded: int
    num_known: int
    num_removed: int
    num_unlistable: int
    broken: list[tuple[str, str]]


def sync(
    collection: Collection, load_model: Callable[[], "keras.Model"], *, checksum: bool = False
) -> SyncReport:
    """Bring a collection up to date; the caller holds its lock.

    Args:
        collection: an open one, whose settings name the folder of images.
        load_model: gives the model; called only if there is something to embed.
        checksum: read every file again, rather than trust size and time of change.

    Returns:
        A `SyncReport`.

    Raises:
        InputError: the folder of images is gone or empty, or the disk is full.
    """
    root = Path(collection.settings.root)
    paths, num_unlistable = list_images(root)
    with closing(collection.images(writable=True)) as images:
        images.note_found(_files(root, paths))
        changed = images.changed()
        _enter(images, root, images.changed(every=True) if checksum else changed)
        with images.change():
            num_removed = images.remove_others()
            images.forget_rows(len(collection.store))
        # Of an earlier sync that was stopped, or of images that come back.
        take_rows(images, collection, try_again=True)
        num_known = images.count_known(changed)
        num_embedded = _embed(images, collection, load_model)
        return SyncReport(
            num_images=len(images),
            num_embedded=num_embedded,
            num_known=num_known,
            num_removed=num_removed,
            num_unlistable=num_unlistable,
            broken=images.broken(),
        )


def in_shard(content: bytes, shard: tuple[int, int] | None) -> bool:
    """Whether a content belongs to the i-th of n shards, from 1."""
    return shard is None or int.from_bytes(content[:8]) % shard[1] == shard[0] - 1


def _files(root: Path, paths: list[str]) -> Iterator[FoundFile]:
    for path in paths:
        try:
            status = (root / path).stat()
        except OSError:
            yield FoundFile(path, UNREADABLE, 0)
            continue
        size = status.st_size if stat.S_ISREG(status.st_mode) else UNREADABLE
        yield FoundFile(path, size, status.st_mtime_ns)


def _enter(images: ImageTable, root: Path, files: list[FoundFile]) -> None:
    """Hash files, and enter them, some thousands at a time."""

    def hashed(file: FoundFile) -> tuple[FoundFile, bytes, str | None]:
        problem = "not a regular file, or gone"
        if file.size != UNREADABLE:
            try:
                with open_image(root / file.path) as handle:
                    return file, hashlib.file_digest(handle, "sha256").digest(), None
            except InputError as error:
                problem = str(error).removeprefix(f"{root / file.path}: ")
            except OSError as error:
                problem = f"cannot be read ({error.strerror})"
        name = hashlib.sha256(file.path.encode(errors="surrogateescape")).digest()
        return FoundFile(file.path, UNREADABLE, 0), name, problem

    with (
        ThreadPoolExecutor() as pool,
        progress_bar(total=len(files), title="hashing", unit="images") as bar,
    ):
        for begin in range(0, len(files), FILES_AT_ONCE):
            with images.change():
                for file, content, problem in pool.map(
                    hashed, files[begin : begin + FILES_AT_ONCE]
                ):
                    images.put(file, class_of(file.path), content)
                    if problem is not None:
                        images.set_problem(content, problem)
                    bar.update()


def pending_of(images: ImageTable, settings: Settings) -> list[tuple[bytes, str]]:
    """Give the contents of a collection's shard that are to be embedded, each with a path."""
    pending = images.pending()
    return [each for each in pending if in_shard(each[0], settings.shard)]


def take_rows(images: ImageTable, collection: Collection, *, try_again: bool = False) -> None:
    """Enter what is embedded: the row of each image, or what is wrong with it.

    With `try_again`, an image that could not be read then, and now can, is left to be embedded.
    """
    pending = pending_of(images, collection.settings)
    rows = collection.store.find() if pending else {}
    embeddings = collection.store.rows()
    root = Path(collection.settings.root)
    with images.change():
        for content, path in pending:
            row = rows.get(content)
            if row is None:
                continue
            if not np.isnan(embeddings[row, 0]):
                images.set_row(content, row)
                continue
            problem = _problem(root / path)
            if problem is not None or not try_again:
                images.set_problem(content, problem or LATER)


def _problem(path: Path) -> str | None:
    """What is wrong with an image that could not be read; None for nothing, any more."""
    try:
        decode_image(path, 32)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _embed(
    images: ImageTable, collection: Collection, load_model: Callable[[], "keras.Model"]
) -> int:
    """Embed what has no row yet; give the number of new embeddings."""
    pending = pending_of(images, collection.settings)
    if not pending:
        return 0
    store, root = collection.store, Path(collection.settings.root)
    store.check_space(len(pending), NO_SPACE)
    model = load_model()
    from deep_ranking.embedding.batches import ImageSource
    from deep_ranking.embedding.embed import embed_batches

    source = ImageSource(
        [root / path for _, path in pending],
        image_size=model.input_shape[1],
        batch_size=collection.settings.batch_size,
        skip_broken=True,
    )

    def blocks() -> Iterator[tuple[list[bytes], npt.NDArray[np.float32]]]:
        begin = 0
        with progress_bar(total=len(pending), title="embedding", unit="images") as bar:
            for rows in embed_batches(model, source):
                # A broken image keeps its place, as NaN, so that a sync that was stopped goes on
                # with the same batches.
                numbers = range(begin, begin + len(rows))
                rows[[number in source.broken for number in numbers]] = np.nan
                yield [pending[number][0] for number in numbers], rows
                begin += len(rows)
                bar.update(len(rows))

    with source.explained():
        store.extend(blocks())
    take_rows(images, collection)
    return len(pending) - len(source.broken)


def fitting_batch_size(image_size: int) -> int:
    """Choose how many images to embed at once, so that they take an eighth of the free memory.

    Args:
        image_size: side in pixels at which the network looks at images.

    Returns:
        A power of 2, from 8 to 64.
    """
    image_bytes = NUM_FLOATS * 4 * image_size**2
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = max(1, free // 8 // image_bytes)
    return int(min(64, max(8, 1 << (int(fitting).bit_length() - 1))))
