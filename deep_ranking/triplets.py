"""The triplet file: `query,positive,negative`, one triplet a line, no header.

Fields are image paths, quoted as in CSV only where a name needs it (a comma, a quote), so that the
files of earlier systems read as they are. Written paths are relative to the file's folder, with
"/" between folders. Bytes that are not UTF-8 are kept as the file system has them.
"""

import csv
import io
import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deep_ranking.errors import InputError
from deep_ranking.files import atomic_path
from deep_ranking.path_lines import BYTE_ORDER_MARK, find_images_of, read_lines

Int32Array = npt.NDArray[np.int32]

COLUMNS = ("query", "positive", "negative")


@dataclass(frozen=True)
class Triplets:
    """The triplets of a file: a table of paths, and three indices into it a triplet.

    Attributes:
        file: the triplet file; triplet i stands in its line i + 1.
        paths: image paths as the file has them, each once, in order of appearance.
        rows: int32 (triplets, 3), indices into `paths`: query, positive, negative.
    """

    file: Path
    paths: list[str]
    rows: Int32Array

    def __len__(self) -> int:
        """Give the number of triplets."""
        return len(self.rows)


def write_triplets(
    path: str | os.PathLike[str], paths: Sequence[str], blocks: Iterable[npt.NDArray[np.integer]]
) -> int:
    """Write a triplet file, streamed and atomic: `path` appears when it is complete.

    Args:
        path: file to write.
        paths: image paths, as they are to stand in the file: relative to the file's folder.
        blocks: integer arrays (triplets, 3) of indices into `paths`, as `sample_triplets` yields.

    Returns:
        The number of triplets written.

    Raises:
        InputError: the file cannot be written, or a path holds a line break.
    """
    fields = [_field(image_path) for image_path in paths]
    count = 0
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as handle,
    ):
        for block in blocks:
            handle.writelines(
                f"{fields[query]},{fields[positive]},{fields[negative]}\n"
                for query, positive, negative in block.tolist()
            )
            count += len(block)
    return count


def _field(path: str) -> str:
    if "\n" in path or "\r" in path:
        raise InputError(f"{path!r}: a path with a line break cannot stand in a triplet file")
    if "," not in path and '"' not in path and not path.startswith(BYTE_ORDER_MARK):
        return path
    line = io.StringIO()
    csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL).writerow([path])
    return line.getvalue()


def read_triplets(path: str | os.PathLike[str]) -> Triplets:
    """Read a triplet file.

    Args:
        path: a triplet file; lines may end in LF or CRLF, and .gz is decompressed.

    Returns:
        The `Triplets`; 12 bytes a triplet, and each path once.

    Raises:
        InputError: there is no such file, it is no text or empty, or a line has not three fields;
            with path and line.
    """
    path = Path(path)
    indices: dict[str, int] = {}
    rows = array("i")
    for line, fields in read_lines(path, kind="triplet", hint="make it with triplet_sampler.py"):
        if len(fields) != len(COLUMNS):
            found = f"{len(fields)} field{'s' * (len(fields) != 1)}" if fields else "an empty line"
            raise InputError(
                f"{path}:{line}: expected query,positive,negative, received {found}; "
                "quote a path that has commas in it"
            )
        if not all(fields):
            raise InputError(f"{path}:{line}: the {COLUMNS[fields.index('')]} is empty")
        rows.extend(indices.setdefault(field, len(indices)) for field in fields)
    if not rows:
        raise InputError(f"{path}: no triplets in this file; sample some with triplet_sampler.py")
    table = np.frombuffer(rows, np.int32).reshape(-1, len(COLUMNS))  # (triplets, 3)
    return Triplets(path, list(indices), table)


def resolve_paths(triplets: Triplets, dataset_dir: str | os.PathLike[str] | None) -> list[str]:
    """Find the folder that the paths of a triplet file are relative to, once for the whole file.

    Tried in turn: `dataset_dir`, the folder of the triplet file, the working folder (where the
    blog's own files start from). The first that holds any image of the file is taken.

    Args:
        triplets: triplets of a file.
        dataset_dir: folder to try first.

    Returns:
        A path for each of `triplets.paths`. Whether each image exists is not checked.

    Raises:
        InputError: no image is in any of the folders, or `dataset_dir` is none.
    """
    folders = [triplets.file.parent, Path()]
    if dataset_dir is not None:
        if not Path(dataset_dir).is_dir():
            raise InputError(f"{dataset_dir}: no such folder; check --dataset")
        folders.insert(0, Path(dataset_dir))
    return find_images_of(
        triplets.file,
        triplets.paths,
        folders,
        "put the file into the folder that its paths start from, or train with --dataset FOLDER",
    )
