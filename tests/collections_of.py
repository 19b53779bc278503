"""A collection made of given embeddings, so that its tests need no network."""

import hashlib
import os
import sqlite3
from contextlib import closing

import h5py
import numpy as np

from deep_ranking.config import NetworkConfig
from deep_ranking.files.content_digest import file_status
from deep_ranking.model.header import CALIBRATION_ATTRIBUTE, CONFIG_ATTRIBUTE, read_header
from deep_ranking.search.collection import Collection, Settings
from deep_ranking.search.collection.records import FoundFile
from deep_ranking.search.index.kinds import open_index

OLD_TABLE = """
CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY,   -- relative to the root, as the file system's bytes
    class BLOB NOT NULL,     -- the first folder of the path, likewise; empty for none
    size INTEGER NOT NULL,   -- bytes and time of change of the file whose content is known:
    changed INTEGER NOT NULL,  -- while both are the same, so is the content
    content BLOB NOT NULL,   -- SHA-256 of the file
    row INTEGER,             -- of the embedding; NULL until there is one
    problem TEXT             -- why there is none, for a broken image
) WITHOUT ROWID
"""


def make_model(path, config=None, calibration=None, **settings):
    """Write a model file that has a header, and no layers."""
    config = config or NetworkConfig(weights=None, image_size=32, **settings)
    with h5py.File(path, "w") as file:
        file.attrs[CONFIG_ATTRIBUTE] = config.to_json()
        if calibration is not None:
            file.attrs[CALIBRATION_ATTRIBUTE] = calibration.to_json()
    return path


def make_collection(folder, root, embeddings_by_path, index=None, **options):
    """Make a collection as a sync would, of images whose embeddings are given.

    Images of equal content share the row of the first of them.

    Args:
        folder: of the collection.
        root: folder of the images.
        embeddings_by_path: for each path relative to the root, unit floats (dim,).
        index: settings of the index; by default it is exact.
        options: the model's `calibration`, and other `Settings`.
    """
    dimension = len(next(iter(embeddings_by_path.values())))
    calibration = options.pop("calibration", None)
    model = make_model(folder.with_suffix(".h5"), calibration=calibration, embedding_size=dimension)
    values = {
        "fingerprint": read_header(model).fingerprint,
        "dimension": dimension,
        "image_size": 32,
        "dtype": "float32",
        "batch_size": 4,
        "root": str(root),
        "index": index or {"kind": "exact"},
    }
    settings = Settings(**values | options)
    collection = Collection.make(folder, settings, model)
    contents = {
        path: hashlib.sha256((root / path).read_bytes()).digest() for path in embeddings_by_path
    }
    rows = {content: embeddings_by_path[path] for path, content in reversed(contents.items())}
    collection.store.extend([(list(rows), np.array(list(rows.values()), np.float32))])
    with closing(collection.images(writable=True)) as images, images.change():
        for path, content in contents.items():
            size, changed, *identity = file_status((root / path).stat())
            file = FoundFile(path, size, changed, os.path.dirname(path), *identity)
            images.record(file, content)
        for content, row in collection.store.find().items():
            images.set_row(content, row)
    built = open_index(collection)
    added = np.setdiff1d(collection.rows(), built.rows())
    built.update(collection.embeddings(), added, np.empty(0, np.int64))
    return collection


def make_table_old(file):
    """Turn the table of a collection into one of versions 1 and 2 of `collection.json`."""
    with closing(sqlite3.connect(file)) as base:
        rows = base.execute(
            "SELECT path, class, size, changed, content, row, problem FROM images"
        ).fetchall()
        base.execute("DROP TABLE images")
        base.execute(OLD_TABLE)
        base.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        base.commit()
