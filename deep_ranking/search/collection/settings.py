"""What a collection was made with: the contents of its `collection.json`."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from deep_ranking.config import FolderConfig
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.files import InputError, read_text_file
from deep_ranking.files.addresses import is_address
from deep_ranking.model.hit_calibration import HitCalibration
from deep_ranking.search.index.kinds import KINDS

VERSION = 7
DTYPES = ("float32", "float16")
# The most that `NetworkConfig` allows, and batches ten times larger than any that are made.
MAX_DIMENSION, MAX_IMAGE_SIZE, MAX_BATCH_SIZE = 8192, 1024, 1024
# Chosen on held-back classes (benchmarks/search_modes.py): K and the power of smoothing.
DEFAULT_NEIGHBOURS, DEFAULT_POWER = 20, 2.0
MOST_NEIGHBOURS, MOST_POWER = 1_000, 100.0
"""The most that smoothing takes: with more, rows come near the mean of all."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that a collection was made with.

    Attributes:
        fingerprint: of the model.
        dimension: floats an embedding.
        image_size: side in pixels of the images that the model takes.
        dtype: type of the embeddings on disk.
        batch_size: images that are embedded at once. An image gets the same bytes in every batch
            of one size.
        root: folder of the images, absolute.
        shard: (i, n) for the i-th of n parts of the images, counted from 1; or None.
        index: kind and options of the index.
        folders: what the classes of the images are: settings of `FolderConfig`, the class and
            the corrections file as absolute paths.
        hits: the chance of a hit by the collection's own classes; None where too few images have
            a class with another image.
        hits_of: the digest of `state_of_classes`, of the images that there are.
        hits_sizes: the sizes in it when `hits` was learned; none if that is not known.
        hits_behind: images that have changed since.
        precision: what the rows were computed in, "float32" or "int8", and queries are.
        smoothing: how its rows are smoothed (`smoothed_collection`); None if they are not.
        version: version of the folder's format.
    """

    fingerprint: str
    dimension: int
    image_size: int
    dtype: str
    batch_size: int
    root: str
    shard: tuple[int, int] | None = None
    index: dict[str, Any] = field(default_factory=lambda: {"kind": "exact"})
    folders: dict[str, Any] = field(default_factory=dict)
    hits: HitCalibration | None = None
    hits_of: str = ""
    hits_sizes: list[int] = field(default_factory=list)
    hits_behind: int = 0
    smoothing: dict[str, Any] | None = None
    precision: str = "float32"
    version: int = VERSION

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the settings that `Collection` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: the file is something else, or of a newer version.
        """
        text = read_text_file(file, hint="index the images anew")
        try:
            values = json.loads(text)
            version = int(values["version"])
            if version <= VERSION:
                shard = values.pop("shard")
                hits = values.pop("hits", None)
                settings = cls(
                    shard=shard and (int(shard[0]), int(shard[1])),
                    hits=None if hits is None else HitCalibration.from_values(hits),
                    **values,
                )
                if settings._is_sane():
                    return settings
        except (InputError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
            version = 0
        if version > VERSION:
            raise InputError(
                f"{file}: made by a newer version of deep ranking (format {version}, this one "
                f"reads up to {VERSION}); update deep ranking, or index the images anew"
            )
        raise InputError(f"{file}: not what `index` wrote; index the images anew")

    @property
    def is_remote(self) -> bool:
        """Whether `root` is an address, such as s3://bucket/photos, whose files are not opened."""
        return is_address(self.root)

    def path_of(self, image: str) -> str:
        """Return the path or the address of an image, given its path relative to the root."""
        return (
            f"{self.root.rstrip('/')}/{image}" if self.is_remote else os.path.join(self.root, image)
        )

    def folder_config(self) -> FolderConfig:
        """Return what the classes of the images are."""
        return FolderConfig(**self.folders)

    def _has_sane_folders(self) -> bool:
        try:
            config = self.folder_config()
        except InputError:
            return False
        files = [each for each in (config.classes, config.corrections) if each is not None]
        return not any(b"\0" in os.fsencode(each) for each in files)

    def _is_sane(self) -> bool:
        numbers = (
            (self.dimension, MAX_DIMENSION),
            (self.image_size, MAX_IMAGE_SIZE),
            (self.batch_size, MAX_BATCH_SIZE),
        )
        texts = (self.fingerprint, self.root, self.index["kind"], self.hits_of)
        return (
            self.dtype in DTYPES
            and self.precision in PRECISIONS
            and all(type(number) is int and 0 < number <= most for number, most in numbers)
            and all(type(text) is str for text in texts)
            and type(self.hits_sizes) is list
            and all(type(number) is int for number in (*self.hits_sizes, self.hits_behind))
            and b"\0" not in os.fsencode(self.root)
            and _has_sane_numbers(self.index)
            and (self.smoothing is None or _is_sane_smoothing(self.smoothing))
            and all(type(self.index.get(name, "")) is str for name in ("uri", "name", "type"))
            and (self.index["kind"] != "milvus" or "uri" in self.index)
            and self._has_sane_folders()
            and (self.shard is None or 1 <= self.shard[0] <= self.shard[1])
        )


def _has_sane_numbers(index: dict[str, Any]) -> bool:
    return (
        all(type(index.get(name, 1)) is int for name in ("probes", "clusters"))
        and index.get("probes", 1) >= 1
        and index.get("clusters", 0) >= 0
        and 0 < index.get("target_recall", 1) <= 1
    )


def _is_sane_smoothing(smoothing: dict[str, Any]) -> bool:
    return (
        type(smoothing["neighbours"]) is int
        and 2 <= smoothing["neighbours"] <= MOST_NEIGHBOURS
        and 0 < float(smoothing["power"]) <= MOST_POWER
        and type(smoothing["state"]) is str
        and smoothing["index"]["kind"] in KINDS
        and _has_sane_numbers(smoothing["index"])
    )
