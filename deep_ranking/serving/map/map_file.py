"""The map of a collection as the server sends and keeps it: JSON, by a key of what it shows."""

import hashlib
import json
import os
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from deep_ranking.files.array_types import Float64Array, Int64Array
from deep_ranking.search.collection import Collection
from deep_ranking.serving.answers import in_plain_text
from deep_ranking.serving.image_ids import image_id

VERSION = 1
"""Of the way maps are made; another number makes them all anew."""
MOST_IMAGES = 500_000
LARGEST = 65535
SEED = 0
SUFFIX = ".json"


class MapImages(NamedTuple):
    """The images of a map, by path.

    Attributes:
        key: hexadecimal; what the map depends on.
        ids: of the images.
        rows: int64 (images,), of their embeddings.
        classes: int64 (images,), numbers of `names`.
        names: of the classes, as the collection has them.
        left_out: images of the collection that are too many for a map.
    """

    key: str
    ids: list[str]
    rows: Int64Array
    classes: Int64Array
    names: list[str]
    left_out: int


def read_map_images(collection: Collection) -> MapImages:
    """Read which images a map shows; of more than 500,000, so many that are drawn.

    Raises:
        InputError: the collection is damaged.
    """
    settings = collection.settings
    digest = hashlib.sha256(
        f"{VERSION} {settings.fingerprint} {settings.precision} {settings.dtype}".encode()
    )
    ids: list[str] = []
    rows: list[int] = []
    labels: list[str] = []
    with closing(collection.images()) as table, table.snapshot():
        count = len(table)
        is_shown = np.ones(count, bool)
        if count > MOST_IMAGES:
            is_shown[:] = False
            is_shown[np.random.default_rng(SEED).choice(count, MOST_IMAGES, replace=False)] = True
        # Every content begins with nothing, so these are all images.
        for is_one, (image, content) in zip(is_shown, table.of_content(b""), strict=True):
            name, label = os.fsencode(image.path), os.fsencode(image.label)
            digest.update(b"\0".join((b"", name, label, content)))
            if is_one:
                ids.append(image_id(image.path, content))
                rows.append(image.row)
                labels.append(image.label)
    names = sorted(set(labels))
    number_of = {name: number for number, name in enumerate(names)}
    return MapImages(
        digest.hexdigest(),
        ids,
        np.array(rows, np.int64),
        np.array([number_of[label] for label in labels], np.int64),
        names,
        count - len(ids),
    )


def map_body(images: MapImages, positions: Float64Array) -> bytes:
    """Return a map as JSON, as `MapAnswer` describes it.

    Args:
        images: the images.
        positions: float64 (images, 2); both axes keep their scale.
    """
    low, high = positions.min(axis=0), positions.max(axis=0)
    side = float((high - low).max()) or 1.0
    centred = (positions - (low + high) / 2) / side + 0.5
    x, y = np.rint(centred * LARGEST).astype(int).T
    counts = np.bincount(images.classes, minlength=len(images.names))
    values: dict[str, Any] = {
        "left_out": images.left_out,
        "classes": [
            {"name": in_plain_text(name), "images": int(count)}
            for name, count in zip(images.names, counts, strict=True)
        ],
        "ids": images.ids,
        "x": x.tolist(),
        "y": y.tolist(),
        "class": images.classes.tolist(),
    }
    return json.dumps(values, separators=(",", ":")).encode()
