"""LiteRT as an engine: opens a compiled model in a tenth of a second, and needs no TensorFlow.

Many images are computed one on each processor: that is a tenth to a fifth faster than all
processors at one image after the other. A few are computed by all processors: so the network is
prepared once, not once for each of them. Both give the same bytes.
"""

import os
import threading
from contextlib import suppress
from typing import Any

import numpy as np

from deep_ranking.files.array_types import Float32Array, UInt8Array

MAX_THREADS = 16
MAX_BYTES = 4 << 30
"""Memory that the interpreters of all threads may take: each packs the weights for itself."""
BATCH_SIZE = 32


class LiteRTEngine:
    """A network in the format of LiteRT as an `Engine`.

    Args:
        content: the flatbuffer: float32 (1, size, size, 3) -> float32 (1, dim).
        key: a name for the content.
        precision: what it computes in, in words.
        is_for_few: whether it will compute a few images only.

    Raises:
        ValueError: the content is no such network.
    """

    batch_size = BATCH_SIZE

    def __init__(
        self, content: bytes, key: str, precision: str, *, is_for_few: bool = False
    ) -> None:
        self.key = key
        self.name = f"LiteRT, {precision}"
        self._content = content
        self._idle: list[Any] = []  # interpreters; a call takes one, or makes one more
        fitting = max(1, MAX_BYTES // (2 * max(1, len(content))))
        processors = os.cpu_count() or 1
        self.num_threads = 1 if is_for_few else min(processors, MAX_THREADS, fitting)
        self._threads_an_image = min(processors, MAX_THREADS) if is_for_few else 1
        self._places = threading.BoundedSemaphore(self.num_threads)
        interpreter = self._interpreter()
        self._idle.append(interpreter)
        shape = interpreter.get_input_details()[0]["shape"].tolist()
        output = interpreter.get_output_details()[0]["shape"].tolist()
        if len(shape) != 4 or shape != [1, shape[1], shape[1], 3] or len(output) != 2:
            raise ValueError(f"a network from {shape} to {output}")
        self.image_size, self.dimension = int(shape[1]), int(output[1])

    def embed(self, images: UInt8Array) -> Float32Array:
        """Embed images, as `Engine` says; more threads than `num_threads` wait for each other."""
        rows = np.empty((len(images), self.dimension), np.float32)
        with self._places:
            interpreter = self._interpreter()
            source = interpreter.get_input_details()[0]["index"]
            target = interpreter.get_output_details()[0]["index"]
            for number, image in enumerate(images):
                interpreter.set_tensor(source, image[None].astype(np.float32))
                interpreter.invoke()
                rows[number] = interpreter.get_tensor(target)[0]
            self._idle.append(interpreter)
        return rows

    def _interpreter(self) -> Any:
        """Return an interpreter that no other thread uses; all of them share the content."""
        with suppress(IndexError):
            return self._idle.pop()
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=self._content, num_threads=self._threads_an_image)
        interpreter.allocate_tensors()
        return interpreter
