"""A collection made of given embeddings, so that its tests need no network."""

import hashlib
import os
from contextlib import closing

import h5py
import numpy as np

from deep_ranking.config import NetworkConfig
from deep_ranking.model.header import CONFIG_ATTRIBUTE, read_header
from deep_ranking.search.collection import Collection, Settings
from deep_ranking.search.collection.image_table import FoundFile
from deep_ranking.search.index.kinds import open_index


def make_model(path):
    """Write a model file that has a header, and no layers."""
    with h5py.File(path, "w") as file:
        file.attrs[CONFIG_ATTRIBUTE] = NetworkConfig(weights=None, image_size=32).to_json()
    return path


def make_collection(folder, root, embeddings_by_path, index=None):
    """Make a collection as a sync would, of images whose embeddings are given.

    Images of equal content share the row of the first of them.

    Args:
        folder: of the collection.
        root: folder of the images.
        embeddings_by_path: for each path relative to the root, unit floats (dim,).
        index: settings of the index; by default it is exact.
    """
    model = make_model(folder.with_suffix(".h5"))
    settings = Settings(
        fingerprint=read_header(model).fingerprint,
        dimension=len(next(iter(embeddings_by_path.values()))),
        image_size=32,
        dtype="float32",
        batch_size=4,
        root=str(root),
        index=index or {"kind": "exact"},
    )
    collection = Collection.make(folder, settings, model)
    contents = {
        path: hashlib.sha256((root / path).read_bytes()).digest() for path in embeddings_by_path
    }
    rows = {content: embeddings_by_path[path] for path, content in reversed(contents.items())}
    collection.store.extend([(list(rows), np.array(list(rows.values()), np.float32))])
    with closing(collection.images(writable=True)) as images, images.change():
        for path, content in contents.items():
            status = (root / path).stat()
            file = FoundFile(path, status.st_size, status.st_mtime_ns, os.path.dirname(path))
            images.record(file, content)
        for content, row in collection.store.find().items():
            images.set_row(content, row)
    built = open_index(collection)
    added = np.setdiff1d(collection.rows(), built.rows())
    built.update(collection.embeddings(), added, np.empty(0, np.int64))
    return collection
