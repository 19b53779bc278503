"""Rows of numbers in a temporary file, so that memory stays bounded."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from deep_ranking.files.errors import InputError


@contextmanager
def temporary_rows(count: int, width: int) -> Iterator[npt.NDArray[np.float32]]:
    """Give rows for the embeddings or features of images, whose room on the disk is reserved.

    Args:
        count: images.
        width: numbers of each.

    Yields:
        float32 (count, width), zeros, memory-mapped; gone when the block ends.

    Raises:
        InputError: the disk is full.
    """
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):  # or a full disk would end the process (SIGBUS)
                os.posix_fallocate(file.fileno(), 0, max(1, 4 * count * width))
            rows = np.memmap(file, np.float32, "w+", shape=(count, width))
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room for the embeddings of {count:,} images "
                f"({error.strerror}); free some, or name another folder in TMPDIR"
            ) from None
        yield rows
