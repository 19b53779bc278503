"""Classes and folders in Milvus, for its server to look for; and whether they are up to date.

`milvus.state` in the folder of a collection is JSON: `counter`, SQLite's count of changes of
images.sqlite up to which Milvus knows everything; `fits`, whether all names fit its fields; and
`windows`, for each 16,384 rows a digest of their classes and folders as they are in Milvus. While
the count is the same, nothing has changed. Otherwise the digests tell where.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.files import InputError, atomic_path, read_text_file
from deep_ranking.search.index.milvus_schema import (
    CLASSES,
    FOLDERS,
    MOST_CLASSES,
    MOST_FOLDERS,
    MOST_NAME_BYTES,
)

if TYPE_CHECKING:
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.subset import Subset

STATE_FILE = "milvus.state"
WINDOW = 1 << 14
MOST_LABELS = 1_000  # classes in one expression
MOST_STATE_BYTES = 1 << 26

Labels = tuple[tuple[str, ...], tuple[str, ...]]
"""Classes and folders of a row, sorted."""


@dataclass
class LabelState:
    """What `milvus.state` holds."""

    counter: int = -1
    fits: bool = True
    windows: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> "LabelState":
        """Read the state; a new one where there is none, or something else."""
        try:
            text = read_text_file(folder / STATE_FILE, hint="", max_bytes=MOST_STATE_BYTES)
            values = json.loads(text)
            state = cls(int(values["counter"]), bool(values["fits"]), list(values["windows"]))
            return state if all(type(each) is str for each in state.windows) else cls()
        except (OSError, InputError, ValueError, TypeError, LookupError, RecursionError):
            return cls()

    def write(self, folder: Path) -> None:
        """Write the state, atomically."""
        with atomic_path(folder / STATE_FILE) as temporary:
            temporary.write_text(json.dumps(vars(self)), encoding="utf-8")

    def digest(self, window: int) -> str:
        """Return the digest of a window; "" for none."""
        return self.windows[window] if window < len(self.windows) else ""

    def set_digest(self, window: int, digest: str) -> None:
        """Set the digest of a window."""
        self.windows += [""] * (window + 1 - len(self.windows))
        self.windows[window] = digest


def labels_of_rows(collection: "Collection", begin: int, end: int) -> dict[int, Labels]:
    """Return the labels of the rows in use from `begin` to `end`."""
    query = "SELECT row, class, path FROM images WHERE row >= ? AND row < ? ORDER BY row"
    with closing(collection.images()) as table:
        found = table.base.execute(query, (begin, end))
        return {row: _labels(images) for row, images in groupby(found, itemgetter(0))}


def _labels(images: Iterator[tuple[int, bytes, bytes]]) -> Labels:
    classes: set[str] = set()
    folders: set[str] = set()
    for _, label, path in images:
        if label:
            classes.add(os.fsdecode(label))
        folder = os.fsdecode(path).rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return tuple(sorted(classes)), tuple(sorted(folders))


def digest_of(labels: dict[int, Labels]) -> str:
    """Return a digest of the labels of some rows."""
    return hashlib.sha256(os.fsencode(repr(sorted(labels.items())))).hexdigest()[:16]


def fields_of(labels: Labels) -> tuple[dict[str, list[str]], bool]:
    """Return the fields of a row in Milvus, and whether all names fit them."""
    values = {}
    fits = True
    for name, names, most in (
        (CLASSES, labels[0], MOST_CLASSES),
        (FOLDERS, labels[1], MOST_FOLDERS),
    ):
        kept = [each for each in names if _is_plain(each)][:most]
        fits = fits and len(kept) == len(names)
        values[name] = kept
    return values, fits


def expression_of(subset: "Subset") -> str | None:
    """Return Milvus' expression for a part of a collection; None if it is too long or not plain.

    Of images that share a row, one may be of the class and another in the folder.
    """
    parts = []
    if subset.labels is not None:
        names = sorted(subset.labels)
        if len(names) > MOST_LABELS or not all(map(_is_plain, names)):
            return None
        parts.append(f"array_contains_any({CLASSES}, {json.dumps(names, ensure_ascii=False)})")
    if subset.folder:
        if not _is_plain(subset.folder):
            return None
        parts.append(f"array_contains({FOLDERS}, {json.dumps(subset.folder, ensure_ascii=False)})")
    return " and ".join(parts) or None


def _is_plain(name: str) -> bool:
    """Return whether a name is the same in an expression as in a field."""
    try:
        return name.isprintable() and "\\" not in name and len(name.encode()) <= MOST_NAME_BYTES
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
