"""The triplet file: `query,positive,negative`, one triplet a line.

Files are written without a header. One that reads "query,positive,negative" is passed over, as are
a byte order mark and empty lines at the end: spreadsheets and editors write them.

Fields are image paths. As in CSV, quotes surround only a path that needs them (for a comma or a
quote), so that files of earlier systems stay readable. Written paths are relative to the file's
folder, with "/" between folders. Bytes that are not UTF-8 stay as they are in the file system.

A file whose name ends in .gz is compressed. A set of files, `triplets-00000-of-00016.txt.gz` to
`triplets-00015-of-00016.txt.gz`, is read as one file, by the name of any of them or by a pattern.
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
from deep_ranking.files.path_forms import existing_form
from deep_ranking.images import resolve_image_paths

COLUMNS = ("query", "positive", "negative")
EXPECTED, QUOTE = "expected query,positive,negative, received", "quote a path that has commas"
COMPRESSED = ".gz"
LINES_AT_ONCE = 1 << 13  # fits into a processor's cache: twice as fast as whole blocks
MAX_PADDING = 4  # limit on the bytes of all paths padded to the longest, over those not padded
SHARD = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})(?P<suffix>(\.[^.]+)*)", re.DOTALL)


@dataclass(frozen=True)
class Triplets:
    """The triplets of a file: a table of paths, and three indices into it for each triplet.

    Attributes:
        file: the triplet file, or the first of a set.
        paths: image paths as in the file, each once, in order of appearance.
        rows: int32 (triplets, 3), indices into `paths`: query, positive, negative.
        further: for each further file of a set, the number of its first triplet, and the file.
        with_header: the files whose first line names the columns.

    Example:
        >>> triplets = read_triplets("triplets.txt")
        >>> len(triplets), triplets.place(0)
        (48, 'triplets.txt:1')
    """

    file: Path
    paths: list[str]
    rows: Int32Array
    further: tuple[tuple[int, Path], ...] = ()
    with_header: frozenset[Path] = frozenset()

    def __len__(self) -> int:
        """Return the number of triplets."""
        return len(self.rows)

    def place(self, triplet: int) -> str:
        """Return file and line of a triplet, as PATH:LINE."""
        begun = [each for each in ((0, self.file), *self.further) if each[0] <= triplet]
        start, file = begun[-1]
        return f"{file}:{triplet - start + 1 + (file in self.with_header)}"


def write_triplets(
    path: str | os.PathLike[str],
    paths: Sequence[str],
    blocks: Iterable[npt.NDArray[np.integer]],
    *,
    shards: int | None = None,
) -> int:
    """Write a triplet file block by block; `path` appears only when it is complete.

    Args:
        path: file to write; compressed if its name ends in .gz, to the same bytes each time.
        paths: image paths as the file shall hold them: relative to the file's folder.
        blocks: integer arrays (triplets, 3) of indices into `paths`, as `sample_triplets` yields.
        shards: write a set of this many files instead, giving each a triplet in turn; see
            `shard_path`. They appear only when all are complete.

    Returns:
        The number of triplets written.

    Example:
        >>> rows = np.array([[0, 1, 2], [1, 0, 2]])
        >>> write_triplets("two.txt", ["a.jpg", "b.jpg", "c.jpg"], [rows])
        2

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
    """Yield each block while the pool draws the next."""
    iterator = iter(blocks)
    drawn = pool.submit(next, iterator, None)
    while (block := drawn.result()) is not None:
        drawn = pool.submit(next, iterator, None)
        yield block


def shard_path(path: Path, number: int, count: int) -> Path:
    """Return the name of a file of a set: `a.txt.gz` -> `a-00000-of-00016.txt.gz`."""
    suffix = "".join(path.suffixes[-2:]) if path.suffix == COMPRESSED else path.suffix
    stem = path.name.removesuffix(suffix)
    return path.with_name(f"{stem}-{number:05}-of-{count:05}{suffix}")


class _Lines:
    """Makes the lines of many triplets at once.

    Args:
        fields: each image's path as it stands in the file, followed by a line break.
    """

    def __init__(self, fields: bytes) -> None:
        self._fields: list[bytes] = []
        signs = np.frombuffer(fields, np.uint8)
        ends = np.flatnonzero(signs == ord("\n"))
        lengths = np.diff(ends, prepend=-1) - 1
        width = int(lengths.max(initial=0))
        if width * len(lengths) > MAX_PADDING * len(fields):  # few paths are long
            self._fields = fields.split(b"\n")
            return
        # A table of all paths, each with its comma; zeros pad the short rows.
        self._table = np.full((len(lengths), width + 1), ord(","), np.uint8)
        self._padded = bool((lengths < width).any())
        if self._padded:
            places = np.arange(width) < lengths[:, None]
            self._table[:, :width][places] = signs[signs != ord("\n")]
            self._table[:, :width][~places] = 0
        else:
            self._table[:, :width] = signs.reshape(-1, width + 1)[:, :width]

    def of(self, triplets: npt.NDArray[np.integer]) -> bytes | bytearray:
        """Return the lines of triplets."""
        if fields := self._fields:
            return b"".join(
                b"%b,%b,%b\n" % (fields[query], fields[positive], fields[negative])
                for query, positive, negative in triplets.tolist()
            )
        padded = bytearray(triplets.size * self._table.shape[1])
        lines = np.frombuffer(padded, np.uint8).reshape(*triplets.shape, -1)
        # mode="raise" would copy once more
        np.take(self._table, triplets, axis=0, out=lines, mode="clip")
        lines[:, -1, -1] = ord("\n")
        return padded.translate(None, b"\0") if self._padded else padded  # no path holds a zero


def field_bytes(paths: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the number of bytes of each path in a triplet file, with quotes: int64 (paths,).

    Raises:
        InputError: a path holds a line break.
    """
    ends = np.flatnonzero(np.frombuffer(_fields(paths), np.uint8) == ord("\n"))
    return np.diff(ends, prepend=-1) - 1


def _fields(paths: Sequence[str]) -> bytes:
    """Return paths as they stand in the file, each followed by a line break."""
    text = "\n".join([*paths, ""])
    odd = any(sign in text for sign in (",", '"', "\r", BYTE_ORDER_MARK))
    if odd or text.count("\n") > len(paths):
        return b"".join(_field(path) + b"\n" for path in paths)
    return text.encode("utf-8", "surrogateescape")  # all at once: the usual case


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
            # Store neither name nor time, so that the same triplets give the same bytes.
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:
                yield cast(BinaryIO, compressed)
        else:
            yield file


def read_triplets(path: str | os.PathLike[str]) -> Triplets:
    """Read a triplet file, or a set of them.

    Args:
        path: a triplet file, or any file of a set, or a pattern with `*`, `?` or `[` whose files
            are read in the order of their names. Lines may end in LF or CRLF; .gz is decompressed.

    Returns:
        The `Triplets`: 12 bytes for each triplet, and each path once.

    Example:
        >>> read_triplets("triplets.txt").rows.shape
        (48, 3)

    Raises:
        InputError: there is no such file, it is not text or is empty, a line does not have three
            fields (with path and line), or a file of the set is missing.
    """
    files = triplet_files(Path(path))
    indices: dict[str, int] = {}
    rows = array("i")
    starts, with_header = [], set()
    for file in files:
        starts.append((len(rows) // len(COLUMNS), file))
        if _read_file(file, indices, rows):
            with_header.add(file)
    if not rows:
        raise InputError(f"{path}: no triplets in this file; sample some with triplet_sampler.py")
    table = np.frombuffer(rows, np.int32).reshape(-1, len(COLUMNS))  # (triplets, 3)
    return Triplets(files[0], list(indices), table, tuple(starts[1:]), frozenset(with_header))


def triplet_files(path: Path) -> list[Path]:
    """Return the files that a path stands for: itself, its whole set, or those of a pattern.

    Raises:
        InputError: no file matches the pattern, or files of a set are missing.
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
        problem = "is missing from" if missing else "is not in"
        raise InputError(
            f"{[*missing, *others][0]}: {problem} the set of {len(whole)} files that holds "
            f"{files[0]}; sample the set again, or name a single set"
        )
    return whole


def _read_file(path: Path, indices: dict[str, int], rows: "array[int]") -> bool:
    """Add the triplets of a file; return whether its first line names the columns."""
    has_header, empty = False, 0
    for line, fields in read_lines(path, kind="triplet", hint="make it with triplet_sampler.py"):
        if not fields:
            empty = empty or line  # right only if no other line follows
            continue
        if empty:
            raise InputError(f"{path}:{empty}: {EXPECTED} an empty line; {QUOTE}")
        if len(fields) != len(COLUMNS):
            found = f"{len(fields)} field{'s' * (len(fields) != 1)}"
            raise InputError(f"{path}:{line}: {EXPECTED} {found}; {QUOTE}")
        if line == 1 and tuple(field.strip().lower() for field in fields) == COLUMNS:
            has_header = True
            continue
        if not all(fields):
            raise InputError(f"{path}:{line}: the {COLUMNS[fields.index('')]} is empty")
        rows.extend(indices.setdefault(field, len(indices)) for field in fields)
    return has_header


def resolve_paths(triplets: Triplets, dataset_dir: str | os.PathLike[str] | None) -> list[str]:
    """Return the image paths of a triplet file, joined to the folder that they start from.

    The folder is the first of these that holds any image of the file: `dataset_dir`, the folder of
    the triplet file, the working folder (as in the blog's own files).

    Args:
        triplets: triplets of a file.
        dataset_dir: folder to try first.

    Returns:
        A path for each of `triplets.paths`; that of the image where the file has it in another
        Unicode normal form. It is not checked that every image exists.

    Raises:
        InputError: no image is in any of the folders, or `dataset_dir` is not a folder.
    """
    folders = [triplets.file.parent, Path()]
    if dataset_dir is not None:
        if not Path(dataset_dir).is_dir():
            raise InputError(f"{dataset_dir}: no such folder; check --dataset")
        folders.insert(0, Path(dataset_dir))
    hint = "move the file to the folder that its paths start from, or train with --dataset FOLDER"
    try:
        resolved = resolve_image_paths(triplets.file, triplets.paths, folders, hint)
    except InputError:
        others = [_first_existing(path, folders) for path in triplets.paths]
        if others == triplets.paths:
            raise
        resolved = resolve_image_paths(triplets.file, others, folders, hint)
    return [existing_form(path) for path in resolved]


def _first_existing(path: str, folders: Sequence[Path]) -> str:
    """Return a path in the normal form in which an image is in one of the folders."""
    if path.isascii():
        return path
    for folder in folders:
        found = existing_form(os.path.join(folder, path))
        if os.path.lexists(found):
            return os.path.relpath(found, folder) if not os.path.isabs(path) else found
    return path
