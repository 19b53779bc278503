"""Image paths -> `tf.data` batches, which threads read in Python."""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images import PLAIN, View, read_image

Array = npt.NDArray[Any]

# When no thread has read for so long, TensorFlow has noticed that there is nothing more to read.
QUIET_SECONDS = 0.2
# Wait at most so long for the threads when the program ends.
MAX_EXIT_SECONDS = 5.0


def image_spec(size: int) -> tf.TensorSpec:
    """Return type and shape of a batch of images."""
    return tf.TensorSpec((None, size, size, 3), tf.uint8)


def padded(rows: Any, count: int) -> Array:
    """Return a batch, (rows, ...), with zeros after it, (count, ...): a network sees one shape."""
    return np.pad(rows, [(0, count - len(rows)), *[(0, 0)] * (np.ndim(rows) - 1)])


class _ReadingThreads:
    """Counts the threads of TensorFlow that read batches, and waits for them at exit.

    A thread still running Python code at interpreter shutdown crashes the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_reading = 0
        self._last_read = 0.0
        self._exiting = False
        atexit.register(self._wait)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count a thread while it reads.

        Raises:
            InterruptedError: the program is ending.
        """
        with self._lock:
            self._num_reading += 1
        try:
            if self._exiting:
                raise InterruptedError("the program is ending")
            yield
        finally:
            with self._lock:
                self._num_reading -= 1
                self._last_read = time.monotonic()

    def _wait(self) -> None:
        self._exiting = True
        deadline = time.monotonic() + MAX_EXIT_SECONDS
        while time.monotonic() < deadline:
            if not self._num_reading and time.monotonic() - self._last_read > QUIET_SECONDS:
                return
            time.sleep(0.01)


_THREADS = _ReadingThreads()


class BatchSource:
    """Batches that the threads of a `tf.data.Dataset` read.

    Attributes:
        failure: the error of the image that ended the latest iteration, if one did.
        rows_together: number of rows that belong together and are never separated.
    """

    rows_together = 1
    failure: InputError | None = None

    def prepare(self, epoch: int, model: Any) -> None:
        """Get ready for an epoch.

        Args:
            epoch: number of the epoch that begins next, from 0.
            model: the present network, from images to embeddings.
        """

    def _batches(
        self, read: Callable[[int], list[Array]], num_batches: int, specs: list[tf.TensorSpec]
    ) -> tf.data.Dataset:
        """Return a dataset of `read(0) ... read(num_batches - 1)`, in order.

        Args:
            read: returns the arrays of a batch.
            num_batches: number of batches.
            specs: type and shape of each array; uint8 and float16 become float32.
        """
        self.failure = None
        failures: dict[int, InputError] = {}

        def read_and_record_errors(batch: npt.NDArray[np.int64]) -> list[Array]:
            try:
                with _THREADS.reading():
                    return read(int(batch))
            except InputError as error:
                failures[int(batch)] = error  # threads may be ahead: the first batch counts
                self.failure = failures[min(failures)]
                raise

        def load(batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
            arrays = tf.numpy_function(
                read_and_record_errors, [batch], [spec.dtype for spec in specs]
            )
            for array, spec in zip(arrays, specs, strict=True):
                array.set_shape(spec.shape)
            return tuple(
                tf.cast(array, tf.float32) if array.dtype in (tf.uint8, tf.float16) else array
                for array in arrays
            )

        # OpenCV releases Python's lock, so these threads work in parallel. OpenCV's own threads
        # would only slow them down.
        cv2.setNumThreads(1)
        workers = os.cpu_count() or 1
        numbers = tf.data.Dataset.range(num_batches)
        return numbers.map(load, num_parallel_calls=workers, deterministic=True).prefetch(2)

    @contextmanager
    def raising_image_errors(self) -> Iterator[None]:
        """Raise an image's `InputError` itself instead of TensorFlow's error around it."""
        try:
            yield
        except tf.errors.OpError:
            if self.failure is None:
                raise
            raise self.failure from None


@dataclass(eq=False)
class ImageSource(BatchSource):
    """Batches of images in the order of their paths.

    Attributes:
        paths: image files.
        image_size: side of the images in pixels.
        batch_size: images a batch; the last batch may be short.
        views: the view of each image; None for the image itself.
        skip_broken: return black pixels for a missing or broken image instead of raising an error.
        broken: with `skip_broken`, indices of the images that could not be read so far.
    """

    paths: Sequence[str | os.PathLike[str]]
    _: KW_ONLY
    image_size: int
    batch_size: int
    views: Sequence[View] | None = None
    skip_broken: bool = False
    broken: set[int] = field(default_factory=set, init=False)

    def dataset(self) -> tf.data.Dataset:
        """Return batches of float32 (rows, image_size, image_size, 3), RGB in [0, 255]."""

        def read(batch: int) -> list[Array]:
            begin = batch * self.batch_size
            end = min(begin + self.batch_size, len(self.paths))
            return [np.stack([self._read(number) for number in range(begin, end)])]

        num_batches = -(-len(self.paths) // self.batch_size)
        batches = self._batches(read, num_batches, [image_spec(self.image_size)])
        return batches.map(lambda images: images)  # the images alone, not a tuple of them

    def _read(self, number: int) -> UInt8Array:
        try:
            view = PLAIN if self.views is None else self.views[number]
            return read_image(self.paths[number], self.image_size, view)
        except InputError:
            if not self.skip_broken:
                raise
            self.broken.add(number)
            return np.zeros((self.image_size, self.image_size, 3), np.uint8)
