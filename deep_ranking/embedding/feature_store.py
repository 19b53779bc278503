"""What a frozen network gives for images, on disk: rows of float16 of several arrays each."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float16Array, Int64Array
from deep_ranking.files.row_store import RowStore

NO_SPACE = "choose another --cache_dir, fewer --cached_views or a later layer to --train_from"


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
    """One folder of rows; `lock` keeps two runs from writing to it at once.

    Args:
        folder: made if it is not there.
        shapes: shapes of the arrays of a row.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = tuple(shapes)
        width = sum(math.prod(shape) for shape in shapes)
        self._store = RowStore(folder, "features", width, np.float16)
        self.folder = self._store.folder
        self.row_bytes = self._store.row_bytes
        self.find = self._store.find
        self.lock = FileLock(folder / "lock")

    def extend(
        self, blocks: Iterable[tuple[Sequence[bytes], Sequence[npt.NDArray[np.float32]]]]
    ) -> None:
        """Append rows; the caller holds `lock`.

        Args:
            blocks: keys of some rows, and the arrays that the rows hold, each (rows, *shape).

        Raises:
            InputError: the disk is full.
        """
        self._store.extend(
            (
                names,
                np.concatenate(
                    [array.reshape(len(names), math.prod(array.shape[1:])) for array in arrays],
                    axis=1,
                ),
            )
            for names, arrays in blocks
        )

    def check_space(self, num_rows: int) -> None:
        """Complain before the work if the disk has no room for so many more rows.

        Raises:
            InputError: with what is needed and what is free.
        """
        self._store.check_space(num_rows, NO_SPACE)

    def features(self, rows: Int64Array) -> CachedFeatures:
        """Give features by their rows.

        Args:
            rows: int64 (images, views), -1 for none.
        """
        if not (rows >= 0).any():
            raise InputError("every image is missing or broken")
        return CachedFeatures(self._store.rows(), rows, self.shapes)
