"""Images -> what the frozen layers of a network make of them, computed once and kept.

The features are kept by the layers' weights and the content of each image, so that a second run, a
moved file or a data set that has grown computes nothing twice.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from deep_ranking.embedding.batches import ImageSource
from deep_ranking.embedding.feature_store import CachedFeatures, FeatureStore
from deep_ranking.files import InputError
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.words import byte_size
from deep_ranking.images import PLAIN, View, open_image
from deep_ranking.images.augmentation import Augmentation, draw_views
from deep_ranking.model.mixed_precision import computing_in, resolved_precision

BATCH_SIZE = 64
SKIP = "--skip_broken"
# Settings that came later, by the value that leaves images as they were: features of earlier
# versions are found again.
LATER_SETTINGS = {"resized_crop": 1.0, "grayscale": 0.0}


def cache_features(
    frozen: keras.Model,
    paths: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    num_views: int = 1,
    augmentation: Augmentation | None = None,
    precision: str = "float32",
    skip_broken: bool = False,
) -> CachedFeatures:
    """Compute the features of images that are not kept yet, and give those of all.

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
        The `CachedFeatures`, (images, views).

    Raises:
        InputError: an image is missing or broken, or the disk is full.
    """
    precision = resolved_precision(precision)
    shapes = [tuple(each.shape[1:]) for each in frozen.outputs]
    store = FeatureStore(folder / _network_key(frozen, precision), shapes)
    contents = _content_digests(paths, skip_broken)
    views = [
        cached_view(content, number, augmentation, frozen.input_shape[1])
        for content in contents
        for number in range(num_views)
    ]
    files = [path for path in paths for _ in range(num_views)]
    keys = [key for key, _ in views]
    with store.lock:
        known = store.find()
        missing = {key: number for number, key in enumerate(keys) if key and key not in known}
        if missing:
            store.check_space(len(missing))
            print(
                f"Computing the frozen layers' features once: {len(missing):,} views of "
                f"{len(paths):,} images, {byte_size(len(missing) * store.row_bytes)} in "
                f"{store.folder.parent}."
            )
            numbers = list(missing.values())
            source = ImageSource(
                [files[number] for number in numbers],
                image_size=frozen.input_shape[1],
                batch_size=BATCH_SIZE,
                views=[views[number][1] for number in numbers],
                skip_broken=skip_broken,
            )
            try:
                with computing_in(precision, frozen), source.explained():
                    store.extend(_blocks(frozen, source, list(missing)))
            except InputError as error:
                hint = f"; mend the image, or leave such images out with {SKIP}"
                raise InputError(f"{error}{hint if source.failure else ''}") from None
            known = store.find()
    rows = np.array([known.get(key, -1) for key in keys], np.int64)
    return store.features(rows.reshape(len(paths), num_views))


def _blocks(
    frozen: keras.Model, source: ImageSource, keys: list[bytes]
) -> Iterator[tuple[list[bytes], list[npt.NDArray[np.float32]]]]:
    """Compute features batch after batch; images that turn out to be broken are left out."""
    begin = 0
    with progress_bar(total=len(keys), title="features", unit="views") as bar:
        for images in source.dataset():
            outputs = keras.tree.flatten(frozen.predict_on_batch(images))
            numbers = np.arange(begin, begin + len(images))
            whole = ~np.isin(numbers, list(source.broken))
            yield (
                [keys[number] for number in numbers[whole]],
                [np.asarray(each, np.float32)[whole] for each in outputs],
            )
            begin += len(images)
            bar.update(len(images))


def _network_key(frozen: keras.Model, precision: str) -> str:
    """Name for all that decides a feature, besides the image."""
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


def _content_digests(
    paths: Sequence[str | os.PathLike[str]], skip_broken: bool
) -> list[bytes | None]:
    """SHA-256 of each file; None for a missing one if that is to be left out."""

    def digest(path: str | os.PathLike[str]) -> bytes | None:
        try:
            return content_digest(path)
        except InputError as error:
            if skip_broken:
                return None
            raise InputError(f"{error}; leave such images out with {SKIP}") from None

    with ThreadPoolExecutor() as pool:
        progress = progress_bar(
            pool.map(digest, paths), total=len(paths), title="hashing", unit="images"
        )
        return list(progress)


def content_digest(path: str | os.PathLike[str]) -> bytes:
    """Give the SHA-256 of an image's file.

    Raises:
        InputError: it cannot be read, or is no file that could hold an image.
    """
    with open_image(path) as handle:
        try:
            return hashlib.file_digest(handle, "sha256").digest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def cached_view(
    content: bytes | None, number: int, augmentation: Augmentation | None, size: int
) -> tuple[bytes, View]:
    """Give key and look of a view of an image.

    Args:
        content: SHA-256 of the image's file; None for a missing one.
        number: 0 for the image itself.
        augmentation: as for `cache_features`.
        size: side of the images in pixels.

    Returns:
        The key, empty for a missing image, and the `View`.
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
