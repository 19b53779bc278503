"""The triplet file: `query,positive,negative`, one triplet a line, no header.

Fields are image paths, quoted as in CSV only where a name needs it (a comma, a quote), so that the
files of earlier systems read as they are. Written paths are relative to the file's folder, with
"/" between folders. Bytes that are not UTF-8 are kept as the file system has them.

A file whose name ends in .gz is compressed. A set of files, `triplets-00000-of-00016.txt.gz` to
`triplets-00015-of-00016.txt.gz`, is read as one, by the name of any of them or a pattern.
"""

import csv
import glob
import gzip
import io
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError, atomic_paths
from deep_ranking.files.array_types import Int32Array
from deep_ranking.files.csv_lines import BYTE_ORDER_MARK, read_lines
from deep_ranking.images import resolve_image_paths

COLUMNS = ("query", "positive", "negative")
COMPRESSED = ".gz"
LINES_AT_ONCE = 1 << 13  # what fits a processor's cache: twice as fast as whole blocks
MAX_PADDING = 4  # times the bytes of all paths that they may take when filled up to the longest
SHARD = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})(?P<suffix>(\.[^.]+)*)", re.DOTALL)


@dataclass(frozen=True)
class Triplets:
    """The triplets of a file: a table of paths, and three indices into it a triplet.

    Attributes:
        file: the triplet file, or the first of a set.
        paths: image paths as the file has them, each once, in order of appearance.
        rows: int32 (triplets, 3), indices into `paths`: query, positive, negative.
        further: of each further file of a set, the number of its first triplet, and the file.
    """

    file: Path
    paths: list[str]
    rows: Int32Array
    further: tuple[tuple[int, Path], ...] = ()

    def __len__(self) -> int:
        """Give the number of triplets."""
        return len(self.rows)

    def place(self, triplet: int) -> str:
        """Give file and line of a triplet, as PATH:LINE."""
        begun = [each for each in ((0, self.file), *self.further) if each[0] <= triplet]
        start, file = begun[-1]
        return f"{file}:{triplet - start + 1}"


def write_triplets(
    path: str | os.PathLike[str],
    paths: Sequence[str],
    blocks: Iterable[npt.NDArray[np.integer]],
    *,
    shards: int | None = None,
) -> int:
    """Write a triplet file, streamed and atomic: `path` appears when it is complete.

    Args:
        path: file to write; compressed if its name ends in .gz, to the same bytes each time.
        paths: image paths, as they are to stand in the file: relative to the file's folder.
        blocks: integer arrays (triplets, 3) of indices into `paths`, as `sample_triplets` yields.
        shards: write a set of so many files instead, which triplets go to in turn; see
            `shard_path`. They appear when all are complete.

    Returns:
        The number of triplets written.

    Raises:
        InputError: the file cannot be written, or a path holds a line break.
    """
    lines = _Lines(_fields(paths))
    path = Path(path)
    files = [path] if shards is None else [shard_path(path, i, shards) for i in range(shards)]
    count = 0
    with atomic_paths(files) as temporaries, ExitStack() as opened:
        handles = [opened.enter_context(_create(each)) for each in temporaries]
        drawing = opened.enter_context(ThreadPoolExecutor(max_workers=1))
        for block in _ahead(drawing, blocks):
            for number, handle in enumerate(handles):
                part = block[(number - count) % len(files) :: len(files)]
                for begin in range(0, len(part), LINES_AT_ONCE):
                    handle.write(lines.of(part[begin : begin + LINES_AT_ONCE]))
            count += len(block)
    return count


def _ahead(
    pool: ThreadPoolExecutor, blocks: Iterable[npt.NDArray[np.integer]]
) -> Iterator[npt.NDArray[np.integer]]:
    """Give each block while the pool draws the next."""
    iterator = iter(blocks)
    drawn = pool.submit(next, iterator, None)
    while (block := drawn.result()) is not None:
        drawn = pool.submit(next, iterator, None)
        yield block


def shard_path(path: Path, number: int, count: int) -> Path:
    """Give the name of a file of a set: `a.txt.gz` -> `a-00000-of-00016.txt.gz`."""
    suffix = "".join(path.suffixes[-2:]) if path.suffix == COMPRESSED else path.suffix
    stem = path.name.removesuffix(suffix)
    return path.with_name(f"{stem}-{number:05}-of-{count:05}{suffix}")


class _Lines:
    """Lines of triplets, many at once.

    Args:
        fields: each image's path as it stands in the file, and a line break behind it.
    """

    def __init__(self, fields: bytes) -> None:
        self._fields: list[bytes] = []
        signs = np.frombuffer(fields, np.uint8)
        ends = np.flatnonzero(signs == ord("\n"))
        lengths = np.diff(ends, prepend=-1) - 1
        width = int(lengths.max(initial=0))
        if width * len(lengths) > MAX_PADDING * len(fields):  # few are that long
            self._fields = fields.split(b"\n")
            return
        # A table of all, each with its comma, whose short rows are filled up with zeros.
        self._table = np.full((len(lengths), width + 1), ord(","), np.uint8)
        self._padded = bool((lengths < width).any())
        if self._padded:
            places = np.arange(width) < lengths[:, None]
            self._table[:, :width][places] = signs[signs != ord("\n")]
            self._table[:, :width][~places] = 0
        else:
            self._table[:, :width] = signs.reshape(-1, width + 1)[:, :width]

    def of(self, triplets: npt.NDArray[np.integer]) -> bytes | bytearray:
        """Give the lines of triplets."""
        if fields := self._fields:
            return b"".join(
                b"%b,%b,%b\n" % (fields[query], fields[positive], fields[negative])
                for query, positive, negative in triplets.tolist()
            )
        padded = bytearray(triplets.size * self._table.shape[1])
        lines = np.frombuffer(padded, np.uint8).reshape(*triplets.shape, -1)
        np.take(
            self._table, triplets, axis=0, out=lines, mode="clip"
        )  # "raise" would copy once more
        lines[:, -1, -1] = ord("\n")
        return padded.translate(None, b"\0") if self._padded else padded  # no path has a zero in it


def field_bytes(paths: Sequence[str]) -> npt.NDArray[np.int64]:
    """Give how many bytes each path takes in a triplet file, quotes included: int64 (paths,).

    Raises:
        InputError: a path has a line break.
    """
    ends = np.flatnonzero(np.frombuffer(_fields(paths), np.uint8) == ord("\n"))
    return np.diff(ends, prepend=-1) - 1


def _fields(paths: Sequence[str]) -> bytes:
    """Give paths as they stand in the file, a line break behind each."""
    text = "\n".join([*paths, ""])
    odd = any(sign in text for sign in (",", '"', "\r", BYTE_ORDER_MARK))
    if odd or text.count("\n") > len(paths):
        return b"".join(_field(path) + b"\n" for path in paths)
    return text.encode("utf-8", "surrogateescape")  # all at once, as nearly always


def _field(path: str) -> bytes:
    if "\n" in path or "\r" in path:
        raise InputError(f"{path!r}: a path with a line break cannot stand in a triplet file")
    if "," in path or '"' in path or path.startswith(BYTE_ORDER_MARK):
        line = io.StringIO()
        csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL).writerow([path])
        path = line.getvalue()
    return path.encode("utf-8", "surrogateescape")


@contextmanager
def _create(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if path.suffix == COMPRESSED:
            # Neither name nor time in it: the same triplets are the same bytes.
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:
                yield cast(BinaryIO, compressed)
        else:
            yield file


def read_triplets(path: str | os.PathLike[str]) -> Triplets:
    """Read a triplet file, or a set of them.

    Args:
        path: a triplet file; lines may end in LF or CRLF, and .gz is decompressed. Or any file of a
            set, or a pattern with `*`, `?` or `[` of files that are read one after the other, in
            the order of their names.

    Returns:
        The `Triplets`; 12 bytes a triplet, and each path once.

    Raises:
        InputError: there is no such file, it is no text or empty, or a line has not three fields;
            with path and line; or a file of the set is missing.
    """
    files = triplet_files(Path(path))
    indices: dict[str, int] = {}
    rows = array("i")
    starts = []
    for file in files:
        starts.append((len(rows) // len(COLUMNS), file))
        _read_file(file, indices, rows)
    if not rows:
        raise InputError(f"{path}: no triplets in this file; sample some with triplet_sampler.py")
    table = np.frombuffer(rows, np.int32).reshape(-1, len(COLUMNS))  # (triplets, 3)
    return Triplets(files[0], list(indices), table, tuple(starts[1:]))


def triplet_files(path: Path) -> list[Path]:
    """Give the files that a path stands for: itself, the set that it is of, or a pattern's.

    Raises:
        InputError: no file is like the pattern, or files of a set are missing.
    """
    files = [path]
    if glob.has_magic(str(path)) and not path.exists():
        files = [Path(name) for name in sorted(glob.glob(str(path)))]
        if not files:
            raise InputError(f"{path}: no triplet file has a name like this")
    shard = SHARD.fullmatch(files[0].name)
    if shard is None or not files[0].exists():
        return files
    name = shard["stem"] + "-{:05}-of-" + shard["count"] + shard["suffix"]
    whole = [files[0].with_name(name.format(number)) for number in range(int(shard["count"]))]
    missing = [file for file in whole if not file.exists()]
    others = sorted(set(files) - set(whole))
    if missing or others:
        problem = "is missing from" if missing else "is not of"
        raise InputError(
            f"{[*missing, *others][0]}: {problem} the set of {len(whole)} files that {files[0]} is "
            "of; sample them again, or name one set"
        )
    return whole


def _read_file(path: Path, indices: dict[str, int], rows: "array[int]") -> None:
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
    return resolve_image_paths(
        triplets.file,
        triplets.paths,
        folders,
        "put the file into the folder that its paths start from, or train with --dataset FOLDER",
    )
