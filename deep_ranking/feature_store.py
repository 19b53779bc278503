"""Rows of features on disk, each found again by a key: what a frozen network gives is kept.

A store is a folder with `features.bin`, rows of float16, and `keys.bin`, a digest of 32 bytes for
each. Rows are only ever appended, first the features, then their keys, so that a run that is
stopped at any instant leaves whole rows; what is torn is cut off by the next one. A lock keeps two
runs from writing at once.
"""

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from deep_ranking.errors import InputError
from deep_ranking.files import make_folder

Float16Array = npt.NDArray[np.float16]
Int64Array = npt.NDArray[np.int64]

KEY_BYTES = 32
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class CachedFeatures:
    """Features of images, memory-mapped.

    Attributes:
        file: float16 (rows, width), all rows of a store.
        rows: int64 (images, views), the row of each view of each image, -1 where there is none.
        shapes: shapes of the arrays that a row holds, one after the other, flattened.
    """

    file: Float16Array
    rows: Int64Array
    shapes: tuple[tuple[int, ...], ...]

    def read(
        self, images: npt.NDArray[np.integer], views: npt.NDArray[np.integer]
    ) -> list[Float16Array]:
        """Read one view of each of some images.

        Args:
            images: integers (rows,).
            views: integers (rows,), the view of each.

        Returns:
            For each of `shapes` float16 (rows, *shape).
        """
        block = self.file[self.rows[images, views]]
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        return [
            part.reshape(len(block), *shape)
            for part, shape in zip(np.split(block, ends, axis=1), self.shapes, strict=True)
        ]


class FeatureStore:
    """One folder of rows.

    Args:
        folder: made if it is not there.
        shapes: shapes of the arrays of a row.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, ...]]) -> None:
        self.folder = make_folder(folder)
        self.shapes = tuple(shapes)
        self.width = sum(math.prod(shape) for shape in shapes)
        self._features = self.folder / "features.bin"
        self._keys = self.folder / "keys.bin"
        self.lock = FileLock(self.folder / "lock")

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes on disk."""
        return 2 * self.width

    def find(self) -> dict[bytes, int]:
        """Give the row of each key."""
        if not (self._keys.exists() and self._features.exists()):
            return {}
        keys = self._keys.read_bytes()
        count = min(len(keys) // KEY_BYTES, self._features.stat().st_size // self.row_bytes)
        return {keys[KEY_BYTES * row : KEY_BYTES * (row + 1)]: row for row in range(count)}

    def extend(
        self, blocks: Iterable[tuple[Sequence[bytes], Sequence[npt.NDArray[np.float32]]]]
    ) -> None:
        """Append rows; the caller holds `lock`.

        Args:
            blocks: keys of some rows, and the arrays that the rows hold, each (rows, *shape).

        Raises:
            InputError: the disk is full.
        """
        count = len(self.find())
        try:
            with self._features.open("ab") as features, self._keys.open("ab") as keys:
                features.truncate(count * self.row_bytes)
                keys.truncate(count * KEY_BYTES)
                for names, arrays in blocks:
                    flat = [
                        array.reshape(len(names), math.prod(array.shape[1:])) for array in arrays
                    ]
                    rows = np.clip(np.concatenate(flat, axis=1), -LARGEST, LARGEST)
                    features.write(rows.astype(np.float16).tobytes())
                    features.flush()
                    keys.write(b"".join(names))
                    keys.flush()
        except OSError as error:
            raise InputError(f"{self._features}: cannot be written ({error.strerror})") from None

    def check_space(self, num_rows: int) -> None:
        """Complain before the work if the disk has no room for so many more rows.

        Raises:
            InputError: with what is needed and what is free.
        """
        needed, free = num_rows * self.row_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise InputError(
                f"{self.folder}: {num_rows:,} more rows of features take {needed / 1e9:.1f} GB, "
                f"and {free / 1e9:.1f} are free; choose another --cache_dir, fewer --cached_views "
                "or a later layer to --train_from"
            )

    def features(self, rows: Int64Array) -> CachedFeatures:
        """Give features by their rows.

        Args:
            rows: int64 (images, views), -1 for none.
        """
        if not (rows >= 0).any():
            raise InputError("every image is missing or broken")
        # Of whole rows alone: a run that was stopped may have left a part of one.
        whole = self._features.stat().st_size // self.row_bytes
        file = np.memmap(self._features, np.float16, "r", shape=(whole, self.width))
        return CachedFeatures(file, rows, self.shapes)
