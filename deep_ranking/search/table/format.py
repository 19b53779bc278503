"""The columns and the metadata of a table of a collection, in the format Parquet.

path                    text, relative to the folder of the images, with / between folders
class                   text; null for none
distance_to_class_mean  float32, 0 to 2: Euclidean distance to the mean of the rows of its class,
                        scaled to unit length; null without a class
probability_of_class    float32: the probability that the model's calibration gives to two images at
                        that distance; null without a class, or if the model is not calibrated
vector                  the row of the collection: a list of fixed size of float32, of unit length
content                 text, in tables of `embed` only: the SHA-256 of the image file's bytes, 64
                        lowercase hexadecimal digits

The schema's metadata holds, under `deep_ranking`, a JSON object: `version` of this format, the
`fingerprint` of the model, `dimension`, `image_size`, `root`, the folder of the images or the
address of an object store, such as s3://bucket/photos, and `folders`: what their classes are by
folders (`label`, `splits`, `by_content`).

A table may be a folder of parts: files `part-00000.parquet` and so on, whose names sort as the rows
do, each a table of this format with the same metadata. Paths rise in the order of their UTF-8 bytes
if `embed` listed them itself; of a table of paths, they keep its order. A part whose images are all
broken has no rows. Names that begin with `_` or `.` are no parts.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from deep_ranking.config import FolderConfig
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.files import InputError
from deep_ranking.files.addresses import is_address

PATH, CLASS, VECTOR, CONTENT = "path", "class", "vector", "content"
DISTANCE, PROBABILITY = "distance_to_class_mean", "probability_of_class"
SUFFIX = ".parquet"
METADATA_KEY = b"deep_ranking"
TABLE_VERSION = 1
MAX_METADATA_BYTES = 1 << 20


@dataclass(frozen=True)
class TableOrigin:
    """What the metadata of a table says of the collection that it was made of.

    Attributes:
        fingerprint: of the model.
        dimension: floats of a vector.
        image_size: side in pixels of the images that the model takes.
        root: folder of the images, absolute; or the address of an object store.
        folders: settings of `FolderConfig`, without a class file.
        precision: what the vectors were computed in, "float32" or "int8".
    """

    fingerprint: str
    dimension: int
    image_size: int
    root: str
    folders: dict[str, Any]
    precision: str

    def to_json(self) -> bytes:
        """Return the metadata."""
        return json.dumps({"version": TABLE_VERSION, **vars(self)}).encode()

    @classmethod
    def from_json(cls, text: bytes, path: Path) -> Self:
        """Read metadata, which may come from a stranger.

        Args:
            text: the metadata.
            path: the table, for errors.

        Raises:
            InputError: they are not what `to_json` returns, or of a newer version.
        """
        try:
            if len(text) > MAX_METADATA_BYTES:
                raise ValueError
            values = dict(json.loads(text))
            version = values.pop("version")
            if version != TABLE_VERSION:
                raise ValueError
            origin = cls(**{name: values[name] for name in cls.__dataclass_fields__})
            if origin._is_sane():
                return origin
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            pass
        raise InputError(
            f"{path}: its metadata {METADATA_KEY.decode()!r} are not what `index --export` of this "
            "version writes; update deep ranking, or export the table again"
        )

    def folder_config(self) -> FolderConfig:
        """Return what the classes of the images are by their folders."""
        return FolderConfig(**self.folders)

    def _is_sane(self) -> bool:
        kinds = {"label": str, "splits": bool, "by_content": bool}
        if any(type(value) is not kinds.get(name) for name, value in self.folders.items()):
            return False
        self.folder_config()
        numbers, texts = (self.dimension, self.image_size), (self.fingerprint, self.root)
        return (
            self.precision in PRECISIONS
            and all(type(number) is int and number > 0 for number in numbers)
            and all(type(text) is str and text and "\0" not in text for text in texts)
            and (is_address(self.root) or Path(self.root).is_absolute())
        )


def check_pyarrow() -> None:
    """Refuse to go on without the package that reads and writes Parquet.

    Raises:
        InputError: it is missing; with the way to get it.
    """
    if find_spec("pyarrow") is None:
        raise InputError(
            'a Parquet table needs pyarrow, not installed here: pip install "deep-ranking[parquet]"'
        )


def check_table_name(path: Path) -> None:
    """Refuse a file to write that is not named as a table, or cannot be written.

    Raises:
        InputError: its name does not end in .parquet, its folder is missing, or pyarrow is.
    """
    check_pyarrow()
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: expected a name that ends in {SUFFIX}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it, or choose another --export")


def table_schema(origin: TableOrigin, *, has_content: bool = False) -> Any:
    """Return the schema of a table, a `pyarrow.Schema`; with the column `content` if it has one."""
    import pyarrow as pa

    fields = [
        pa.field(PATH, pa.string(), nullable=False),
        pa.field(CLASS, pa.string()),
        pa.field(DISTANCE, pa.float32()),
        pa.field(PROBABILITY, pa.float32()),
        pa.field(VECTOR, pa.list_(pa.float32(), origin.dimension), nullable=False),
    ]
    if has_content:
        fields.append(pa.field(CONTENT, pa.string(), nullable=False))
    return pa.schema(fields, metadata={METADATA_KEY: origin.to_json()})


def path_problem(path: str | None) -> str | None:
    """Return what is wrong with the path of an image, relative to the root; None for nothing."""
    if not path:
        return "is empty"
    if path.startswith("/"):
        return "is absolute"
    parts = path.split("/")
    if ".." in parts:
        return "may leave the folder of the images"
    if "." in parts or "" in parts:
        return "is not in its shortest form"
    return None
