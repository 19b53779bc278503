"""Images by path -> `tf.data` batches, read by threads that run Python."""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.images import PLAIN, View, read_image

Array = npt.NDArray[Any]

# After so long without a batch, TensorFlow has noticed that there are no more to read.
QUIET_SECONDS = 0.2
LONGEST_END = 5.0


def image_spec(size: int) -> tf.TensorSpec:
    """Type and shape of a batch of images."""
    return tf.TensorSpec((None, size, size, 3), tf.uint8)


class _Readers:
    """The threads that read batches below TensorFlow, which come to rest before the program ends.

    One that is in the midst of Python when Python itself ends takes the program down with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work = 0
        self._last = 0.0
        self._ending = False
        atexit.register(self._rest)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count a thread while it reads.

        Raises:
            InterruptedError: the program is ending.
        """
        with self._lock:
            self._at_work += 1
        try:
            if self._ending:
                raise InterruptedError("the program is ending")
            yield
        finally:
            with self._lock:
                self._at_work -= 1
                self._last = time.monotonic()

    def _rest(self) -> None:
        self._ending = True
        deadline = time.monotonic() + LONGEST_END
        while time.monotonic() < deadline:
            if not self._at_work and time.monotonic() - self._last > QUIET_SECONDS:
                return
            time.sleep(0.01)


_READERS = _Readers()


class BatchSource:
    """Batches that threads read below a `tf.data.Dataset`.

    Attributes:
        failure: the error that ended the latest iteration, if it was an image's fault.
        rows_together: rows of a batch that belong together.
    """

    rows_together = 1

    def __init__(self) -> None:
        self.failure: InputError | None = None

    def prepare(self, epoch: int, model: Any) -> None:
        """Get ready for an epoch.

        Args:
            epoch: number of the epoch that is about to begin, from 0.
            model: the network as it is then, from images to embeddings.
        """

    def _batches(
        self, read: Callable[[int], list[Array]], num_batches: int, specs: list[tf.TensorSpec]
    ) -> tf.data.Dataset:
        """Dataset of what `read(0) ... read(num_batches - 1)` give, in order.

        Args:
            read: gives the arrays of a batch.
            num_batches: how many there are.
            specs: type and shape of each array; 8-bit pixels and half floats become float32.
        """
        self.failure = None
        failures: dict[int, InputError] = {}

        def read_or_remember(batch: npt.NDArray[np.int64]) -> list[Array]:
            try:
                with _READERS.at_work():
                    return read(int(batch))
            except InputError as error:
                failures[int(batch)] = error  # threads may be ahead: the first one counts
                self.failure = failures[min(failures)]
                raise

        def load(batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
            arrays = tf.numpy_function(read_or_remember, [batch], [spec.dtype for spec in specs])
            for array, spec in zip(arrays, specs, strict=True):
                array.set_shape(spec.shape)
            return tuple(
                tf.cast(array, tf.float32) if array.dtype in (tf.uint8, tf.float16) else array
                for array in arrays
            )

        # OpenCV decodes and samples outside of Python's lock, so threads do it side by side; its
        # own threads would only get in their way.
        cv2.setNumThreads(1)
        workers = os.cpu_count() or 1
        numbers = tf.data.Dataset.range(num_batches)
        return numbers.map(load, num_parallel_calls=workers, deterministic=True).prefetch(2)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise an image's fault as the `InputError` that it is, not as TensorFlow wraps it."""
        try:
            yield
        except tf.errors.OpError:
            if self.failure is None:
                raise
            raise self.failure from None


class ImageSource(BatchSource):
    """Images by path, as they are.

    Args:
        paths: image files.
        image_size: side of the images in pixels.
        batch_size: images a batch; the last batch may be short.
        views: how each image is seen; None for as it is.
        skip_broken: give black pixels for a missing or broken image, rather than stop.

    Attributes:
        broken: with `skip_broken`, indices of the images that could not be read so far.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        image_size: int,
        batch_size: int,
        views: Sequence[View] | None = None,
        skip_broken: bool = False,
    ) -> None:
        super().__init__()
        self.paths = paths
        self.image_size = image_size
        self.batch_size = batch_size
        self.views = views
        self.skip_broken = skip_broken
        self.broken: set[int] = set()

    def dataset(self) -> tf.data.Dataset:
        """Give batches of float32 (rows, image_size, image_size, 3), RGB in [0, 255]."""

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
