"""A collection: the images of a folder, embedded once, in a folder of its own."""

from deep_ranking.collection.folder import Collection, Settings
from deep_ranking.collection.image_table import GalleryImage, ImageTable
from deep_ranking.collection.syncing import SyncReport, sync

__all__ = ["Collection", "GalleryImage", "ImageTable", "Settings", "SyncReport", "sync"]
