"""`_embedding.json`: what a table in parts is made of and how; and the lock of its folder.

It is written once the images are listed. A later run with other settings is refused, so that all
parts of a table are of one model, one list of images and one size.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, get_origin

from deep_ranking.files import InputError, atomic_path, make_folder, read_text_file
from deep_ranking.search.table.format import SUFFIX, TableOrigin

RECORD, LOCK = "_embedding.json", ".lock"
VERSION = 1
OTHER_OUTPUT = "choose another --output"
MAX_BYTES = 1 << 24  # names of what was left out


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a table in parts is made of.

    Attributes:
        fingerprint: of the model.
        precision: what the vectors are computed in, "float32" or "int8".
        dimension: floats of a vector.
        image_size: side in pixels of the images that the model takes.
        batch_size: images that are embedded at once.
        images: the folder, address or Parquet file as it was given, a path as an absolute one.
        root: folder or address that the paths start from.
        folders: what the classes are: settings of `FolderConfig`.
        part_size: images of a part.
        num_images: images that were listed.
        listed: when, as ISO 8601.
        lines: what was listed, in words.
    """

    fingerprint: str
    precision: str
    dimension: int
    image_size: int
    batch_size: int
    images: str
    root: str
    folders: dict[str, Any]
    part_size: int
    num_images: int
    listed: str
    lines: list[str]

    @property
    def num_parts(self) -> int:
        """Number of parts of the table."""
        return -(-self.num_images // self.part_size)

    @property
    def origin(self) -> TableOrigin:
        """What each part says of the collection that it is of."""
        by_folders = {
            name: value
            for name, value in self.folders.items()
            if name in ("label", "splits", "by_content")
        }
        return TableOrigin(
            self.fingerprint, self.dimension, self.image_size, self.root, by_folders, self.precision
        )

    def part_path(self, folder: Path, number: int) -> Path:
        """Return the file of a part, by its number from 0."""
        digits = max(5, len(str(self.num_parts - 1)))
        return folder / f"part-{number:0{digits}d}{SUFFIX}"

    def write(self, folder: Path) -> None:
        """Write it into the folder of a table."""
        with atomic_path(folder / RECORD) as temporary:
            text = json.dumps({"version": VERSION, **asdict(self)}, indent=1)
            temporary.write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read it from the folder of a table; None if there is none yet.

        Raises:
            InputError: it is damaged, or of another version.
        """
        path = folder / RECORD
        try:
            text = read_text_file(path, hint=OTHER_OUTPUT, max_bytes=MAX_BYTES)
        except FileNotFoundError:
            return None
        try:
            values = dict(json.loads(text))
            if values.pop("version") == VERSION:
                record = cls(**values)
                if all(_is_of(record, name, kind) for name, kind in _KINDS.items()):
                    return record
        except (ValueError, TypeError, LookupError, RecursionError):
            pass
        raise InputError(f"{path}: not what `embed` of this version writes; {OTHER_OUTPUT}")

    def check_same(self, folder: Path, **wanted: Any) -> None:
        """Refuse other settings than those of the table.

        Args:
            folder: of the table, for errors.
            wanted: attributes.

        Raises:
            InputError: one of them is another one; it says which, and both values.
        """
        names = {
            "fingerprint": "the model",
            "images": "--images",
            "root": "--root",
            "folders": "classes by",
        }
        for name, value in wanted.items():
            if value != (found := getattr(self, name)):
                what = names.get(name, f"--{name}")
                one, other = (_in_words(each) for each in (found, value))
                raise InputError(
                    f"{folder}: made with {what} {one}, not {other}; give what it was made with, "
                    f"or {OTHER_OUTPUT}"
                )


def _in_words(value: Any) -> str:
    """Return a setting; those of classes, a dict, as flags."""
    if not isinstance(value, dict):
        return str(value)
    flags = [f"--{name}" if each is True else f"--{name} {each}" for name, each in value.items()]
    return " ".join(flags) or "the first folder"


_KINDS = {each.name: each.type for each in fields(Record)}


def _is_of(record: Record, name: str, kind: Any) -> bool:
    value = getattr(record, name)
    if kind is int:
        return type(value) is int and value > 0
    return isinstance(value, get_origin(kind) or kind)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make the folder of a table, and hold its lock; it goes again if no run begins in it.

    Raises:
        InputError: it is no folder of a table, cannot be written to, or another process writes to
            it.
    """
    from filelock import FileLock  # late: it imports asyncio

    if folder.suffix != SUFFIX:
        raise InputError(f"{folder}: expected the name of a folder that ends in {SUFFIX}")
    if folder.is_file():
        raise InputError(f"{folder}: is a file; `embed` writes a folder of parts: {OTHER_OUTPUT}")
    is_new = not folder.is_dir()
    make_folder(folder)
    if not (folder / RECORD).exists():
        others = sorted(name for name in os.listdir(folder) if name[0] not in "._")
        if others:
            raise InputError(
                f"{folder}: holds other files, such as {others[0]}, and no table of `embed`; "
                f"{OTHER_OUTPUT}"
            )
    try:
        with FileLock(folder / LOCK, timeout=0):
            try:
                yield
            finally:
                if is_new and not (folder / RECORD).exists():  # nothing has begun
                    shutil.rmtree(folder)
    except TimeoutError:
        raise InputError(
            f"{folder}: another process writes to it; wait for it, or stop it"
        ) from None
