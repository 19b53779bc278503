"""Images by path -> `tf.data` batches, read by threads that run Python."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deep_ranking.errors import InputError
from deep_ranking.images import read_image

UInt8Array = npt.NDArray[np.uint8]


class BatchSource:
    """Batches of images that threads read below a `tf.data.Dataset`.

    Args:
        image_size: side of the images in pixels.

    Attributes:
        failure: the error that ended the latest iteration, if it was an image's fault.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.failure: InputError | None = None

    def _batches(self, read: Callable[[int], UInt8Array], num_batches: int) -> tf.data.Dataset:
        """Dataset of `read(0) ... read(num_batches - 1)`, in order, as float32."""
        self.failure = None
        size = self.image_size
        failures: dict[int, InputError] = {}

        def read_or_remember(batch: npt.NDArray[np.int64]) -> UInt8Array:
            try:
                return read(int(batch))
            except InputError as error:
                failures[int(batch)] = error  # threads may be ahead: the first one counts
                self.failure = failures[min(failures)]
                raise

        def load(batch: tf.Tensor) -> tf.Tensor:
            images = tf.numpy_function(read_or_remember, [batch], tf.uint8)
            images.set_shape((None, size, size, 3))
            return tf.cast(images, tf.float32)

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
        skip_broken: bool = False,
    ) -> None:
        super().__init__(image_size)
        self.paths = paths
        self.batch_size = batch_size
        self.skip_broken = skip_broken
        self.broken: set[int] = set()

    def dataset(self) -> tf.data.Dataset:
        """Give batches of float32 (rows, image_size, image_size, 3), RGB in [0, 255]."""

        def read(batch: int) -> UInt8Array:
            begin = batch * self.batch_size
            end = min(begin + self.batch_size, len(self.paths))
            return np.stack([self._read(number) for number in range(begin, end)])

        return self._batches(read, -(-len(self.paths) // self.batch_size))

    def _read(self, number: int) -> UInt8Array:
        try:
            return read_image(self.paths[number], self.image_size)
        except InputError:
            if not self.skip_broken:
                raise
            self.broken.add(number)
            return np.zeros((self.image_size, self.image_size, 3), np.uint8)
