"""Model + image files -> embeddings.

Reading, embedding and taking the rows overlap: threads read the images of the next batches while
those of the engine compute.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from deep_ranking.embedding.engines import Engine
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.row_store import temporary_rows
from deep_ranking.images import read_image

if TYPE_CHECKING:
    import keras

    from deep_ranking.embedding.embedder import Embedder

BATCH_SIZE = 64
BATCHES_AHEAD = 2  # of what the engine works on

Image = str | os.PathLike[str] | bytes
ImageOrPixels = Image | UInt8Array


class EmbeddedBatch(NamedTuple):
    """The rows of some images.

    Attributes:
        rows: float32 (images, dim), NaN for an image that cannot be read.
        readable: bool (images,).
    """

    rows: Float32Array
    readable: np.ndarray


@dataclass
class EngineTime:
    """How long an engine worked.

    Attributes:
        seconds: in `embed`, summed over its threads.
        num_threads: of these, at the same time.
        lock: held while a thread adds its seconds.
    """

    seconds: float = 0.0
    num_threads: int = 1
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


def embed_images(
    model: "keras.Model | Embedder",
    paths: Sequence[ImageOrPixels],
    *,
    batch_size: int = BATCH_SIZE,
    skip_broken: bool = False,
    progress: bool = False,
    out: Float32Array | None = None,
) -> Float32Array:
    """Embed image files.

    Args:
        model: a network of `build_network` or `load_model`; or an `Embedder`.
        paths: image files, the bytes of image files, or their pixels as `read_image` reads them at
            the model's size.
        batch_size: images a batch, of a network.
        skip_broken: return a row of NaN for a missing or broken image instead of raising an error.
        progress: whether to show a progress bar on standard error, if that is a terminal.
        out: float32 (images, dim) to write to, such as a memory-mapped file; None for a new array
            in memory.

    Returns:
        float32 (images, dim), rows of unit length, in the order of the paths.

    Example:
        >>> embed_images(model, ["photos/cat/0.png", "photos/dog/0.png"]).shape
        (2, 8)

    Raises:
        InputError: an image is missing or broken.
    """
    engine = engine_of(model, max(1, min(batch_size, len(paths))))
    if out is None:
        out = np.empty((len(paths), engine.dimension), np.float32)
    filled = 0
    with progress_bar(total=len(paths), title="embedding", unit="images", shown=progress) as bar:
        for batch in embed_batches(engine, paths, skip_broken=skip_broken):
            out[filled : filled + len(batch.rows)] = batch.rows
            filled += len(batch.rows)
            bar.update(len(batch.rows))
    return out


def engine_of(model: "keras.Model | Embedder", batch_size: int = BATCH_SIZE) -> Engine:
    """Return what computes a model.

    Args:
        model: as for `embed_images`.
        batch_size: images a batch, of a network.
    """
    from deep_ranking.embedding.embedder import Embedder

    if isinstance(model, Embedder):
        return model.engine(batch_size)
    from deep_ranking.embedding.engines.keras_model import KerasEngine

    return KerasEngine(model, batch_size)


def embed_batches(
    engine: Engine,
    images: Sequence[Any],
    *,
    skip_broken: bool = False,
    worked: EngineTime | None = None,
    read_pixels: Callable[[Any, int], UInt8Array] = read_image,
    num_readers: int | None = None,
) -> Iterator[EmbeddedBatch]:
    """Embed batch after batch, in the order of the images.

    Args:
        engine: what computes the rows.
        images: image files, the bytes of image files, or pixels, as for `embed_images`; or what
            `read_pixels` takes.
        skip_broken: return a row of NaN for a missing or broken image instead of raising an error.
        worked: gets the time that the engine works.
        read_pixels: reads an image at a size, on threads; it raises an `InputError` for a broken
            one.
        num_readers: threads that read; None for one a processor, which suits files on a disk.

    Yields:
        Batches of the engine's size, or of fewer where its threads share a few images; the last one
        may be short.

    Raises:
        InputError: an image is missing or broken, the first one of those.
    """
    worked = EngineTime() if worked is None else worked
    worked.num_threads = max(1, engine.num_threads)

    def read(image: Any) -> UInt8Array | None:
        if isinstance(image, np.ndarray):
            return image
        try:
            return read_pixels(image, engine.image_size)
        except InputError:
            if not skip_broken:
                raise
            return None

    def computed(reading: list[Future[UInt8Array | None]]) -> EmbeddedBatch:
        pixels = [each.result() for each in reading]
        readable = np.array([each is not None for each in pixels])
        rows = np.full((len(pixels), engine.dimension), np.nan, np.float32)
        if readable.any():
            blank = np.zeros((engine.image_size, engine.image_size, 3), np.uint8)
            batch = np.stack([blank if each is None else each for each in pixels])
            began = time.perf_counter()
            embedded = engine.embed(batch)
            with worked.lock:
                worked.seconds += time.perf_counter() - began
            rows[readable] = embedded[readable]
        return EmbeddedBatch(rows, readable)

    size = engine.batch_size
    if engine.num_threads:  # a few images for all of its threads
        size = min(size, -(-len(images) // engine.num_threads) or 1)
    cv2.setNumThreads(1)  # OpenCV's own threads would compete with these
    readers = ThreadPoolExecutor(num_readers or os.cpu_count() or 1)
    computers = ThreadPoolExecutor(max(1, engine.num_threads))
    waiting: deque[list[Future[UInt8Array | None]] | Future[EmbeddedBatch]] = deque()

    def next_batch() -> EmbeddedBatch:
        first = waiting.popleft()
        return computed(first) if isinstance(first, list) else first.result()

    try:
        for begin in range(0, len(images), size):
            part = images[begin : begin + size]
            reading = [readers.submit(read, each) for each in part]
            waiting.append(computers.submit(computed, reading) if engine.num_threads else reading)
            if len(waiting) > engine.num_threads + BATCHES_AHEAD:
                yield next_batch()
        while waiting:
            yield next_batch()
    finally:
        computers.shutdown(wait=False, cancel_futures=True)
        readers.shutdown(wait=False, cancel_futures=True)


@contextmanager
def embedded_images(
    model: "keras.Model | Embedder", paths: Sequence[Image], *, skip_broken: bool = False
) -> Iterator[Float32Array]:
    """Embed image files into a temporary file, with a progress bar and bounded memory.

    Args:
        model: as for `embed_images`.
        paths: image files.
        skip_broken: as for `embed_images`.

    Yields:
        float32 (images, dim), memory-mapped; deleted when the block ends.

    Raises:
        InputError: an image is missing or broken.
    """
    engine = engine_of(model, max(1, min(BATCH_SIZE, len(paths))))
    with temporary_rows(len(paths), engine.dimension) as rows:
        yield embed_images(model, paths, skip_broken=skip_broken, progress=True, out=rows)
