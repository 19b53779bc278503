"""Features of images from the frozen layers of a network, computed once and kept on disk.

They are kept by the layers' weights and the content of each image, so that a second run, a moved
file or a data set that has grown computes nothing twice. Parts of the network that share no weights
have a store each: another branch leaves the backbone's features as they are.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deep_ranking.embedding.batches import ImageSource, padded
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float16Array, Float32Array, Int64Array, IntArray
from deep_ranking.files.content_digest import content_digests
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.row_store import RowStore
from deep_ranking.files.stored_rows import StoredRows
from deep_ranking.files.words import byte_size
from deep_ranking.images import PLAIN, View, open_image
from deep_ranking.images.augmentation import Augmentation, draw_views
from deep_ranking.model.folding import fold_batch_norms
from deep_ranking.model.keras_settings import default_settings
from deep_ranking.model.mixed_precision import computing_in, resolved_precision
from deep_ranking.model.network import weight_groups

BATCH_SIZE = 64
SKIP = "--skip_broken"
NO_SPACE = "choose another --cache_dir, fewer --cached_views or a later layer to --train_from"
# Settings that came later, by the value that leaves images as they were, so that features of
# earlier versions are still found.
LATER_SETTINGS = {"resized_crop": 1.0, "grayscale": 0.0}
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CachedFeatures:
    """Features of images, memory-mapped.

    Attributes:
        file: float16 (rows, width), all rows of a store.
        rows: int64 (images, views), the row of each view of each image, -1 where there is none.
        shapes: shapes of the arrays that a row holds, one after the other, flattened.
    """

    file: StoredRows
    rows: Int64Array
    shapes: Shapes

    def __post_init__(self) -> None:
        """Refuse a set without any features."""
        if not (self.rows >= 0).any():
            raise InputError("every image is missing or broken")

    def read(self, images: IntArray, views: IntArray) -> list[Float16Array]:
        """Read one view of each of some images.

        Args:
            images: integers (rows,).
            views: integers (rows,), the view of each.

        Returns:
            For each of `shapes` float16 (rows, *shape).

        Raises:
            InputError: the rows are damaged.
        """
        block = self.file[self.rows[images, views]]
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        return [
            part.reshape(len(block), *shape)
            for part, shape in zip(np.split(block, ends, axis=1), self.shapes, strict=True)
        ]


@dataclass(frozen=True)
class JoinedFeatures:
    """Features of the same images from several stores, read like those of one.

    Attributes:
        parts: the features in each store, of the same images and views.
        positions: for each part, where its arrays stand among those that `read` returns.
    """

    parts: Sequence[CachedFeatures]
    positions: Sequence[Sequence[int]]

    @cached_property
    def rows(self) -> Int64Array:
        """int64 (images, views): as in `CachedFeatures`, a row of the first part.

        It is -1 where any part has none.
        """
        whole = np.all([part.rows >= 0 for part in self.parts], axis=0)
        return np.where(whole, self.parts[0].rows, -1)

    @property
    def shapes(self) -> Shapes:
        """Shapes of the arrays that `read` returns, without the first axis."""
        return tuple(self._ordered([part.shapes for part in self.parts]))

    def read(self, images: IntArray, views: IntArray) -> list[Float16Array]:
        """Read one view of each of some images, as `CachedFeatures.read`."""
        return self._ordered([part.read(images, views) for part in self.parts])

    def _ordered(self, of_parts: Sequence[Sequence[Any]]) -> list[Any]:
        """Return what the parts have for each array, in the order of the arrays."""
        found = {
            position: each
            for positions, arrays in zip(self.positions, of_parts, strict=True)
            for position, each in zip(positions, arrays, strict=True)
        }
        return [found[position] for position in sorted(found)]


Features = CachedFeatures | JoinedFeatures


def feature_store(folder: Path, shapes: Shapes) -> RowStore:
    """Open the store of one network's features; a row holds arrays of these shapes, flattened.

    Raises:
        InputError: the folder cannot be created.
    """
    width = sum(math.prod(shape) for shape in shapes)
    remedy = f"remove the folder {folder} to compute these features again"
    return RowStore(folder, "features", width, np.float16, remedy=remedy)


def flattened(arrays: Sequence[Float32Array]) -> Float32Array:
    """Return rows of arrays, each (rows, *shape), as a store holds them: (rows, width)."""
    return np.concatenate(
        [array.reshape(len(array), math.prod(array.shape[1:])) for array in arrays], axis=1
    )


def cache_features(
    frozen: keras.Model,
    paths: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    num_views: int = 1,
    augmentation: Augmentation | None = None,
    precision: str = "float32",
    skip_broken: bool = False,
) -> Features:
    """Return the features of images, after computing those that are not kept yet.

    Args:
        frozen: model from images, float32 (batch, size, size, 3), to a list of tensors.
        paths: image files.
        folder: where features are kept, of any number of networks.
        num_views: versions of each image: the first is the image itself, the others are augmented,
            each by a draw that follows from the image's content and the view's number.
        augmentation: random changes; None leaves all views alike.
        precision: the arithmetic of the layers, see `resolved_precision`.
        skip_broken: whether to leave broken images out, rather than stop.

    Returns:
        The features, of (images, views).

    Raises:
        InputError: an image is missing or broken, or the disk is full.
    """
    precision = resolved_precision(precision)
    contents = _known_contents(paths, skip_broken)
    files = [path for path in paths for _ in range(num_views)]
    views = [
        cached_view(content, number, augmentation, frozen.input_shape[1])
        for content in contents
        for number in range(num_views)
    ]
    groups = weight_groups(frozen.input, frozen.outputs)
    models = [frozen]
    if len(groups) > 1:
        models = [keras.Model(frozen.input, [frozen.outputs[at] for at in each]) for each in groups]
    parts = []
    for model in models:
        shapes = tuple(tuple(each.shape[1:]) for each in model.outputs)
        store = feature_store(folder / network_key(model, precision), shapes)
        rows = _stored_rows(
            store, model, files, views, precision=precision, skip_broken=skip_broken
        )
        parts.append(CachedFeatures(store.rows(), rows.reshape(len(paths), num_views), shapes))
    return parts[0] if len(parts) == 1 else JoinedFeatures(parts, groups)


def _stored_rows(
    store: RowStore,
    frozen: keras.Model,
    files: Sequence[str | os.PathLike[str]],
    views: Sequence[tuple[bytes, View]],
    *,
    precision: str,
    skip_broken: bool,
) -> Int64Array:
    """Return the row of each view in a store, after computing those that it has not yet.

    Args:
        store: the features of one network.
        frozen: that network.
        files: the image of each view.
        views: key and `View` of each, see `cached_view`.
        precision: the arithmetic of the layers.
        skip_broken: as for `cache_features`.

    Returns:
        int64 (views,), -1 for a broken image.
    """
    keys = [key for key, _ in views]
    with store.lock:
        known = store.find()
        missing = {key: number for number, key in enumerate(keys) if key and key not in known}
        if missing:
            store.check_space(len(missing), NO_SPACE)
            print(
                f"Computing the frozen layers' features once: {len(missing):,} views of "
                f"{len(set(files)):,} images, {byte_size(len(missing) * store.row_bytes)} in "
                f"{store.folder.parent}."
            )
            numbers = list(missing.values())
            source = ImageSource(
                [files[number] for number in numbers],
                image_size=frozen.input_shape[1],
                batch_size=min(BATCH_SIZE, len(numbers)),
                views=[views[number][1] for number in numbers],
                skip_broken=skip_broken,
            )
            try:
                with default_settings():
                    folded = fold_batch_norms(frozen)
                with computing_in(precision, folded), source.raising_image_errors():
                    store.extend(_blocks(folded, source, list(missing)))
            except InputError as error:
                hint = f"; mend the image, or leave such images out with {SKIP}"
                raise InputError(f"{error}{hint if source.failure else ''}") from None
            known = store.find()
    return np.array([known.get(key, -1) for key in keys], np.int64)


def _blocks(
    frozen: keras.Model, source: ImageSource, keys: list[bytes]
) -> Iterator[tuple[list[bytes], Float32Array]]:
    """Compute features batch after batch; images that turn out to be broken are left out.

    Black images fill up the last batch, so that the network is traced once.
    """
    begin = 0
    with progress_bar(total=len(keys), title="features", unit="views") as bar:
        for images in source.dataset():
            with default_settings():
                filled = padded(images, source.batch_size)
                outputs = keras.tree.flatten(frozen.predict_on_batch(filled))
            outputs = [np.asarray(each[: len(images)], np.float32) for each in outputs]
            numbers = np.arange(begin, begin + len(images))
            whole = ~np.isin(numbers, list(source.broken))
            yield (
                [keys[number] for number in numbers[whole]],
                flattened([each[whole] for each in outputs]),
            )
            begin += len(images)
            bar.update(len(images))


def network_key(frozen: keras.Model, precision: str) -> str:
    """Return a name for everything that decides a feature, besides the image.

    Args:
        frozen: the network.
        precision: the arithmetic of its layers.
    """
    layers = [layer.get_config() for layer in frozen.layers]
    described = {
        "layers": [
            {k: v for k, v in each.items() if k not in ("dtype", "trainable")} for each in layers
        ],
        "outputs": [each._keras_history.operation.name for each in frozen.outputs],
        "precision": precision,
        "version": 3,  # of the store's files
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for weight in frozen.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()[:32]


def _known_contents(
    paths: Sequence[str | os.PathLike[str]], skip_broken: bool
) -> list[bytes | None]:
    """Return the SHA-256 of each file; with `skip_broken`, None for one that cannot be read."""
    found: list[bytes | None] = []
    for content in content_digests(paths, open_file=open_image):
        if isinstance(content, bytes):
            found.append(content)
        elif skip_broken:
            found.append(None)
        else:
            raise InputError(f"{content}; leave such images out with {SKIP}")
    return found


def cached_view(
    content: bytes | None, number: int, augmentation: Augmentation | None, size: int
) -> tuple[bytes, View]:
    """Return the key and the `View` of view `number` of an image; view 0 is the image itself.

    Args:
        content: SHA-256 of the image's file; None for a missing one, whose key is empty.
        number: number of the view.
        augmentation: as for `cache_features`.
        size: side of the images in pixels.
    """
    if content is None:
        return b"", PLAIN
    if number == 0 or augmentation is None:
        return content, PLAIN
    settings = asdict(augmentation).items() - LATER_SETTINGS.items()
    drawn = f"{json.dumps(dict(settings), sort_keys=True)} {number}".encode()
    key = hashlib.sha256(content + drawn).digest()
    (view,) = draw_views(augmentation, np.random.default_rng(int.from_bytes(key, "big")), 1, size)
    return key, view
