"""A collection: the images of a folder, embedded once, in a folder of its own."""

from deep_ranking.search.collection.folder import Collection, moved_hint
from deep_ranking.search.collection.image_table import ImageTable
from deep_ranking.search.collection.own_files import locked
from deep_ranking.search.collection.records import GalleryImage
from deep_ranking.search.collection.settings import DTYPES, Settings
from deep_ranking.search.collection.syncing import SyncReport, fitting_batch_size, sync

__all__ = [
    "DTYPES",
    "Collection",
    "GalleryImage",
    "ImageTable",
    "Settings",
    "SyncReport",
    "fitting_batch_size",
    "locked",
    "moved_hint",
    "sync",
]
