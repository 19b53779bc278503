"""The space in which questions are chosen, in a file that needs NumPy alone to be used.

What teaching learns of a question are differences of squared distances, each a sum over columns
that are linear in cached features (`training.taught.space`). The file holds the columns and how
they add up, not the features: those are in the stores of the cache folder already, by the content
of the images. So it is small, and images are found whatever their rows are in a collection.

SPACE.npz   about     JSON: what it was made of, and the stores of features
            kernel    float32 (features, columns), of the stores' features, one store after another
            picked    int64 (more columns,), features that are columns themselves
            members   float32 (all columns, weights), kernel's before picked
            weights   float32 (weights,)
"""

import copy
import io
import json
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError, atomic_path, open_regular
from deep_ranking.files.array_types import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    IntArray,
)
from deep_ranking.files.row_store import RowStore
from deep_ranking.files.stored_rows import StoredRows

ARRAYS = {"kernel": 2, "picked": 1, "members": 2, "weights": 1}
MOST_FLOATS = 1 << 24  # of columns that are kept in memory: 64 MiB
REMEDY = "remove it; it is made anew"


@dataclass(frozen=True)
class MadeOf:
    """What a space was made of.

    Attributes:
        fingerprint: of the model that teaching goes on from.
        state: `hits_of` of the collection.
        answers: that it learned from.
    """

    fingerprint: str
    state: str
    answers: int

    def is_of(self, other: "MadeOf") -> bool:
        """Return whether both are of the same model and images."""
        return (self.fingerprint, self.state) == (other.fingerprint, other.state)


@dataclass(frozen=True)
class StoredSpace:
    """The space in which questions are chosen, as a file holds it.

    Attributes:
        made_of: what it was made of.
        stores: the folder of each store of features, and the floats in its rows.
        kernel: float32 (features, columns).
        picked: int64 (more columns,).
        members: float32 (all columns, weights).
        weights: float32 (weights,).
    """

    made_of: MadeOf
    stores: Sequence[tuple[str, int]]
    kernel: Float32Array
    picked: Int64Array
    members: Float32Array
    weights: Float32Array

    @classmethod
    def of(
        cls,
        made_of: MadeOf,
        stores: Sequence[tuple[str, int]],
        kernel: Float32Array,
        members: Float64Array,
        weights: Float64Array,
    ) -> "StoredSpace":
        """Return a space without columns that are there twice, or in no distance.

        Args:
            made_of: what it is made of.
            stores: as the attribute.
            kernel: float32 (features, columns), all columns.
            members: float64 (columns, weights), how much each counts.
            weights: float64 (weights,).
        """
        kernel, places = np.unique(kernel, axis=1, return_inverse=True)
        joined = np.zeros((kernel.shape[1], members.shape[1]))
        np.add.at(joined, places.reshape(-1), members)
        used = joined.any(axis=1) & kernel.any(axis=0)
        kernel, joined = kernel[:, used], joined[used]
        is_picked = (kernel != 0).sum(axis=0) == 1  # such columns need no product
        picked = np.argmax(kernel[:, is_picked] != 0, axis=0).astype(np.int64)
        scale = kernel[picked, np.flatnonzero(is_picked)].astype(np.float64)
        joined = np.concatenate([joined[~is_picked], joined[is_picked] * scale[:, None] ** 2])
        return cls(
            made_of,
            stores,
            kernel[:, ~is_picked],
            picked,
            joined.astype(np.float32),
            weights.astype(np.float32),
        )

    @classmethod
    def read(cls, file: Path) -> "StoredSpace":
        """Read a file of `write`.

        Raises:
            InputError: it is missing or damaged.
        """
        try:
            with open_regular(file) as opened:
                held = io.BytesIO(opened.read())
            with np.load(held, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                values = {name: arrays[name] for name in ARRAYS}
            made = MadeOf(**about["made_of"])
            stores = [(str(folder), int(width)) for folder, width in about["stores"]]
            space = cls(made, stores, **values)
            space._check()
        except FileNotFoundError:
            raise InputError(f"{file}: missing") from None
        except (OSError, ValueError, TypeError, LookupError, EOFError, zipfile.BadZipFile):
            raise InputError(f"{file}: damaged; {REMEDY}") from None
        return space

    def _check(self) -> None:
        num_features = sum(width for _, width in self.stores)
        columns = self.kernel.shape[1] + len(self.picked)
        fits = (
            num_features > 0
            and all(getattr(self, name).ndim == count for name, count in ARRAYS.items())
            and len(self.kernel) == num_features
            and self.members.shape == (columns, len(self.weights))
            and self.picked.dtype == np.int64
            and ((self.picked >= 0) & (self.picked < num_features)).all()
        )
        if not fits:
            raise ValueError

    def write(self, file: Path) -> None:
        """Write it; whoever reads the file finds it whole, or as it was before.

        Raises:
            InputError: the disk is full.
        """
        about = json.dumps({"made_of": asdict(self.made_of), "stores": list(self.stores)})
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        try:
            with atomic_path(file) as temporary, temporary.open("wb") as opened:
                np.savez(opened, about=np.array(about), **arrays)
        except OSError as error:
            raise InputError(f"{file}: cannot be written ({error.strerror})") from None

    def with_images(self, contents: Sequence[bytes]) -> "SpaceOfImages":
        """Return the space of some images; no feature is read yet.

        Args:
            contents: the SHA-256 of each image's file.

        Raises:
            InputError: the features are gone, or damaged.
        """
        stores, rows = [], []
        for folder, width in self.stores:
            if not Path(folder).is_dir():
                raise InputError(f"{folder}: the features of the images are gone")
            store = RowStore(Path(folder), "features", width, np.float16)
            known = store.find()
            stores.append(store.rows())
            rows.append([known.get(content, -1) for content in contents])
        return SpaceOfImages(self, stores, np.array(rows, np.int64))


class SpaceOfImages:
    """What is learned from questions about images, as `sampling.questions.QuestionSpace` asks.

    Nothing is learned from a question about an image without features. Columns of the latest images
    are kept: those of questions that were answered are asked for each time.

    Args:
        space: the columns and weights.
        stores: the features, memory-mapped.
        rows: int64 (stores, images), the row of each image in each store; -1 for none.

    Attributes:
        space: as given.
    """

    def __init__(self, space: StoredSpace, stores: Sequence[StoredRows], rows: Int64Array) -> None:
        self.space, self._stores, self._rows = space, stores, rows
        self._has_features: BoolArray = np.all(rows >= 0, axis=0)
        num_images, num_columns = rows.shape[1], len(space.members)
        count = min(num_images, MOST_FLOATS // num_columns)
        self._lock = threading.Lock()
        self._kept = np.empty((count, num_columns), np.float32)
        self._image_of = np.full(count, -1)  # whose columns are kept at each place
        self._place_of = np.full(num_images, -1)
        self._next = 0  # the place that is filled next

    def with_weights_of(self, space: StoredSpace) -> "SpaceOfImages | None":
        """Return another space of the same images and columns; None if they are not the same.

        So is one that was learned from more answers, and what is kept of the images is kept on.
        """
        before = self.space
        same = (
            space.made_of.is_of(before.made_of)
            and list(space.stores) == list(before.stores)
            and all(
                np.array_equal(getattr(space, name), getattr(before, name))
                for name in ("kernel", "picked", "members")
            )
        )
        if not same:
            return None
        other = copy.copy(self)  # which shares the lock, too
        other.space = space
        return other

    def gradients(self, questions: IntArray) -> tuple[Float32Array, Float32Array]:
        """Return margins, float32 (questions,), and gradients, float32 (questions, weights).

        Raises:
            InputError: features of these images are damaged.
        """
        gradients = np.zeros((len(questions), len(self.space.weights)), np.float32)
        is_whole = np.array(self._has_features[questions].all(axis=1), bool)
        if is_whole.any():
            used, places = np.unique(questions[is_whole], return_inverse=True)
            with self._lock:
                columns = self._columns(used.astype(np.int64))
            query, a, b = (columns[each] for each in places.reshape(-1, 3).T)
            # (query - b)^2 - (query - a)^2, which is exact where a and b are nearly equal
            gradients[is_whole] = ((a - b) * (2 * query - a - b)) @ self.space.members
        return gradients @ self.space.weights, gradients

    def _columns(self, images: Int64Array) -> Float32Array:
        """Return the columns of some images, float32 (images, columns)."""
        columns = np.empty((len(images), len(self.space.members)), np.float32)
        places = self._place_of[images]
        columns[places >= 0] = self._kept[places[places >= 0]]
        new = images[places < 0]
        if not len(new):
            return columns
        computed = columns[places < 0] = self._computed(new)
        count = min(len(new), len(self._kept))
        filled = (self._next + np.arange(count)) % max(1, len(self._kept))
        self._place_of[self._image_of[filled][self._image_of[filled] >= 0]] = -1
        self._kept[filled], self._image_of[filled] = computed[:count], new[:count]
        self._place_of[new[:count]] = filled
        self._next = int(filled[-1] + 1) if count else 0
        return columns

    def _computed(self, images: Int64Array) -> Float32Array:
        blocks = [store[rows[images]] for store, rows in zip(self._stores, self._rows, strict=True)]
        features = np.concatenate(blocks, axis=1).astype(np.float32)
        products = features @ self.space.kernel
        columns: Float32Array = np.concatenate([products, features[:, self.space.picked]], axis=1)
        return columns
